//! Root-mean-square normalisation gated by another array.
//!
//! `y[r, :] = x[r, :] / sqrt(mean(x[r, :]²) + eps) · w · silu(gate[r, :])`: normalised first, gated afterwards, with the plain
//! weight (no `1 + w`). Rows are whatever is before the last dimension, so a norm per value head is the same kernel on
//! `[T·NV, HV]`. A row of zeroes gives zeroes. Source: `Qwen3_5RMSNormGated` in transformers.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct GatedRmsNorm;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Rows.
    pub rows: u32,
    /// Elements of a row.
    pub d: u32,
    /// Added to the mean square.
    pub eps: f32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[R, D]"),
    Operand::read("gate", &[DType::F32], "[R, D]"),
    Operand::read("w", &[DType::F32], "[D]"),
    Operand::write("y", &[DType::F32], "[R, D]"),
];

impl Kernel for GatedRmsNorm {
    fn name(&self) -> &'static str {
        "gated_rms_norm"
    }

    fn formula(&self) -> &'static str {
        "y = x / sqrt(mean(x²) + eps) · w · silu(gate)"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let (rows, d) = (u64::from(p.rows), u64::from(p.d));
        let [x, gate, w, y] = call.operands else {
            return Err(crate::Error::invalid("gated_rms_norm: expected 4 operands"));
        };
        ensure(self, w.elements() as u64 == d, || format!("weight {:?} for rows of {d}", w.shape))?;
        for view in [x, gate, y] {
            ensure(self, view.elements() as u64 == rows * d, || format!("{:?} as {rows} rows of {d}", view.shape))?;
        }
        Plan::new("row", include_str!("gated_rms_norm.wgsl"), rows, caps)
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

/// Normalises the rows of `x` (rows of `D`, the elements of `w` f32 `[D]`) and gates them with `gate`, which has as many
/// elements; the result has `x`'s shape.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn gated_rms_norm(rec: &mut Recorder, x: &Array, gate: &Array, w: &Array, eps: f32) -> Result<Array> {
    let d = w.elements().max(1);
    let y = rec.temp(DType::F32, x.shape())?;
    let params = Params { rows: (x.elements() / d) as u32, d: d as u32, eps };
    rec.call(&GatedRmsNorm, &[x, gate, w, &y], &params)?;
    Ok(y)
}
