//! Whole pictures: both passes at once, in bands of rows.
//!
//! The rows that an output row sums are made when they are needed and dropped when no later row needs them, so that they
//! are still in the cache and the picture between the passes never exists as a whole. Bands of output rows are independent
//! and go to different threads; the few rows at their seams are made twice.

use super::rows;
use super::weights::Axis;
use crate::threads;
use crate::{Image, Result};

/// Output rows between two clearings of the rows they no longer need.
const STEP: usize = 16;

/// The pass along the rows alone.
pub(super) fn horizontal(image: &Image, axis: &Axis) -> Result<Image> {
    let width = axis.taps.len();
    let mut rgb = vec![0; width * image.height() * 3];
    threads::bands(&mut rgb, width * 3, image.rgb().len(), |first, out| {
        Across::new(image, axis).rows(first, out);
    });
    Image::new(width, image.height(), rgb)
}

/// The pass along the columns alone.
pub(super) fn vertical(image: &Image, axis: &Axis) -> Result<Image> {
    let (stride, height) = (image.width() * 3, axis.taps.len());
    let mut rgb = vec![0; stride * height];
    threads::bands(&mut rgb, stride, image.rgb().len(), |first, out| {
        for (y, out) in (first..).zip(out.chunks_exact_mut(stride)) {
            let (start, _) = axis.get(y);
            down(&image.rgb()[start * stride..], axis, y, out);
        }
    });
    Image::new(image.width(), height, rgb)
}

/// Along the rows, then along the columns.
pub(super) fn both(image: &Image, across: &Axis, down_axis: &Axis) -> Result<Image> {
    let (stride, height) = (across.taps.len() * 3, down_axis.taps.len());
    let mut rgb = vec![0; stride * height];
    threads::bands(&mut rgb, stride, image.rgb().len(), |first, out| {
        let across = Across::new(image, across);
        // Rows between the passes, from source row `base` on.
        let (mut between, mut base) = (Vec::new(), down_axis.get(first).0);
        for (y, out) in (first..).step_by(STEP).zip(out.chunks_mut(STEP * stride)) {
            let rows = out.len() / stride;
            let (start, _) = down_axis.get(y);
            let (last, weights) = down_axis.get(y + rows - 1);
            between.drain(..((start - base) * stride).min(between.len()));
            base = start;
            let have = between.len() / stride;
            between.resize((last + weights.len() - start) * stride, 0);
            across.rows(start + have, &mut between[have * stride..]);
            for (y, out) in (y..).zip(out.chunks_exact_mut(stride)) {
                let (start, _) = down_axis.get(y);
                down(&between[(start - base) * stride..], down_axis, y, out);
            }
        }
    });
    Image::new(across.taps.len(), height, rgb)
}

/// One output row of the pass along the columns.
fn down(from: &[u8], axis: &Axis, y: usize, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if let (Some(avx2), false) = (fearless_simd::Level::new().as_avx2(), axis.quads.is_empty()) {
        let done = super::x86::down(avx2, from, axis, y, out);
        if done < out.len() {
            rows::down_from(done, from, axis, y, out);
        }
        return;
    }
    rows::down_from(0, from, axis, y, out);
}

/// The pass along the rows, some rows at a time.
struct Across<'a> {
    image: &'a Image,
    axis: &'a Axis,
}

impl<'a> Across<'a> {
    fn new(image: &'a Image, axis: &'a Axis) -> Self {
        Across { image, axis }
    }

    /// Source rows from `first` on, as many as `out` holds.
    fn rows(&self, first: usize, out: &mut [u8]) {
        let stride = self.axis.taps.len() * 3;
        let from = self.image.width() * 3;
        let row = |y: usize| &self.image.rgb()[y * from..];
        #[cfg(target_arch = "x86_64")]
        if let (Some(avx2), false) = (
            fearless_simd::Level::new().as_avx2(),
            self.axis.quads.is_empty(),
        ) {
            use super::x86::{BEYOND, across};
            // The last rows of a picture have nothing behind them: they are copied to where there is.
            let mut copies = Vec::new();
            for (y, out) in (first..).step_by(4).zip(out.chunks_mut(stride * 4)) {
                let n = out.len() / stride;
                let free = y + n <= self.image.height() && row(y + n - 1).len() >= from + BEYOND;
                if !free {
                    copies.clear();
                    copies.resize(n * (from + BEYOND), 0u8);
                    for (i, copy) in copies.chunks_exact_mut(from + BEYOND).enumerate() {
                        copy[..from].copy_from_slice(self.image.row(y + i));
                    }
                }
                let source = |i: usize| match free {
                    true => row(y + i),
                    false => &copies[i * (from + BEYOND)..],
                };
                if n == 4 {
                    let (a, b) = out.split_at_mut(stride * 2);
                    let ((a, b), (c, d)) = (a.split_at_mut(stride), b.split_at_mut(stride));
                    across(avx2, [0, 1, 2, 3].map(source), self.axis, [a, b, c, d]);
                } else {
                    for (i, out) in out.chunks_exact_mut(stride).enumerate() {
                        rows::across(source(i), self.axis, out);
                    }
                }
            }
            return;
        }
        for (y, out) in (first..).zip(out.chunks_exact_mut(stride)) {
            rows::across(row(y), self.axis, out);
        }
    }
}
