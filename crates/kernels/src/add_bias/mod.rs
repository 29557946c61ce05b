//! The bias of a linear layer.
//!
//! `y[t, n] += b[n]`, in place, after the product that made `y`. A kernel of its own, so that every product (each weight
//! type, each variant, each shard) has one form, with and without a bias. Source: `torch.nn.functional.linear`.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct AddBias;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Rows of `y`.
    pub t: u32,
    /// Elements of a row.
    pub n: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read_write("y", &[DType::F32], "[T, N]"),
    Operand::read("b", &[DType::F32], "[N]"),
];

impl Kernel for AddBias {
    fn name(&self) -> &'static str {
        "add_bias"
    }
    fn formula(&self) -> &'static str {
        "y[t, n] += b[n]"
    }
    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }
    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let (y, b) = (&call.operands[0], &call.operands[1]);
        let (t, n, elements) = (u64::from(p.t), u64::from(p.n), y.elements() as u64);
        ensure(self, b.elements() as u64 == n, || {
            format!("bias {:?} for rows of {n}", b.shape)
        })?;
        ensure(self, elements == t * n, || {
            format!("y {:?} as [{t}, {n}]", y.shape)
        })?;
        Plan::new(
            "flat",
            include_str!("add_bias.wgsl"),
            elements.div_ceil(64),
            caps,
        )
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

/// Adds `b` f32 `[N]` to each row of `y` f32 `[T, N]` in place.
///
/// # Errors
/// `InvalidInput` if the sizes do not fit, or as [`Recorder::call`].
pub fn add_bias(rec: &mut Recorder, y: &Array, b: &Array) -> Result<()> {
    let n = b.elements().max(1);
    rec.call(
        &AddBias,
        &[y, b],
        &Params {
            t: (y.elements() / n) as u32,
            n: n as u32,
        },
    )
}
