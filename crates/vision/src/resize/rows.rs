//! One row of each pass, for any processor.

use super::weights::Axis;

/// One row along its length. `from` starts with the row (what follows it has no weight), `out` has as many pixels as the
/// axis has outputs.
pub(super) fn across(from: &[u8], axis: &Axis, out: &mut [u8]) {
    for (x, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let (start, weights) = axis.get(x);
        let mut sum = [1i32 << (axis.shift - 1); 3];
        for (p, &w) in from[start * 3..].as_chunks::<3>().0.iter().zip(weights) {
            for (sum, &p) in sum.iter_mut().zip(p) {
                *sum += w * i32::from(p);
            }
        }
        *out = sum.map(|s| (s >> axis.shift).clamp(0, 255) as u8);
    }
}

/// Samples summed at a time: what the sums take stays in the first cache, or in registers.
const BLOCK: usize = 64;

/// Output row `y`: a weighted sum of the rows of `from`, which are `out.len()` bytes each, the first being the axis's
/// first source row for `y`. The first `done` bytes are there already.
pub(super) fn down_from(done: usize, from: &[u8], axis: &Axis, y: usize, out: &mut [u8]) {
    let (_, weights) = axis.get(y);
    let stride = out.len();
    for (block, out) in out[done..].chunks_mut(BLOCK).enumerate() {
        let at = done + block * BLOCK;
        let mut sums = [1i32 << (axis.shift - 1); BLOCK];
        for (row, &w) in from.chunks_exact(stride).zip(weights) {
            for (sum, &p) in sums.iter_mut().zip(&row[at..at + out.len()]) {
                *sum += w * i32::from(p);
            }
        }
        for (out, &sum) in out.iter_mut().zip(&sums) {
            *out = (sum >> axis.shift).clamp(0, 255) as u8;
        }
    }
}
