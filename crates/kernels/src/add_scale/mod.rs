//! A residual sum, scaled.
//!
//! `h ← (h + x) · s`, element by element, in place. For residual streams that no norm follows at once, and for layers with a scale of
//! their own. Source: `Gemma4TextDecoderLayer` (`layer_scalar`) in transformers.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct AddScale;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements.
    pub n: u32,
    /// Factor of the sum.
    pub scale: f32,
}

const OPERANDS: &[Operand] = &[
    Operand::read_write("h", &[DType::F32], "[n]"),
    Operand::read("x", &[DType::F32], "[n]"),
];

impl Kernel for AddScale {
    fn name(&self) -> &'static str {
        "add_scale"
    }

    fn formula(&self) -> &'static str {
        "h ← (h + x) · s"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        for view in call.operands {
            ensure(self, view.elements() == p.n as usize, || {
                format!("{:?} for {} elements", view.shape, p.n)
            })?;
        }
        let groups = u64::from(p.n).div_ceil(64);
        Plan::new("flat", include_str!("add_scale.wgsl"), groups, caps)
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

/// Adds `x` to `h` in place and multiplies by `scale`.
///
/// # Errors
/// `InvalidInput` if the element counts differ, or as [`Recorder::call`].
pub fn add_scale(rec: &mut Recorder, h: &Array, x: &Array, scale: f32) -> Result<()> {
    let n = h.elements() as u32;
    rec.call(&AddScale, &[h, x], &Params { n, scale })
}
