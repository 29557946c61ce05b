//! Idefics3 and SmolVLM: a picture is enlarged or reduced, cut into square tiles, and shown once more as a whole.
//!
//! ```text
//! 1. longest side to `longest_edge` (enlarging, too), the other side truncated, then made even; nothing above 4096
//! 2. both sides up to multiples of `side`; the shape changes a little
//! 3. tiles row by row; then the picture of step 2 squashed to side × side
//! ```
//! A picture that step 2 leaves at one tile is that tile alone. Every step rounds to 8 bits. Without splitting there
//! are step 1 and a squash to side × side.
//!
//! The reference pads a batch of prompts with tiles of zeros and its model drops what is all zero. One prompt needs no
//! padding, so nothing here is to be dropped.

use super::{Companions, Layout, Plan, Steps};
use crate::{Error, Image, Normalize, Result};
use firelight_tensor::Tensor;

/// The longest side there may be after step 1.
const MAX_SIDE: usize = 4096;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tiles {
    pub(super) size: TileSize,
    /// The side of a tile.
    pub(super) side: usize,
    pub(super) split: bool,
    pub(super) pad: bool,
}

/// The target of step 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum TileSize {
    Longest(usize),
    /// Width and height.
    Exact(usize, usize),
}

impl Tiles {
    /// Width and height after step 1.
    fn first(&self, steps: &Steps, width: usize, height: usize) -> (usize, usize) {
        let longest = match (steps.resize, self.size) {
            (false, _) => return (width, height),
            (true, TileSize::Exact(w, h)) => return (w, h),
            (true, TileSize::Longest(side)) => side,
        };
        let scaled = |(w, h): (usize, usize), longest: usize| {
            let aspect = w as f64 / h as f64;
            match w >= h {
                true => (longest, (longest as f64 / aspect) as usize),
                false => ((longest as f64 * aspect) as usize, longest),
            }
        };
        let (mut w, mut h) = scaled((width, height), longest);
        match width >= height {
            true => h += h % 2,
            false => w += w % 2,
        }
        (w, h) = (w.max(1), h.max(1));
        if w.max(h) > MAX_SIDE {
            (w, h) = scaled((w, h), MAX_SIDE);
        }
        (w.max(1), h.max(1))
    }

    pub(super) fn plan(&self, steps: &Steps, width: usize, height: usize) -> Plan {
        let side = self.side;
        let (w, h) = self.first(steps, width, height);
        let (w, h) = match self.split {
            false => (side, side),
            true => {
                let up = |n: usize| n.div_ceil(side) * side;
                let aspect = w as f64 / h as f64;
                match w >= h {
                    true => (up(w), up((up(w) as f64 / aspect) as usize)),
                    false => (up((up(h) as f64 * aspect) as usize), up(h)),
                }
            }
        };
        let (rows, cols) = match w > side || h > side {
            true => (h / side, w / side),
            false => (0, 0),
        };
        Plan {
            width: w,
            height: h,
            layout: Layout::Tiles { rows, cols, side },
        }
    }

    /// Appends the inputs of the vision tower.
    pub(super) fn resized(
        &self,
        steps: &Steps,
        image: &Image,
        plan: &Plan,
        out: &mut Vec<Image>,
    ) -> Result<()> {
        let first = self.first(steps, image.width(), image.height());
        let first = steps.resized(image, first)?;
        let second = steps.resized(&first, (plan.width, plan.height))?;
        drop(first);
        let Layout::Tiles { rows, cols, side } = plan.layout else {
            return Err(Error::invalid("a plan of tiles is for tiles"));
        };
        if rows * cols == 0 {
            out.push(second);
            return Ok(());
        }
        for row in 0..rows {
            for col in 0..cols {
                out.push(second.crop(col * side, row * side, side, side)?);
            }
        }
        out.push(steps.resized(&second, (side, side))?);
        Ok(())
    }

    pub(super) fn batch(
        &self,
        normalize: &Normalize,
        inputs: &[Image],
    ) -> Result<(Tensor, Companions)> {
        let values = normalize.batch(inputs)?;
        let shape = [&[1], values.shape()].concat();
        let companions = match self.pad {
            true => Companions::AttentionMask,
            false => Companions::None,
        };
        Ok((values.reshape(&shape)?, companions))
    }
}
