//! Gated activation of a feed-forward block.
//!
//! `y = act(gate) · up`, element by element, with any [`Activation`].
//! Source: Shazeer 2020 (GLU variants); `gelu_pytorch_tanh` in transformers.

mod cases;
mod cpu;
mod reference;

pub use crate::act::Activation;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct GatedAct;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements.
    pub n: u32,
    /// An [`Activation`].
    pub act: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("gate", &[DType::F32], "[T, F]"),
    Operand::read("up", &[DType::F32], "[T, F]"),
    Operand::write("y", &[DType::F32], "[T, F]"),
];

impl Kernel for GatedAct {
    fn name(&self) -> &'static str {
        "gated_act"
    }

    fn formula(&self) -> &'static str {
        "y = act(gate) · up"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        ensure(self, (p.act as usize) < Activation::ALL.len(), || format!("activation {}", p.act))?;
        for view in call.operands {
            ensure(self, view.elements() == p.n as usize, || {
                format!("{:?} for {} elements", view.shape, p.n)
            })?;
        }
        let mut plan = Plan::new("flat", include_str!("gated_act.wgsl"), u64::from(p.n).div_ceil(64), caps)?;
        plan.wgsl.push(crate::act::WGSL.into());
        Ok(plan)
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

/// `act(gate) · up`, with `gate`'s shape.
///
/// # Errors
/// `InvalidInput` if the element counts differ, or as [`Recorder::call`].
pub fn gated_act(rec: &mut Recorder, gate: &Array, up: &Array, act: Activation) -> Result<Array> {
    let y = rec.temp(DType::F32, gate.shape())?;
    let params = Params { n: gate.elements() as u32, act: act as u32 };
    rec.call(&GatedAct, &[gate, up, &y], &params)?;
    Ok(y)
}
