//! Residual add fused with the norm that follows it.
//!
//! `h += x; y = h / sqrt(mean(h²) + eps) · (w + offset)`, rows of the last dimension, `h` in place. Source: the pre-norm
//! transformer block; see [`crate::rms_norm`] for the norm.

mod cases;
mod cpu;
mod reference;

pub use crate::rms_norm::Params;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct AddRmsNorm;

const OPERANDS: &[Operand] = &[
    Operand::read_write("h", &[DType::F32], "[R, D]"),
    Operand::read("x", &[DType::F32], "[R, D]"),
    Operand::read("w", &[DType::F32], "[D]"),
    Operand::write("y", &[DType::F32], "[R, D]"),
];

impl Kernel for AddRmsNorm {
    fn name(&self) -> &'static str {
        "add_rms_norm"
    }

    fn formula(&self) -> &'static str {
        "h += x; y = h / sqrt(mean(h²) + eps) · (w + offset)"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let (rows, d) = (p.rows as usize, p.d as usize);
        ensure(self, call.operands[2].elements() == d, || format!("weight for rows of {d}"))?;
        for i in [0, 1, 3] {
            let view = &call.operands[i];
            ensure(self, view.elements() == rows * d, || {
                format!("{:?} as {rows} rows of {d}", view.shape)
            })?;
        }
        Plan::new("row", include_str!("add_rms_norm.wgsl"), rows as u64, caps)
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

/// Adds `x` to `h` in place and returns the norm of the sum.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn add_rms_norm(
    rec: &mut Recorder,
    h: &Array,
    x: &Array,
    w: &Array,
    eps: f32,
    offset: f32,
) -> Result<Array> {
    let d = w.elements().max(1);
    let y = rec.temp(DType::F32, h.shape())?;
    let params = Params { rows: (h.elements() / d) as u32, d: d as u32, eps, offset };
    rec.call(&AddRmsNorm, &[h, x, w, &y], &params)?;
    Ok(y)
}
