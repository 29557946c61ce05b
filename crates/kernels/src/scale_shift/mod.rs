//! Each column with a factor and an offset of its own.
//!
//! `y[t, n] ← y[t, n] · w[n] + b[n]`, in place. Source: the affine part of batch normalisation (Ioffe & Szegedy 2015); standardised
//! features of vision towers (`Gemma4VisionModel`).

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct ScaleShift;

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
    Operand::read("w", &[DType::F32], "[N]"),
    Operand::read("b", &[DType::F32], "[N]"),
];

impl Kernel for ScaleShift {
    fn name(&self) -> &'static str {
        "scale_shift"
    }

    fn formula(&self) -> &'static str {
        "y[t, n] ← y[t, n] · w[n] + b[n]"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [y, w, b] = call.operands else {
            return Err(crate::Error::invalid("scale_shift: expected 3 operands"));
        };
        let (t, n) = (u64::from(p.t), u64::from(p.n));
        ensure(self, w.elements() as u64 == n && b.elements() as u64 == n, || {
            format!("w {:?} and b {:?} for rows of {n}", w.shape, b.shape)
        })?;
        ensure(self, y.elements() as u64 == t * n, || format!("y {:?} as [{t}, {n}]", y.shape))?;
        Plan::new("flat", include_str!("scale_shift.wgsl"), (t * n).div_ceil(64), caps)
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

/// Multiplies each row of `y` f32 `[T, N]` by `w` f32 `[N]` and adds `b` f32 `[N]`, in place.
///
/// # Errors
/// `InvalidInput` if the sizes do not fit, or as [`Recorder::call`].
pub fn scale_shift(rec: &mut Recorder, y: &Array, w: &Array, b: &Array) -> Result<()> {
    let n = w.elements().max(1);
    let params = Params { t: (y.elements() / n) as u32, n: n as u32 };
    rec.call(&ScaleShift, &[y, w, b], &params)
}
