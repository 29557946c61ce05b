//! Attention to the last few tokens, with a key for each distance.
//!
//! Token `t` and head `h` see the distances `j` in `0…P−1` with `j ≤ t`: `s_j = cap · tanh((kscale · q_t·k_{t−j} + q_t·r_j) / cap)`,
//! `out = Σ softmax(s)_j · v_{t−j}`. The sequence is one; all heads have keys of their own.
//! Source: `Gemma4AudioAttention` in transformers (chunked local attention after Dai et al. 2019); chunks are an implementation of the
//! same sums.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct NearAttention;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Tokens.
    pub t: u32,
    /// Heads.
    pub nh: u32,
    /// Elements of a head.
    pub hd: u32,
    /// Distances seen, at most 64.
    pub p: u32,
    /// Factor of the products with keys.
    pub kscale: f32,
    /// Bound of the scores, above 0.
    pub cap: f32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("q", &[DType::F32], "[T, NH·HD]"),
    Operand::read("k", &[DType::F32], "[T, NH·HD]"),
    Operand::read("v", &[DType::F32], "[T, NH·HD]"),
    Operand::read("r", &[DType::F32], "[P, NH·HD]"),
    Operand::write("out", &[DType::F32], "[T, NH·HD]"),
];

impl Kernel for NearAttention {
    fn name(&self) -> &'static str {
        "near_attention"
    }

    fn formula(&self) -> &'static str {
        "out = Σⱼ softmax(cap · tanh((κ · q·k₋ⱼ + q·rⱼ) / cap))ⱼ · v₋ⱼ over the last P tokens"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [q, k, v, r, out] = call.operands else {
            return Err(crate::Error::invalid("near_attention: expected 5 operands"));
        };
        let (t, row) = (u64::from(p.t), u64::from(p.nh) * u64::from(p.hd));
        ensure(self, (1..=64).contains(&p.p) && p.cap > 0.0, || {
            format!("{} distances and a bound of {}; expected 1 to 64 and above 0", p.p, p.cap)
        })?;
        let whole = t.checked_mul(row);
        ensure(self, [q, k, v, out].iter().all(|a| whole == Some(a.elements() as u64)), || {
            format!("q {:?}, k {:?}, v {:?}, out {:?} as [{t}, {row}]", q.shape, k.shape, v.shape, out.shape)
        })?;
        ensure(self, r.elements() as u64 == u64::from(p.p) * row, || format!("r {:?} as [{}, {row}]", r.shape, p.p))?;
        Plan::new("head", include_str!("near_attention.wgsl"), t * u64::from(p.nh), caps)
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

/// What [`near_attention`] works on.
#[derive(Clone, Copy, Debug)]
pub struct NearAttentionArgs<'a> {
    /// Queries, f32 `[T, NH·HD]`.
    pub q: &'a Array,
    /// Keys, of that shape.
    pub k: &'a Array,
    /// Values, of that shape.
    pub v: &'a Array,
    /// A key for each distance, f32 `[P, NH·HD]`.
    pub distances: &'a Array,
    /// Heads.
    pub heads: usize,
    /// Factor of the products with keys.
    pub key_scale: f32,
    /// Bound of the scores.
    pub cap: f32,
}

/// Attends; f32 `[T, NH·HD]`.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn near_attention(rec: &mut Recorder, a: NearAttentionArgs<'_>) -> Result<Array> {
    let &[t, row] = a.q.shape() else {
        return Err(crate::Error::invalid(format!("near_attention: {:?}; expected [T, NH·HD]", a.q)));
    };
    let out = rec.temp(DType::F32, &[t, row])?;
    let params = Params {
        t: t as u32,
        nh: a.heads as u32,
        hd: (row / a.heads.max(1)) as u32,
        p: (a.distances.elements() / row.max(1)) as u32,
        kscale: a.key_scale,
        cap: a.cap,
    };
    rec.call(&NearAttention, &[a.q, a.k, a.v, a.distances, &out], &params)?;
    Ok(out)
}
