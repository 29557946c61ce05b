//! Pictures as rows of patches, for vision towers whose first layer is a matrix product.

use crate::{Error, Result};
use firelight_tensor::Tensor;

/// How patches are cut and ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchLayout {
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Frames per patch; a picture that lacks frames repeats its last one. 1 for pictures.
    pub temporal: usize,
    /// Patches are listed in square blocks of `merge × merge`, row-major over and inside blocks. 1 is plain row-major.
    pub merge: usize,
    /// The order of a patch's values.
    pub order: PatchOrder,
}

/// The order of a patch's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatchOrder {
    /// Channel, frame, row, column (Qwen2-VL and most).
    ChannelFirst,
    /// Frame, row, column, channel (Gemma 4).
    ChannelLast,
}

/// Rows of patches and the grid they come from.
#[derive(Clone, Debug)]
pub struct Patches {
    /// `[N, C·temporal·patch·patch]` f32 with N = the product of `grid`.
    pub values: Tensor,
    /// Patches along time, height and width.
    pub grid: [usize; 3],
}

/// Cuts frames `[F, C, H, W]` f32 (or one picture `[C, H, W]`) into patches.
///
/// # Errors
/// `InvalidInput` if the tensor has another rank or type, is empty, or its sides are no multiples of `patch × merge`.
pub fn patchify(pixels: &Tensor, layout: PatchLayout) -> Result<Patches> {
    let (frames, channels, height, width) = match *pixels.shape() {
        [f, c, h, w] => (f, c, h, w),
        [c, h, w] => (1, c, h, w),
        ref other => {
            return Err(Error::invalid(format!(
                "patches are cut from [F, C, H, W] or [C, H, W], got {other:?}"
            )));
        }
    };
    let source = pixels.as_f32().ok_or_else(|| {
        Error::invalid(format!("patches are cut from f32, got {}", pixels.dtype()))
    })?;
    let PatchLayout {
        patch,
        temporal,
        merge,
        order,
    } = layout;
    let block = patch
        .checked_mul(merge)
        .filter(|&b| b > 0 && temporal > 0)
        .ok_or_else(|| {
            Error::invalid(format!(
                "patch, temporal and merge are at least 1, got {layout:?}"
            ))
        })?;
    if source.is_empty() || height % block != 0 || width % block != 0 {
        return Err(Error::invalid(format!(
            "the sides are multiples of patch × merge = {block} and not zero, got {height}×{width}; resize first"
        )));
    }
    let grid = [frames.div_ceil(temporal), height / patch, width / patch];
    let columns = channels
        .checked_mul(temporal)
        .and_then(|n| n.checked_mul(patch * patch))
        .and_then(|n| n.checked_mul(grid.iter().product::<usize>()).map(|_| n))
        .ok_or_else(|| Error::invalid(format!("{layout:?} makes too many values")))?;
    let mut values = Vec::with_capacity(columns * grid.iter().product::<usize>());
    // The slice of one patch row: source frame, channel and line.
    let line = |t: usize, c: usize, y: usize, x: usize| {
        let at = ((t.min(frames - 1) * channels + c) * height + y) * width + x;
        &source[at..at + patch]
    };
    let mut push = |t0: usize, y0: usize, x0: usize| match order {
        PatchOrder::ChannelFirst => {
            for c in 0..channels {
                for t in t0..t0 + temporal {
                    (0..patch).for_each(|y| values.extend_from_slice(line(t, c, y0 + y, x0)));
                }
            }
        }
        PatchOrder::ChannelLast => {
            for t in t0..t0 + temporal {
                for y in y0..y0 + patch {
                    for x in 0..patch {
                        values.extend((0..channels).map(|c| line(t, c, y, x0)[x]));
                    }
                }
            }
        }
    };
    for t in 0..grid[0] {
        for by in (0..grid[1]).step_by(merge) {
            for bx in (0..grid[2]).step_by(merge) {
                for y in by..by + merge {
                    for x in bx..bx + merge {
                        push(t * temporal, y * patch, x * patch);
                    }
                }
            }
        }
    }
    Ok(Patches {
        values: Tensor::from_f32(&values, &[grid.iter().product(), columns])?,
        grid,
    })
}
