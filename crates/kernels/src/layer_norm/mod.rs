//! Layer normalisation over the last dimension.
//!
//! `y[r, :] = (x[r, :] − mean) / sqrt(mean((x − mean)²) + eps) · w + b`, without `b` where a model has none. Rows are whatever
//! is before the last dimension. A constant row gives `b`. Statistics in f32, in two passes, so that a large common offset
//! costs no precision. Source: Ba et al. 2016; `torch.nn.functional.layer_norm`.

mod cases;
pub(crate) mod cpu;
pub(crate) mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// The rest of a row's work once its sum is known, for shaders that say what an `element` is.
pub(crate) const ROW_NORM: &str = include_str!("row_norm.wgsl");

/// See the module's head.
#[derive(Debug)]
pub struct LayerNorm;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Rows.
    pub rows: u32,
    /// Elements of a row.
    pub d: u32,
    /// Added to the variance.
    pub eps: f32,
    /// 1: `b` is added; 0: it is not read.
    pub bias: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[R, D]"),
    Operand::read("w", &[DType::F32], "[D]"),
    Operand::read("b", &[DType::F32], "[D]"),
    Operand::write("y", &[DType::F32], "[R, D]"),
];

impl Kernel for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn formula(&self) -> &'static str {
        "y = (x − mean(x)) / sqrt(var(x) + eps) · w + b"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let (rows, d) = (p.rows as usize, p.d as usize);
        let [x, w, b, y] = call.operands else {
            return Err(crate::Error::invalid("layer_norm: expected 4 operands"));
        };
        ensure(self, w.elements() == d && b.elements() == d, || {
            format!("weight {:?} and bias {:?} for rows of {d}", w.shape, b.shape)
        })?;
        let fits = rows.checked_mul(d).is_some_and(|n| x.elements() == n && y.elements() == n);
        ensure(self, fits, || format!("{:?} into {:?} as {rows} rows of {d}", x.shape, y.shape))?;
        let mut plan = Plan::new("row", include_str!("layer_norm.wgsl"), rows as u64, caps)?;
        plan.wgsl.push(ROW_NORM.into());
        Ok(plan)
    }

    fn cpu(&self) -> Option<fn(&mut CpuCall<'_, '_>)> {
        Some(cpu::run)
    }

    fn reference(&self, call: &Call<'_>, values: &mut [Vec<f64>]) {
        let [x, w, b, y] = values else { return };
        reference::rows(&call.params(), x, w, b, y);
    }

    fn cases(&self) -> Vec<Case> {
        cases::cases()
    }
}

/// Normalises the rows of `x` (last dimension `D`) with weight `w` f32 `[D]` and, if there is one, bias `b` f32 `[D]`; the
/// result has `x`'s shape.
///
/// # Errors
/// `InvalidInput` if weight or bias do not fit, or as [`Recorder::call`].
pub fn layer_norm(rec: &mut Recorder, x: &Array, w: &Array, b: Option<&Array>, eps: f32) -> Result<Array> {
    let d = w.elements().max(1);
    let y = rec.temp(DType::F32, x.shape())?;
    let params = Params { rows: (x.elements() / d) as u32, d: d as u32, eps, bias: u32::from(b.is_some()) };
    rec.call(&LayerNorm, &[x, w, b.unwrap_or(w), &y], &params)?;
    Ok(y)
}
