//! The patches of a grid that a convolution's kernel lies on, one row each, so that the convolution is a product.
//!
//! `y[b, oy, ox, (c·KH + ky)·KW + kx] = x[b, oy·SH + ky − PH, ox·SW + kx − PW, c]`, 0 outside the grid, and 0 in the columns from
//! `C·KH·KW` on. With channels last in `x` and first in a row of `y`, the rows of a weight `[N, C, KH, KW]` are what they are
//! multiplied by. A sequence is a grid of width 1: `KW = SW = 1`, `PW = 0`.
//! Source: `torch.nn.functional.unfold`.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct Unfold;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Grids.
    pub b: u32,
    /// Height and width of a grid.
    pub size: [u32; 2],
    /// Channels.
    pub c: u32,
    /// Rows and columns of patches.
    pub out: [u32; 2],
    /// Height and width of a patch.
    pub kernel: [u32; 2],
    /// Steps from a patch to the next, down and right.
    pub stride: [u32; 2],
    /// Zeros before the grid, above and on the left.
    pub pad: [u32; 2],
    /// Columns of `y`.
    pub ldy: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[B, H, W, C]"),
    Operand::write("y", &[DType::F32], "[B·OH·OW, LDY]"),
];

/// Bound of each size: products of three stay inside u64, indices inside u32 by the arrays' sizes.
const MAX: u32 = 1 << 24;

impl Kernel for Unfold {
    fn name(&self) -> &'static str {
        "unfold"
    }

    fn formula(&self) -> &'static str {
        "y[b, oy, ox, (c·KH + ky)·KW + kx] = x[b, oy·SH + ky − PH, ox·SW + kx − PW, c], 0 outside"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let (x, y) = (&call.operands[0], &call.operands[1]);
        let pairs = [p.size, p.out, p.kernel, p.stride, p.pad];
        let words = [p.b, p.c, p.ldy].into_iter().chain(pairs.into_iter().flatten());
        ensure(self, words.into_iter().all(|n| n < MAX) && p.stride.iter().all(|&s| s > 0), || {
            format!("{p:?}; expected sizes below {MAX} and steps of 1 or more")
        })?;
        let product = |list: &[u32]| list.iter().try_fold(1u64, |n, &v| n.checked_mul(u64::from(v)));
        let [h, w] = p.size;
        let [oh, ow] = p.out;
        ensure(self, product(&[p.b, h, w, p.c]) == Some(x.elements() as u64), || {
            format!("x {:?} as [{}, {h}, {w}, {}]", x.shape, p.b, p.c)
        })?;
        ensure(self, product(&[p.b, oh, ow, p.ldy]) == Some(y.elements() as u64), || {
            format!("y {:?} as [{}·{oh}·{ow}, {}]", y.shape, p.b, p.ldy)
        })?;
        let [kh, kw] = p.kernel;
        let columns = product(&[p.c, kh, kw]);
        ensure(self, columns.is_some_and(|n| (1..=u64::from(p.ldy)).contains(&n)), || {
            format!("patches of {kh}×{kw} of {} channels in rows of {}", p.c, p.ldy)
        })?;
        Plan::new("flat", include_str!("unfold.wgsl"), (y.elements() as u64).div_ceil(64), caps)
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

/// Where the patches of [`unfold`] lie: down and right of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patches {
    /// Height and width of a patch.
    pub kernel: [usize; 2],
    /// Steps from a patch to the next.
    pub stride: [usize; 2],
    /// Zeros around the grid.
    pub pad: [usize; 2],
}

impl Patches {
    /// Patches along a sequence.
    pub fn line(kernel: usize, stride: usize, pad: usize) -> Self {
        Patches { kernel: [kernel, 1], stride: [stride, 1], pad: [pad, 0] }
    }

    /// How many there are along an axis (0: down, 1: right) of `n` cells.
    pub fn count(&self, axis: usize, n: usize) -> usize {
        let (kernel, stride) = (self.kernel[axis], self.stride[axis].max(1));
        (n + 2 * self.pad[axis]).checked_sub(kernel).map_or(0, |rest| rest / stride + 1)
    }
}

/// The patches of `x` f32 `[B, H, W, C]`, in rows filled up with zeros to a multiple of 8: f32 `[B·OH·OW, LDY]`.
///
/// # Errors
/// `InvalidInput` if `x` is no such grid or smaller than a patch, or as [`Recorder::call`].
pub fn unfold(rec: &mut Recorder, x: &Array, patches: Patches) -> Result<Array> {
    let &[b, h, w, c] = x.shape() else {
        return Err(crate::Error::invalid(format!("unfold: {x:?}; expected [B, H, W, C]")));
    };
    let (oh, ow) = (patches.count(0, h), patches.count(1, w));
    let [kh, kw] = patches.kernel;
    if oh == 0 || ow == 0 {
        return Err(crate::Error::invalid(format!("unfold: {h}×{w} is smaller than a patch of {kh}×{kw}")));
    }
    let ldy = (c * kh * kw).next_multiple_of(8);
    let y = rec.temp(DType::F32, &[b * oh * ow, ldy])?;
    let pair = |[a, b]: [usize; 2]| [a as u32, b as u32];
    let params = Params {
        b: b as u32,
        size: pair([h, w]),
        c: c as u32,
        out: pair([oh, ow]),
        kernel: pair([kh, kw]),
        stride: pair(patches.stride),
        pad: pair(patches.pad),
        ldy: ldy as u32,
    };
    rec.call(&Unfold, &[x, &y], &params)?;
    Ok(y)
}
