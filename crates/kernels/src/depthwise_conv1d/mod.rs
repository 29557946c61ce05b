//! A causal convolution of each channel with a kernel of its own, over a whole sequence.
//!
//! `y[t, c] = Σᵢ w[c, i] · x[t + i − (K − 1), c]` for `i` in `0…K−1`, 0 before the beginning. Keeps no state; for steps of a cached
//! sequence see [`crate::causal_conv1d`]. Source: `torch.nn.functional.conv1d` with `groups = C`, padded on the left.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct DepthwiseConv1d;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Moments.
    pub t: u32,
    /// Channels.
    pub c: u32,
    /// Taps.
    pub k: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[T, C]"),
    Operand::read("w", &[DType::F32], "[C, K]"),
    Operand::write("y", &[DType::F32], "[T, C]"),
];

impl Kernel for DepthwiseConv1d {
    fn name(&self) -> &'static str {
        "depthwise_conv1d"
    }

    fn formula(&self) -> &'static str {
        "y[t, c] = Σᵢ w[c, i] · x[t + i − (K − 1), c]"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [x, w, y] = call.operands else {
            return Err(crate::Error::invalid("depthwise_conv1d: expected 3 operands"));
        };
        let (t, c, k) = (u64::from(p.t), u64::from(p.c), u64::from(p.k));
        ensure(self, k > 0 && c.checked_mul(k) == Some(w.elements() as u64), || format!("w {:?} as [{c}, {k}]", w.shape))?;
        ensure(self, t * c == x.elements() as u64 && t * c == y.elements() as u64, || {
            format!("x {:?}, y {:?} as [{t}, {c}]", x.shape, y.shape)
        })?;
        Plan::new("flat", include_str!("depthwise_conv1d.wgsl"), (t * c).div_ceil(64), caps)
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

/// Convolves `x` f32 `[T, C]` with `w` f32 `[C, K]`; f32 `[T, C]`.
///
/// # Errors
/// `InvalidInput` if the sizes do not fit, or as [`Recorder::call`].
pub fn depthwise_conv1d(rec: &mut Recorder, x: &Array, w: &Array) -> Result<Array> {
    let (&[t, c], &[_, k]) = (x.shape(), w.shape()) else {
        return Err(crate::Error::invalid(format!("depthwise_conv1d: {x:?} with {w:?}; expected [T, C] and [C, K]")));
    };
    let y = rec.temp(DType::F32, &[t, c])?;
    let params = Params { t: t as u32, c: c as u32, k: k as u32 };
    rec.call(&DepthwiseConv1d, &[x, w, &y], &params)?;
    Ok(y)
}
