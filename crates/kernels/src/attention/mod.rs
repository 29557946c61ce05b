//! Causal attention over a key/value cache.
//!
//! For token `t` of sequence `seq` at `pos` and head `h`, over the keys `j ≤ pos` with `window = 0` or `j > pos − window`:
//! `s_j = scale · q·k_j`, soft-capped to `cap·tanh(s_j / cap)` if `softcap > 0`; `out = Σ softmax(s)_j · v_j`. Query head `h` uses
//! key/value head `h / (NH / NKV)`. With `mutual` a token also sees the keys up to `ends[t]`: a picture's tokens see each other.
//! Tokens of one sequence stand next to each other in `rows`. Online softmax in f32.
//! Key `j` is in slot `j mod CAP`: with a window the caches may be shorter than the sequence, `CAP ≥ window − 1` plus the tokens of
//! a call; without one only the last `CAP` keys are there.
//! Source: Vaswani et al. 2017, Ainslie et al. 2023 (GQA), Dao et al. 2022; `eager_attention_forward` in transformers.
//!
//! Variants: `row` (decode: one workgroup a token and head), `tile` (prefill: four tokens share what is read of K and V). Of few tokens with
//! a long past [`attention`] divides the keys on a GPU: [`crate::attention_part`], [`crate::attention_merge`].

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, View, ensure, times};
#[cfg(not(target_arch = "wasm32"))]
use crate::attention_merge::{self, AttentionMerge};
#[cfg(not(target_arch = "wasm32"))]
use crate::attention_part::{self, AttentionPart};
#[cfg(not(target_arch = "wasm32"))]
use crate::kernel::{Recorded, words};
use crate::tune::{On, Tunable};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// Online softmax and the sums of values of four queries at once, for shaders that find keys and values.
pub(crate) const FOUR_QUERIES: &str = include_str!("four_queries.wgsl");
/// Scores of a cache's keys with [`FOUR_QUERIES`].
pub(crate) const FOUR_KEYS: &str = include_str!("four_keys.wgsl");
/// Storing what [`FOUR_QUERIES`] found for four tokens.
pub(crate) const FOUR_FINISH: &str = include_str!("four_finish.wgsl");

static TILE_FROM: Tunable = Tunable {
    name: "attention.tile_from",
    what: "tokens from which four share what is read of keys and values",
    on: On::Gpu,
    operand: 1,
    default: 4,
    choices: &[2, 3, 4, 5, 9, 17],
};

/// See the module's head.
#[derive(Debug)]
pub struct Attention;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Tokens.
    pub t: u32,
    /// Query heads.
    pub nh: u32,
    /// Key/value heads.
    pub nkv: u32,
    /// Elements of a head: a multiple of 4, at most 512.
    pub hd: u32,
    /// Positions a sequence has room for.
    pub cap: u32,
    /// Keys a token sees, itself included; 0: all.
    pub window: u32,
    /// Factor of the products, not negative.
    pub scale: f32,
    /// Soft cap of the scaled products; 0: none.
    pub softcap: f32,
    /// Not 0: keys up to `ends` are seen, too.
    pub mutual: u32,
}

/// Element types of caches.
pub(crate) const CACHES: &[DType] = &[DType::F32, DType::F16, DType::Q8_0];

const OPERANDS: &[Operand] = &[
    Operand::read("q", &[DType::F32], "[T, NH·HD]"),
    Operand::read("kc", CACHES, "[NSEQ, CAP, NKV, HD]"),
    Operand::read("vc", CACHES, "[NSEQ, CAP, NKV, HD]"),
    Operand::read("rows", &[DType::U32], "[T, 2]"),
    Operand::read("ends", &[DType::U32], "[T] if mutual"),
    Operand::write("out", &[DType::F32], "[T, NH·HD]"),
];

impl Kernel for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn formula(&self) -> &'static str {
        "out = Σⱼ softmax(scale · q·kⱼ)ⱼ · vⱼ over the visible keys"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [q, kc, vc, rows, ends, out] = call.operands else {
            return Err(crate::Error::invalid("attention: expected 6 operands"));
        };
        let t = p.t as usize;
        check_cache(self, (p.nh, p.nkv, p.hd, p.cap), (kc, vc))?;
        check_scale(self, p.scale)?;
        let len = times(&[p.t, p.nh, p.hd]);
        let listed = rows.elements() >= 2 * t && ends.elements() >= t;
        ensure(self, q.elements() as u64 == len && out.elements() as u64 == len && listed, || {
            format!("q {:?}, rows {:?}, ends {:?}, out {:?} for {t} tokens", q.shape, rows.shape, ends.shape, out.shape)
        })?;
        let heads = u64::from(p.nh);
        let mut plan = if p.t >= caps.tuned(&TILE_FROM, kc.dtype) {
            let mut plan = Plan::new("tile", include_str!("attention_tile.wgsl"), t.div_ceil(4) as u64 * heads, caps)?;
            plan.wgsl.extend([FOUR_QUERIES.into(), FOUR_KEYS.into(), FOUR_FINISH.into()]);
            plan
        } else {
            Plan::new("row", include_str!("attention_row.wgsl"), t as u64 * heads, caps)?
        };
        cells(&mut plan, kc.dtype);
        Ok(plan)
    }

    fn cpu(&self) -> Option<fn(&mut CpuCall<'_, '_>)> {
        Some(cpu::run)
    }

    fn reference(&self, call: &Call<'_>, values: &mut [Vec<f64>]) {
        reference::run(&call.params(), values);
    }

    fn work(&self, _: &Call<'_>) -> Option<crate::Work> {
        None
    }

    fn cases(&self) -> Vec<Case> {
        cases::cases()
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn tunables(&self) -> Vec<(&'static Tunable, Vec<Case>)> {
        vec![
            (&TILE_FROM, cases::few_tokens()),
            (&attention_part::KEYS, cases::long_pasts()),
            (&attention_part::FROM, cases::long_pasts()),
        ]
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn recorded(&self) -> Option<Recorded> {
        Some(record)
    }
}

/// Checks the factor of the products: the softmax takes the largest product for the largest exponent.
pub(crate) fn check_scale(kernel: &dyn Kernel, scale: f32) -> Result<()> {
    ensure(kernel, scale >= 0.0, || format!("scale {scale}; expected 0 or more"))
}

/// Checks the heads, and that the caches are of them and of `cap` positions.
pub(crate) fn check_cache(
    kernel: &dyn Kernel,
    (nh, nkv, hd, cap): (u32, u32, u32, u32),
    (kc, vc): (&View, &View),
) -> Result<()> {
    ensure(kernel, hd.is_multiple_of(4) && (4..=512).contains(&hd), || {
        format!("heads of {hd}; expected a multiple of 4 up to 512")
    })?;
    ensure(kernel, nkv > 0 && nh.is_multiple_of(nkv), || {
        format!("{nh} query heads over {nkv} key/value heads")
    })?;
    let cell = times(&[cap, nkv, hd]);
    let room = cell > 0 && (kc.elements() as u64).is_multiple_of(cell);
    ensure(kernel, room && kc.shape == vc.shape && kc.dtype == vc.dtype, || {
        format!("caches {:?} and {:?} of {cap} positions", kc.shape, vc.shape)
    })?;
    ensure(kernel, kc.dtype != DType::Q8_0 || hd.is_multiple_of(64), || {
        format!("heads of {hd} in {}; expected a multiple of 64", kc.dtype)
    })
}

/// Adds what reads caches of this type.
pub(crate) fn cells(plan: &mut Plan, cache: DType) {
    let (kv, wgsl) = match cache {
        DType::Q8_0 => ("u32", include_str!("cells_q8.wgsl")),
        DType::F16 => ("vec4<f16>", include_str!("cells_float.wgsl")),
        _ => ("vec4<f32>", include_str!("cells_float.wgsl")),
    };
    plan.f16 = cache == DType::F16;
    plan.aliases.push(("KV", kv));
    plan.wgsl.push(wgsl.into());
}

/// What [`attention`] works on beside the queries.
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs<'a> {
    /// `(seq, pos)` per token, u32 `[T, 2]`.
    pub rows: &'a Array,
    /// Key cache `[NSEQ, CAP, NKV, HD]`.
    pub k_cache: &'a Array,
    /// Value cache `[NSEQ, CAP, NKV, HD]`.
    pub v_cache: &'a Array,
    /// Keys a token sees, itself included; 0: all.
    pub window: u32,
    /// Factor of the products, usually `HD^-½`; not negative.
    pub scale: f32,
    /// Soft cap; 0: none.
    pub softcap: f32,
    /// One past the last key each token sees where that is behind its own, u32 `[T]`; those keys are in the cache and have not been
    /// written over. `None`: no token sees what comes after it.
    pub ends: Option<&'a Array>,
}

/// Attends with `q` f32 `[T, NH·HD]`; the result has its shape.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn attention(rec: &mut Recorder, q: &Array, args: AttentionArgs<'_>) -> Result<Array> {
    let &[_, cap, nkv, hd] = args.k_cache.shape() else {
        return Err(crate::Error::invalid(format!("attention: cache {:?}", args.k_cache)));
    };
    let t = q.shape().first().copied().unwrap_or(0);
    let out = rec.temp(DType::F32, q.shape())?;
    let params = Params {
        t: t as u32,
        nh: (q.elements() / (t * hd).max(1)) as u32,
        nkv: nkv as u32,
        hd: hd as u32,
        cap: cap as u32,
        window: args.window,
        scale: args.scale,
        softcap: args.softcap,
        mutual: u32::from(args.ends.is_some()),
    };
    let ends = args.ends.unwrap_or(args.rows);
    let operands = [q, args.k_cache, args.v_cache, args.rows, ends, &out];
    #[cfg(not(target_arch = "wasm32"))]
    record(rec, &operands, &words(&params))?;
    #[cfg(target_arch = "wasm32")]
    rec.call(&Attention, &operands, &params)?;
    Ok(out)
}

/// One call, or two: of few tokens with a long past the keys are divided on a GPU. Not in browsers: there the two kernels would cost more of
/// the engine's size than long contexts are worth.
#[cfg(not(target_arch = "wasm32"))]
fn record(rec: &mut Recorder, operands: &[&Array], params: &[u32]) -> Result<()> {
    let p: Params = Call { operands: &[], params }.params();
    if let &[q, kc, vc, rows, _, out] = operands {
        let held = if p.window > 0 { p.cap.min(p.window) } else { p.cap };
        let sharing = p.nh / p.nkv.max(1);
        let caps = rec.device().caps();
        let few = p.t < caps.tuned(&TILE_FROM, kc.dtype()) && p.mutual == 0;
        let parts = attention_part::parts(p.t, p.nkv, sharing, held, attention_part::Division::of(caps, kc.dtype()));
        if rec.device().is_gpu() && few && parts > 1 {
            return in_parts(rec, [q, kc, vc, rows, out], &p, parts);
        }
    }
    rec.call_words(&Attention, operands, params.to_vec())
}

/// The keys divided: two dispatches.
#[cfg(not(target_arch = "wasm32"))]
fn in_parts(rec: &mut Recorder, [q, kc, vc, rows, out]: [&Array; 5], p: &Params, parts: u32) -> Result<()> {
    let shape = [p.t, p.nh, parts, p.hd + 4].map(|n| n as usize);
    let partial = rec.temp(DType::F32, &shape)?;
    let &Params { t, nh, nkv, hd, cap, window, scale, softcap, .. } = p;
    let params = attention_part::Params { t, nh, nkv, hd, cap, window, scale, softcap, parts };
    rec.call(&AttentionPart, &[q, kc, vc, rows, &partial], &params)?;
    let params = attention_merge::Params { heads: t * nh, hd, parts };
    rec.call(&AttentionMerge, &[&partial, out], &params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CpuOptions, Device, Holder};

    #[test]
    fn a_scale_below_zero_or_none_is_refused() -> Result<()> {
        let device = Device::cpu(&CpuOptions::default())?;
        let cache = device.array(DType::F32, &[1, 8, 1, 4], Holder::User)?;
        let rows = device.array(DType::U32, &[1, 2], Holder::User)?;
        let q = device.array(DType::F32, &[1, 4], Holder::User)?;
        for (scale, fits) in [(0.5, true), (0.0, true), (-0.5, false), (f32::NAN, false)] {
            let args = AttentionArgs {
                k_cache: &cache,
                v_cache: &cache,
                rows: &rows,
                window: 0,
                scale,
                softcap: 0.0,
                ends: None,
            };
            let result = attention(&mut Recorder::new(&device), &q, args);
            assert_eq!(result.is_ok(), fits, "{scale}: {result:?}");
        }
        Ok(())
    }
}
