//! The gated delta rule: a linear attention whose memory is one matrix per head, decayed, corrected and read at each token.
//!
//! Per value head `h` with state `S` `[HK, HV]`, in the order of a sequence's tokens:
//!
//! ```text
//! q̂ = q / sqrt(Σq² + 1e-6) · HK^-½     k̂ = k / sqrt(Σk² + 1e-6)
//! β = σ(b)     α = exp(decay[0, h] · softplus(a + decay[1, h]))
//! S ← α S;   δ = β (v − Sᵀk̂);   S ← S + k̂ δᵀ;   y = Sᵀ q̂
//! ```
//!
//! `qkv` is a row `q | k | v` per token with `NK` heads of `q` and `k`; value head `h` uses key head `h / (NV / NK)` (`grouped`, Hugging Face) or
//! `h mod NK` (`tiled`, GGUF). `decay[0]` is `−exp(A_log)`, `decay[1]` `dt_bias`. The state of sequence `seq` is `state[seq]`, f32, updated in
//! place; it counts as zero for a token at position 0, so nothing has to be cleared. Tokens of one sequence stand next to each
//! other in `rows`; the state of a sequence without a token stays as it is.
//!
//! One token and a whole prompt are the same scan, so a prompt gives exactly what its tokens give one by one, however it is cut
//! into steps. As `S` is linear in what came before, one pass over it does: with `κ = Sᵀk̂`, `ρ = Sᵀq̂` of the old state,
//! `δ = β (v − α κ)` and `y = α ρ + (k̂·q̂) δ`; the norms are sums of the same pass.
//! Source: Yang et al. 2024 (Gated Delta Networks); `torch_recurrent_gated_delta_rule` in transformers' `modeling_qwen3_5.py`.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// Added to the sum of squares of a query or key.
const EPS: f32 = 1e-6;

/// See the module's head.
#[derive(Debug)]
pub struct GatedDeltaRule;

/// Which key head a value head uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum HeadOrder {
    /// `h / (NV / NK)`: consecutive value heads share a key head.
    Grouped = 0,
    /// `h mod NK`.
    Tiled = 1,
}

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Tokens.
    pub t: u32,
    /// Key (and query) heads.
    pub nk: u32,
    /// Value heads, a multiple of the key heads.
    pub nv: u32,
    /// Elements of a key, at most 256.
    pub hk: u32,
    /// Elements of a value.
    pub hv: u32,
    /// Sequences the state has room for.
    pub nseq: u32,
    /// A [`HeadOrder`].
    pub order: u32,
    /// Factor of the normalised queries, `HK^-½`.
    pub scale: f32,
}

impl Params {
    /// Elements of a row of `qkv`.
    fn width(&self) -> u64 {
        2 * u64::from(self.nk) * u64::from(self.hk) + u64::from(self.nv) * u64::from(self.hv)
    }

    /// The key head of value head `h`.
    fn key_head(&self, h: usize) -> usize {
        let (nk, nv) = (self.nk as usize, self.nv as usize);
        if self.order == 0 { h / (nv / nk) } else { h % nk }
    }
}

const OPERANDS: &[Operand] = &[
    Operand::read("qkv", &[DType::F32], "[T, 2·NK·HK + NV·HV]"),
    Operand::read("b", &[DType::F32], "[T, NV]"),
    Operand::read("a", &[DType::F32], "[T, NV]"),
    Operand::read("decay", &[DType::F32], "[2, NV]"),
    Operand::read("rows", &[DType::U32], "[T, 2]"),
    Operand::read_write("state", &[DType::F32], "[NSEQ, NV, HK, HV]"),
    Operand::read_write("y", &[DType::F32], "[T, NV·HV]"),
];

impl Kernel for GatedDeltaRule {
    fn name(&self) -> &'static str {
        "gated_delta_rule"
    }

    fn formula(&self) -> &'static str {
        "S ← αS; S ← S + k̂ (β (v − Sᵀk̂))ᵀ; y = Sᵀq̂"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [qkv, b, a, decay, rows, state, y] = call.operands else {
            return Err(crate::Error::invalid("gated_delta_rule: expected 7 operands"));
        };
        let (t, nv, hk, hv) = (u64::from(p.t), u64::from(p.nv), u64::from(p.hk), u64::from(p.hv));
        ensure(self, p.nk > 0 && p.nv > 0 && p.nv.is_multiple_of(p.nk) && p.order <= 1, || {
            format!("{} value heads over {} key heads, order {}", p.nv, p.nk, p.order)
        })?;
        ensure(self, (1..=256).contains(&hk) && (1..=4096).contains(&hv) && nv <= 4096, || {
            format!("{nv} heads with keys of {hk} and values of {hv}; expected at most 256 and 4096")
        })?;
        ensure(self, qkv.elements() as u64 == t * p.width(), || {
            format!("qkv {:?} for {t} tokens of {}", qkv.shape, p.width())
        })?;
        ensure(self, b.elements() as u64 == t * nv && a.elements() as u64 == t * nv, || {
            format!("b {:?}, a {:?} as [{t}, {nv}]", b.shape, a.shape)
        })?;
        ensure(self, decay.elements() as u64 == 2 * nv && rows.elements() as u64 >= 2 * t, || {
            format!("decay {:?}, rows {:?} for {nv} heads, {t} tokens", decay.shape, rows.shape)
        })?;
        ensure(self, y.elements() as u64 == t * nv * hv, || format!("y {:?} as [{t}, {nv}·{hv}]", y.shape))?;
        ensure(self, state.elements() as u64 == u64::from(p.nseq) * nv * hk * hv, || {
            format!("state {:?} as [{}, {nv}, {hk}, {hv}]", state.shape, p.nseq)
        })?;
        let groups = u64::from(p.nseq) * nv * hv.div_ceil(8);
        let plan = Plan::new("scan", include_str!("gated_delta_rule.wgsl"), groups, caps)?;
        Ok(plan.constant("PER_LANE", hk.div_ceil(8) as f64))
    }

    fn cpu(&self) -> Option<fn(&mut CpuCall<'_, '_>)> {
        Some(cpu::run)
    }

    fn reference(&self, call: &Call<'_>, values: &mut [Vec<f64>]) {
        reference::run(&call.params(), values);
    }

    fn cases(&self) -> Vec<Case> {
        cases::cases()
    }
}

/// What [`gated_delta_rule`] works on beside queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct DeltaArgs<'a> {
    /// How much a token writes, before the sigmoid: f32 `[T, NV]`.
    pub b: &'a Array,
    /// How much it forgets, before the softplus: f32 `[T, NV]`.
    pub a: &'a Array,
    /// `−exp(A_log)`, then `dt_bias`: f32 `[2, NV]`.
    pub decay: &'a Array,
    /// `(seq, pos)` per token, u32 `[T, 2]`.
    pub rows: &'a Array,
    /// f32 `[NSEQ, NV, HK, HV]`, updated in place.
    pub state: &'a Array,
    /// Which key head a value head uses.
    pub order: HeadOrder,
}

/// Runs `qkv` f32 `[T, 2·NK·HK + NV·HV]` through the rule: f32 `[T, NV·HV]`. `NK` follows from the row's length.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn gated_delta_rule(rec: &mut Recorder, qkv: &Array, args: DeltaArgs<'_>) -> Result<Array> {
    let &[nseq, nv, hk, hv] = args.state.shape() else {
        return Err(crate::Error::invalid(format!("gated_delta_rule: state {:?}", args.state)));
    };
    let t = args.b.elements() / nv.max(1);
    let width = qkv.elements() / t.max(1);
    let y = rec.temp(DType::F32, &[t, nv * hv])?;
    let params = Params {
        t: t as u32,
        nk: (width.saturating_sub(nv * hv) / (2 * hk).max(1)) as u32,
        nv: nv as u32,
        hk: hk as u32,
        hv: hv as u32,
        nseq: nseq as u32,
        order: args.order as u32,
        scale: (hk as f32).powf(-0.5),
    };
    rec.call(&GatedDeltaRule, &[qkv, args.b, args.a, args.decay, args.rows, args.state, &y], &params)?;
    Ok(y)
}
