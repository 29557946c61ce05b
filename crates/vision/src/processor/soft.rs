//! Gemma 4: the shape is kept, and the picture made as large as a budget of soft tokens allows (small ones, too).
//!
//! ```text
//! s = √(max_soft_tokens · pool² · patch² / (w·h))       each side ⌊side · s / (pool·patch)⌋ · (pool·patch)
//! ```
//! A side that would be 0 becomes one cell, and the other ⌊ratio⌋ cells, at most the budget. Patches are listed row by row; a
//! patch's values are row, column, channel. Every picture's list is padded with zeros to the greatest length.

use super::{Layout, Plan, Steps, integers};
use crate::{Error, Image, Normalize, PatchLayout, PatchOrder, Result, pixels};
use firelight_tensor::Tensor;

/// The budgets that the reference accepts.
pub(super) const SOFT_TOKENS: [usize; 5] = [70, 140, 280, 560, 1120];

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Soft {
    pub(super) patch: usize,
    pub(super) pool: usize,
    /// One of [`SOFT_TOKENS`].
    pub(super) soft_tokens: usize,
}

impl Soft {
    fn max_patches(&self) -> usize {
        self.soft_tokens * self.pool * self.pool
    }

    /// Width and height of the resized picture.
    fn size(&self, width: usize, height: usize) -> Result<(usize, usize)> {
        let (w, h) = (width as f64, height as f64);
        let cell = self.pool * self.patch;
        let budget = self.max_patches() * self.patch * self.patch;
        let factor = (budget as f64 / (w * h)).sqrt();
        let cells = |side: f64| (factor * side / cell as f64).floor() as usize;
        let most = self.max_patches() / (self.pool * self.pool);
        let (x, y) = match (cells(w), cells(h)) {
            (0, 0) => {
                return Err(Error::invalid(format!(
                    "a budget of {} soft tokens has no room for a {width}×{height} picture",
                    self.soft_tokens
                )));
            }
            (x, 0) if x > 0 => ((width / height).min(most), 1),
            (0, _) => (1, (height / width).min(most)),
            both => both,
        };
        if x * y * cell * cell > budget {
            return Err(Error::invalid(format!(
                "a {width}×{height} picture does not fit {} soft tokens",
                self.soft_tokens
            )));
        }
        Ok((x * cell, y * cell))
    }

    pub(super) fn plan(&self, steps: &Steps, width: usize, height: usize) -> Result<Plan> {
        let (width, height) = match steps.resize {
            true => self.size(width, height)?,
            false => (width, height),
        };
        let (rows, cols) = (height / self.patch, width / self.patch);
        let whole = width.is_multiple_of(self.patch) && height.is_multiple_of(self.patch);
        if !whole || rows * cols > self.max_patches() {
            return Err(Error::invalid(format!(
                "without do_resize the sides are multiples of {} and make at most {} patches, got {width}×{height}",
                self.patch,
                self.max_patches()
            )));
        }
        Ok(Plan {
            width,
            height,
            layout: Layout::Soft {
                rows,
                cols,
                pool: self.pool,
            },
        })
    }

    /// `[B, most patches, patch² · 3]`.
    pub(super) fn batch(&self, normalize: &Normalize, images: &[Image]) -> Result<Tensor> {
        let columns = 3 * self.patch * self.patch;
        let layout = PatchLayout {
            patch: self.patch,
            temporal: 1,
            merge: 1,
            order: PatchOrder::ChannelLast,
        };
        pixels::buffer(&[images.len(), self.max_patches(), columns], |i, out| {
            let image = &images[i];
            let rows = (image.width() / self.patch) * (image.height() / self.patch);
            pixels::patches(&[image], normalize, layout, &mut out[..rows * columns]);
        })
    }
}

/// `[B, most patches, 2]` i64: column and row of each patch, −1 in padding.
pub(super) fn positions(plans: &[Plan], pixel_values: &[usize]) -> Result<Tensor> {
    let most = pixel_values.get(1).copied().unwrap_or(0);
    let mut out = vec![-1i64; plans.len() * most * 2];
    for (plan, out) in plans.iter().zip(out.chunks_exact_mut((most * 2).max(1))) {
        let cols = match plan.layout {
            Layout::Soft { cols, .. } => cols.max(1),
            _ => 1,
        };
        let patches = match plan.layout {
            Layout::Soft { rows, cols, .. } => rows * cols,
            _ => 0,
        };
        for (i, xy) in out.chunks_exact_mut(2).take(patches).enumerate() {
            xy.copy_from_slice(&[(i % cols) as i64, (i / cols) as i64]);
        }
    }
    integers(&out, &[plans.len(), most, 2])
}
