//! Qwen2-VL and its successors: as many patches as the picture's size asks for, within a range of pixels.
//!
//! ```text
//! f = patch · merge          both sides to the nearest multiple of f (halves to even)
//! above max_pixels           β = √(w·h / max):  each side ⌊side / β / f⌋ · f, at least f
//! below min_pixels           β = √(min / (w·h)): each side ⌈side · β / f⌉ · f
//! ```
//! Patches are listed in blocks of merge × merge, which become one token each; a patch's values are channel, frame, row,
//! column, and a picture repeats its one frame.

use super::{Layout, Plan, Steps, integers};
use crate::{Error, Image, Normalize, PatchLayout, PatchOrder, Result, pixels};
use firelight_tensor::Tensor;

/// The greatest ratio of the sides.
const MAX_RATIO: f64 = 200.0;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grid {
    pub(super) min_pixels: usize,
    pub(super) max_pixels: usize,
    pub(super) patch: usize,
    pub(super) merge: usize,
    /// Frames per patch.
    pub(super) temporal: usize,
}

impl Grid {
    pub(super) fn factor(&self) -> usize {
        self.patch * self.merge
    }

    /// Width and height of the resized picture.
    pub(super) fn size(&self, width: usize, height: usize) -> Result<(usize, usize)> {
        let (w, h, f) = (width as f64, height as f64, self.factor() as f64);
        nearest_size((w, h), f, (1.0, 1.0), self.min_pixels, self.max_pixels)
    }

    pub(super) fn plan(&self, steps: &Steps, width: usize, height: usize) -> Result<Plan> {
        let (width, height) = match steps.resize {
            true => self.size(width, height)?,
            false
                if [width, height]
                    .iter()
                    .all(|n| n.is_multiple_of(self.factor())) =>
            {
                (width, height)
            }
            false => {
                return Err(Error::invalid(format!(
                    "without do_resize the sides are multiples of {}, got {width}×{height}",
                    self.factor()
                )));
            }
        };
        Ok(Plan {
            width,
            height,
            layout: Layout::Grid {
                t: 1,
                h: height / self.patch,
                w: width / self.patch,
                merge: self.merge,
            },
        })
    }

    pub(super) fn layout(&self) -> PatchLayout {
        PatchLayout {
            patch: self.patch,
            temporal: self.temporal,
            merge: self.merge,
            order: PatchOrder::ChannelFirst,
        }
    }

    /// `[patches of all pictures, 3 · temporal · patch²]`.
    pub(super) fn batch(&self, normalize: &Normalize, images: &[Image]) -> Result<Tensor> {
        let columns = 3 * self.temporal * self.patch * self.patch;
        let rows = |i: &Image| (i.width() / self.patch) * (i.height() / self.patch);
        let total = images.iter().map(rows).sum();
        pixels::whole(&[total, columns], |mut values| {
            for image in images {
                let (own, rest) = values.split_at_mut(rows(image) * columns);
                pixels::patches(&[image], normalize, self.layout(), own);
                values = rest;
            }
        })
    }
}

/// Multiples of `f` near `w × h` with pixels in the range. `frames` multiply the pixels: as they will be, and as they are.
pub(super) fn nearest_size(
    (w, h): (f64, f64),
    f: f64,
    frames: (f64, f64),
    min_pixels: usize,
    max_pixels: usize,
) -> Result<(usize, usize)> {
    if w.max(h) / w.min(h) > MAX_RATIO {
        return Err(Error::invalid(format!(
            "the model takes pictures up to {MAX_RATIO} times as long as wide, got {w}×{h}; crop or pad it"
        )));
    }
    let near = |v: f64| (v / f).round_ties_even() * f;
    let (min, max) = (min_pixels as f64, max_pixels as f64);
    let (to_w, to_h) = match frames.0 * near(h) * near(w) {
        volume if volume > max => {
            let beta = (frames.1 * h * w / max).sqrt();
            let side = |v: f64| f.max((v / beta / f).floor() * f);
            (side(w), side(h))
        }
        volume if volume < min => {
            let beta = (min / (frames.1 * h * w)).sqrt();
            let side = |v: f64| (v * beta / f).ceil() * f;
            (side(w), side(h))
        }
        _ => (near(w), near(h)),
    };
    if to_w < 1.0 || to_h < 1.0 {
        return Err(Error::invalid(format!(
            "a {w}×{h} picture is smaller than half a patch and min_pixels does not enlarge it; set min_pixels to at least {}",
            f * f
        )));
    }
    Ok((to_w as usize, to_h as usize))
}

/// `[B, 3]` i64: groups of frames, rows, columns.
pub(super) fn thw(plans: &[Plan]) -> Result<Tensor> {
    let rows = plans.iter().flat_map(|p| match p.layout {
        Layout::Grid { t, h, w, .. } => [t as i64, h as i64, w as i64],
        _ => [0; 3],
    });
    integers(&rows.collect::<Vec<_>>(), &[plans.len(), 3])
}
