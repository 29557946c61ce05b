//! Root-mean-square normalisation over the last dimension.
//!
//! `y[r, :] = x[r, :] / sqrt(mean(x[r, :]²) + eps) · (w + offset)`. `offset` is 0 for Llama and Qwen, 1 for Gemma 3. Rows are
//! whatever is before the last dimension, so per-head norms are the same kernel on `[T·NH, HD]`. A row of zeroes gives
//! zeroes. Statistics in f32. Source: Zhang & Sennrich 2019; `LlamaRMSNorm`, `Gemma3RMSNorm` in transformers.

mod cases;
pub(crate) mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct RmsNorm;

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
    /// Added to the weight.
    pub offset: f32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[R, D]"),
    Operand::read("w", &[DType::F32], "[D]"),
    Operand::write("y", &[DType::F32], "[R, D]"),
];

impl Kernel for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn formula(&self) -> &'static str {
        "y = x / sqrt(mean(x²) + eps) · (w + offset)"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let (rows, d) = (p.rows as usize, p.d as usize);
        let [x, w, y] = [&call.operands[0], &call.operands[1], &call.operands[2]];
        ensure(self, w.elements() == d, || format!("weight {:?} for rows of {d}", w.shape))?;
        ensure(self, x.elements() == rows * d && y.elements() == rows * d, || {
            format!("{:?} into {:?} as {rows} rows of {d}", x.shape, y.shape)
        })?;
        Plan::new("row", include_str!("rms_norm.wgsl"), rows as u64, caps)
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

/// Normalises the rows of `x` (last dimension `D`) with weight `w` f32 `[D]`; the result has `x`'s shape.
///
/// # Errors
/// `InvalidInput` if the weight does not fit, or as [`Recorder::call`].
pub fn rms_norm(rec: &mut Recorder, x: &Array, w: &Array, eps: f32, offset: f32) -> Result<Array> {
    let d = w.elements().max(1);
    let y = rec.temp(DType::F32, x.shape())?;
    let params = Params { rows: (x.elements() / d) as u32, d: d as u32, eps, offset };
    rec.call(&RmsNorm, &[x, w, &y], &params)?;
    Ok(y)
}
