//! Rotary position embedding of queries and keys, fused with writing keys and values into the cache.
//!
//! For token `t` at position `pos` of sequence `seq` (from `rows[t] = (seq, pos)`): `q[t]` is rotated in place, the rotated
//! `k[t]` and `v[t]` go to `kc`, `vc[seq, pos mod CAP]`. A pair `(a, b)` becomes `(a c − b s, a s + b c)` with `(c, s)` from the table
//! `rope[pos, i]`, which the host makes in f64 with whatever scaling the model has; so every scaling is this one kernel.
//! Pairs are `(i, i + R/2)` (`half`, Hugging Face) or `(2i, 2i + 1)` (`adjacent`, GGUF's llama); dimensions from
//! `R = 2·rope.shape[1]` on are left as they are. Positions beyond the table are left alone. Source: Su et al. 2021; `apply_rotary_pos_emb` in transformers.

mod cases;
pub(crate) mod cpu;
mod reference;

use crate::attention::CACHES;
use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure, times};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct RopeKv;

/// Which elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Pairing {
    /// `i` with `i + R/2`.
    Half = 0,
    /// `2i` with `2i + 1`.
    Adjacent = 1,
}

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
    /// Elements of a head, even.
    pub hd: u32,
    /// Rotated pairs of a head, `R/2`.
    pub pairs: u32,
    /// Positions a sequence has room for.
    pub cap: u32,
    /// A [`Pairing`].
    pub pairing: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read_write("q", &[DType::F32], "[T, NH·HD]"),
    Operand::read("k", &[DType::F32], "[T, NKV·HD]"),
    Operand::read("v", &[DType::F32], "[T, NKV·HD]"),
    Operand::read("rows", &[DType::U32], "[T, 2]"),
    Operand::read("rope", &[DType::F32], "[P, R/2, 2]"),
    Operand::read_write("kc", CACHES, "[NSEQ, CAP, NKV, HD]"),
    Operand::read_write("vc", CACHES, "[NSEQ, CAP, NKV, HD]"),
];

impl Kernel for RopeKv {
    fn name(&self) -> &'static str {
        "rope_kv"
    }

    fn formula(&self) -> &'static str {
        "q ← rot(q, pos); kc[seq, pos mod CAP] ← rot(k, pos); vc[seq, pos mod CAP] ← v"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [q, k, v, rows, rope, kc, vc] = call.operands else {
            return Err(crate::Error::invalid("rope_kv: expected 7 operands"));
        };
        let (t, q_len, kv_len) = (p.t as usize, times(&[p.t, p.nh, p.hd]), times(&[p.t, p.nkv, p.hd]));
        ensure(self, p.hd.is_multiple_of(2) && p.pairs <= p.hd / 2 && p.pairing <= 1, || {
            format!("{} pairs of a head of {}, pairing {}", p.pairs, p.hd, p.pairing)
        })?;
        ensure(self, q.elements() as u64 == q_len && rows.elements() >= 2 * t, || {
            format!("q {:?}, rows {:?} for {t} tokens", q.shape, rows.shape)
        })?;
        ensure(self, k.elements() as u64 == kv_len && v.elements() as u64 == kv_len, || {
            format!("k {:?}, v {:?} for {t} tokens of {} heads of {}", k.shape, v.shape, p.nkv, p.hd)
        })?;
        ensure(self, rope.elements() as u64 >= times(&[p.cap, p.pairs, 2]), || {
            format!("table {:?} for {} positions of {} pairs", rope.shape, p.cap, p.pairs)
        })?;
        let cell = times(&[p.cap, p.nkv, p.hd]);
        let room = cell > 0 && (kc.elements() as u64).is_multiple_of(cell);
        ensure(self, room && kc.shape == vc.shape && kc.dtype == vc.dtype, || {
            format!("caches {:?} and {:?} of {} positions", kc.shape, vc.shape, p.cap)
        })?;
        if kc.dtype == DType::Q8_0 {
            ensure(self, p.hd.is_multiple_of(64) && p.hd <= 512, || {
                format!("heads of {} in {}; expected a multiple of 64 up to 512", p.hd, kc.dtype)
            })?;
            let heads = t as u64 * (u64::from(p.nh) + 2 * u64::from(p.nkv));
            return Plan::new("q8_cache", include_str!("rope_kv_q8.wgsl"), heads, caps);
        }
        let items = t as u64 * (u64::from(p.nh) + 2 * u64::from(p.nkv)) * u64::from(p.hd / 2);
        let f16 = kc.dtype == DType::F16;
        let variant = if f16 { "f16_cache" } else { "f32_cache" };
        let mut plan = Plan::new(variant, include_str!("rope_kv.wgsl"), items.div_ceil(64), caps)?;
        plan.f16 = f16;
        plan.aliases.push(("KV", if f16 { "f16" } else { "f32" }));
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
}

/// What [`rope_kv`] works on beside queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct RopeKvArgs<'a> {
    /// `(seq, pos)` per token, u32 `[T, 2]`.
    pub rows: &'a Array,
    /// Cosines and sines, f32 `[P, R/2, 2]`, `P` at least the cache's positions.
    pub rope: &'a Array,
    /// Key cache `[NSEQ, CAP, NKV, HD]`.
    pub k_cache: &'a Array,
    /// Value cache `[NSEQ, CAP, NKV, HD]`.
    pub v_cache: &'a Array,
    /// Which elements turn together.
    pub pairing: Pairing,
}

/// Rotates `q` f32 `[T, NH·HD]` in place and writes rotated `k` and plain `v`, f32 `[T, NKV·HD]`, into the caches.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn rope_kv(rec: &mut Recorder, q: &Array, k: &Array, v: &Array, args: RopeKvArgs<'_>) -> Result<()> {
    let &[_, cap, nkv, hd] = args.k_cache.shape() else {
        return Err(crate::Error::invalid(format!("rope_kv: cache {:?}", args.k_cache)));
    };
    let t = k.elements() / (nkv * hd).max(1);
    let params = Params {
        t: t as u32,
        nh: (q.elements() / (t * hd).max(1)) as u32,
        nkv: nkv as u32,
        hd: hd as u32,
        pairs: args.rope.shape().get(1).copied().unwrap_or(0) as u32,
        cap: cap as u32,
        pairing: args.pairing as u32,
    };
    rec.call(&RopeKv, &[q, k, v, args.rows, args.rope, args.k_cache, args.v_cache], &params)
}
