//! Numbers kept within bounds.
//!
//! `y = min(max(x, lo), hi)`, element by element; NaN stays NaN. Either bound may be infinite.
//! Source: `torch.clamp`; Gemma Team 2026 (`Gemma4ClippableLinear`).

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct Clamp;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements.
    pub n: u32,
    /// Lower bound.
    pub lo: f32,
    /// Upper bound, not below the lower one.
    pub hi: f32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[n]"),
    Operand::write("y", &[DType::F32], "[n]"),
];

impl Kernel for Clamp {
    fn name(&self) -> &'static str {
        "clamp"
    }

    fn formula(&self) -> &'static str {
        "y = min(max(x, lo), hi)"
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
        ensure(self, p.lo <= p.hi, || format!("bounds {} and {}", p.lo, p.hi))?;
        let groups = u64::from(p.n).div_ceil(64);
        Plan::new("flat", include_str!("clamp.wgsl"), groups, caps)
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

/// `x` f32 within `lo ..= hi`, in the shape of `x`.
///
/// # Errors
/// `InvalidInput` unless `lo <= hi`, or as [`Recorder::call`].
pub fn clamp(rec: &mut Recorder, x: &Array, (lo, hi): (f32, f32)) -> Result<Array> {
    let y = rec.temp(DType::F32, x.shape())?;
    let n = x.elements() as u32;
    rec.call(&Clamp, &[x, &y], &Params { n, lo, hi })?;
    Ok(y)
}
