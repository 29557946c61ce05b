//! Residual add fused with the layer norm that follows it.
//!
//! `h += x; y = (h − mean) / sqrt(var + eps) · w + b`, rows of the last dimension, `h` in place. A pre-norm block goes on with `h`
//! as its residual; in a post-norm block (BERT) `y` is the new residual and `h` is dropped. Source: the transformer block;
//! see [`crate::layer_norm`] for the norm.

mod cases;
mod cpu;

pub use crate::layer_norm::Params;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::layer_norm::reference;
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct AddLayerNorm;

const OPERANDS: &[Operand] = &[
    Operand::read_write("h", &[DType::F32], "[R, D]"),
    Operand::read("x", &[DType::F32], "[R, D]"),
    Operand::read("w", &[DType::F32], "[D]"),
    Operand::read("b", &[DType::F32], "[D]"),
    Operand::write("y", &[DType::F32], "[R, D]"),
];

impl Kernel for AddLayerNorm {
    fn name(&self) -> &'static str {
        "add_layer_norm"
    }

    fn formula(&self) -> &'static str {
        "h += x; y = (h − mean(h)) / sqrt(var(h) + eps) · w + b"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let (rows, d) = (p.rows as usize, p.d as usize);
        let [h, x, w, b, y] = call.operands else {
            return Err(crate::Error::invalid("add_layer_norm: expected 5 operands"));
        };
        ensure(self, w.elements() == d && b.elements() == d, || {
            format!("weight {:?} and bias {:?} for rows of {d}", w.shape, b.shape)
        })?;
        for view in [h, x, y] {
            ensure(self, rows.checked_mul(d) == Some(view.elements()), || {
                format!("{:?} as {rows} rows of {d}", view.shape)
            })?;
        }
        let mut plan = Plan::new("row", include_str!("add_layer_norm.wgsl"), rows as u64, caps)?;
        plan.wgsl.push(crate::layer_norm::ROW_NORM.into());
        Ok(plan)
    }

    fn cpu(&self) -> Option<fn(&mut CpuCall<'_, '_>)> {
        Some(cpu::run)
    }

    fn reference(&self, call: &Call<'_>, values: &mut [Vec<f64>]) {
        let [h, x, w, b, y] = values else { return };
        for (h, x) in h.iter_mut().zip(x.iter()) {
            *h += x;
        }
        reference::rows(&call.params(), h, w, b, y);
    }

    fn cases(&self) -> Vec<Case> {
        cases::cases()
    }
}

/// Adds `x` to `h` in place and returns the layer norm of the sum.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn add_layer_norm(
    rec: &mut Recorder,
    h: &Array,
    x: &Array,
    w: &Array,
    b: Option<&Array>,
    eps: f32,
) -> Result<Array> {
    let d = w.elements().max(1);
    let y = rec.temp(DType::F32, h.shape())?;
    let params = Params { rows: (h.elements() / d) as u32, d: d as u32, eps, bias: u32::from(b.is_some()) };
    rec.call(&AddLayerNorm, &[h, x, w, b.unwrap_or(w), &y], &params)?;
    Ok(y)
}
