//! Weighted sums of groups of rows.
//!
//! `y[t, :] = Σⱼ w[t, j] · x[t·K + j, :]`: what a token's experts say, put together. Source: Shazeer et al. 2017; `Gemma4TextExperts` in
//! transformers.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct WeightedSum;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Tokens.
    pub t: u32,
    /// Rows of a sum.
    pub k: u32,
    /// Elements of a row.
    pub d: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[T·K, D]"),
    Operand::read("w", &[DType::F32], "[T, K]"),
    Operand::write("y", &[DType::F32], "[T, D]"),
];

impl Kernel for WeightedSum {
    fn name(&self) -> &'static str {
        "weighted_sum"
    }

    fn formula(&self) -> &'static str {
        "y[t, :] = Σⱼ w[t, j] · x[t·K + j, :]"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [x, w, y] = [&call.operands[0], &call.operands[1], &call.operands[2]];
        let (t, k, d) = (u64::from(p.t), u64::from(p.k), u64::from(p.d));
        ensure(self, w.elements() as u64 == t * k && k > 0, || {
            format!("weights {:?} for {t} sums of {k}", w.shape)
        })?;
        let sum = Some(y.elements() as u64) == t.checked_mul(d);
        ensure(self, sum && Some(x.elements() as u64) == (t * k).checked_mul(d), || {
            format!("x {:?} into y {:?} for {t} sums of {k} rows of {d}", x.shape, y.shape)
        })?;
        let groups = (t * d).div_ceil(64);
        Plan::new("flat", include_str!("weighted_sum.wgsl"), groups, caps)
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

/// Sums groups of `K` rows of `x` f32 `[T·K, D]` with the weights `w` f32 `[T, K]`: f32 `[T, D]`.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn weighted_sum(rec: &mut Recorder, x: &Array, w: &Array) -> Result<Array> {
    let &[t, k] = w.shape() else {
        return Err(crate::Error::invalid(format!("weighted_sum: weights {w:?}; expected [T, K]")));
    };
    let d = x.elements() / w.elements().max(1);
    let y = rec.temp(DType::F32, &[t, d])?;
    let params = Params { t: t as u32, k: k as u32, d: d as u32 };
    rec.call(&WeightedSum, &[x, w, &y], &params)?;
    Ok(y)
}
