//! 8-bit pictures into f32 tensors, without a copy in between.

use crate::{Error, Image, Normalize, PatchLayout, PatchOrder, Result, threads};
use firelight_tensor::{AlignedBuf, DType, Tensor};

/// A tensor of zeros that `fill` writes.
pub(crate) fn whole(shape: &[usize], fill: impl FnOnce(&mut [f32])) -> Result<Tensor> {
    let bytes = shape
        .iter()
        .try_fold(4usize, |n, &d| n.checked_mul(d))
        .ok_or_else(|| Error::invalid(format!("a tensor {shape:?} does not fit in memory")))?;
    let mut buffer = AlignedBuf::zeroed(bytes)?;
    fill(bytemuck::cast_slice_mut(&mut buffer));
    Ok(Tensor::new(DType::F32, shape, buffer)?)
}

/// A tensor of zeros that `fill(i, part)` writes, one part for each index of the first dimension.
pub(crate) fn buffer(shape: &[usize], mut fill: impl FnMut(usize, &mut [f32])) -> Result<Tensor> {
    whole(shape, |values| {
        let part = values.len() / shape.first().copied().unwrap_or(1).max(1);
        let parts = values.chunks_exact_mut(part.max(1));
        parts.enumerate().for_each(|(i, part)| fill(i, part));
    })
}

/// Frames of one size, normalised and cut into patches, written to `out` in the layout's order. Frames that a patch lacks
/// repeat the last one; `out` has as many values as the patches.
pub(crate) fn patches(
    frames: &[&Image],
    normalize: &Normalize,
    layout: PatchLayout,
    out: &mut [f32],
) {
    let Some(first) = frames.first() else {
        return;
    };
    let PatchLayout {
        patch,
        temporal,
        merge,
        order,
    } = layout;
    let (rows, cols) = (first.height() / patch, first.width() / patch);
    let blocks = (rows / merge) * (cols / merge);
    let per_group = blocks * merge * merge;
    let values = 3 * temporal * patch * patch;
    let bytes = out.len();
    threads::bands(out, values, bytes, |from, out| {
        for (n, out) in (from..).zip(out.chunks_exact_mut(values)) {
            // The n-th patch: group of frames, block row and column, row and column inside the block.
            let (group, n) = (n / per_group, n % per_group);
            let (block, inside) = (n / (merge * merge), n % (merge * merge));
            let (by, bx) = (block / (cols / merge), block % (cols / merge));
            let (y0, x0) = (
                (by * merge + inside / merge) * patch,
                (bx * merge + inside % merge) * patch,
            );
            let line = |t: usize, y: usize| {
                let frame = frames[(group * temporal + t).min(frames.len() - 1)];
                &frame.row(y0 + y)[x0 * 3..(x0 + patch) * 3]
            };
            match order {
                PatchOrder::ChannelFirst => {
                    for (c, out) in out.chunks_exact_mut(temporal * patch * patch).enumerate() {
                        let mut rest = out;
                        for t in 0..temporal {
                            let (own, later) = rest.split_at_mut(patch * patch);
                            for (y, out) in own.chunks_exact_mut(patch).enumerate() {
                                normalize.channel(c, line(t, y), out);
                            }
                            // A still picture repeats its frame.
                            if frames.len() == 1 {
                                later
                                    .chunks_exact_mut(patch * patch)
                                    .for_each(|l| l.copy_from_slice(own));
                                break;
                            }
                            rest = later;
                        }
                    }
                }
                PatchOrder::ChannelLast => {
                    let lines = (0..temporal).flat_map(|t| (0..patch).map(move |y| (t, y)));
                    for ((t, y), out) in lines.zip(out.chunks_exact_mut(patch * 3)) {
                        normalize.interleaved(line(t, y), out);
                    }
                }
            }
        }
    });
}
