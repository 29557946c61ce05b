//! What becomes of a picture, told from its size.

use crate::{Error, Result};

/// The most pixels that a resized picture may have.
const MAX_PIXELS: u64 = 1 << 28;

/// What becomes of one picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Width of the picture after resizing and cropping, in pixels; of all tiles together where it is cut.
    pub width: usize,
    /// Height, likewise.
    pub height: usize,
    /// How the model gets it.
    pub layout: Layout,
}

/// How a model gets a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// As one input.
    Whole,
    /// As `rows × cols` square tiles, row by row, and then the whole picture squashed to one; as the latter alone where
    /// `rows` and `cols` are 0.
    Tiles {
        /// Rows of tiles.
        rows: usize,
        /// Columns of tiles.
        cols: usize,
        /// The side of a tile in pixels.
        side: usize,
    },
    /// As patches, listed in blocks of `merge × merge` that become one token each.
    Grid {
        /// Groups of frames; 1 for a picture.
        t: usize,
        /// Rows of patches.
        h: usize,
        /// Columns of patches.
        w: usize,
        /// The side of a block, in patches.
        merge: usize,
    },
    /// As `rows × cols` patches, row by row, of which `pool × pool` become one token.
    Soft {
        /// Rows of patches.
        rows: usize,
        /// Columns of patches.
        cols: usize,
        /// The side of a pooled cell, in patches.
        pool: usize,
    },
}

impl Plan {
    /// How many inputs the vision tower sees of the picture: the tiles and the view of the whole, elsewhere 1.
    pub fn inputs(&self) -> usize {
        match self.layout {
            Layout::Tiles { rows, cols, .. } => rows * cols + 1,
            _ => 1,
        }
    }

    /// How many image tokens the picture takes in a prompt. `per_input` are the tokens of one input of the tower, which
    /// only the model knows where the layout is whole or tiles ([`Processor::image_seq_len`](crate::Processor::image_seq_len));
    /// elsewhere it is not used.
    pub fn tokens(&self, per_input: usize) -> usize {
        match self.layout {
            Layout::Whole => per_input,
            Layout::Tiles { .. } => self.inputs().saturating_mul(per_input),
            Layout::Grid { t, h, w, merge } => t * (h / merge.max(1)) * (w / merge.max(1)),
            Layout::Soft { rows, cols, pool } => rows * cols / (pool * pool).max(1),
        }
    }

    /// The most further tokens that a prompt's template puts around the picture: row and column marks, line ends, the
    /// tokens that open and close a picture.
    pub fn marks(&self) -> usize {
        match self.layout {
            Layout::Whole => 0,
            Layout::Tiles { rows, cols, .. } => 2 * rows * cols + rows + 4,
            Layout::Grid { t, .. } => 2 * t,
            Layout::Soft { .. } => 4,
        }
    }

    pub(super) fn check(self) -> Result<Plan> {
        let got = (self.width as u64).saturating_mul(self.height as u64);
        if got > MAX_PIXELS {
            return Err(Error::Limit {
                what: "pixels of a resized picture",
                max: MAX_PIXELS,
                got,
            });
        }
        Ok(self)
    }
}
