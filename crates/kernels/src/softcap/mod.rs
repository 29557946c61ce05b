//! A soft cap of logits.
//!
//! `x ← c · tanh(x / c)`, element by element, in place. Source: Gemma Team 2024 (`final_logit_softcapping`); Bello et al. 2016.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct Softcap;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements.
    pub n: u32,
    /// The cap, above 0.
    pub cap: f32,
}

const OPERANDS: &[Operand] = &[Operand::read_write("x", &[DType::F32], "[n]")];

impl Kernel for Softcap {
    fn name(&self) -> &'static str {
        "softcap"
    }

    fn formula(&self) -> &'static str {
        "x ← c · tanh(x / c)"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let x = &call.operands[0];
        ensure(self, x.elements() == p.n as usize, || {
            format!("{:?} for {} elements", x.shape, p.n)
        })?;
        ensure(self, p.cap > 0.0 && p.cap.is_finite(), || format!("a cap of {}", p.cap))?;
        let groups = u64::from(p.n).div_ceil(64);
        Plan::new("flat", include_str!("softcap.wgsl"), groups, caps)
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

/// Caps the elements of `x` f32 in place.
///
/// # Errors
/// `InvalidInput` unless `cap` is a positive number, or as [`Recorder::call`].
pub fn softcap(rec: &mut Recorder, x: &Array, cap: f32) -> Result<()> {
    let n = x.elements() as u32;
    rec.call(&Softcap, &[x], &Params { n, cap })
}
