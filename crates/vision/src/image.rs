//! The picture type and the operations that only move pixels: crop, pad, orientation.

use crate::samples::Samples;
use crate::{Error, Reference, Result};
use firelight_tensor::AlignedBuf;
use std::fmt;

/// A decoded picture: `[H, W, 3]`, 8-bit RGB, row-major, channels interleaved, at least 1×1.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    rgb: Samples,
}

impl Image {
    /// A picture over `rgb`, which holds `height × width × 3` bytes.
    ///
    /// # Errors
    /// `InvalidInput` if a side is zero or the length differs.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self> {
        Self::over(width, height, Samples::Vec(rgb))
    }

    /// [`Image::new`] over a buffer.
    pub(crate) fn over_buffer(width: usize, height: usize, rgb: AlignedBuf) -> Result<Self> {
        Self::over(width, height, Samples::Buffer(rgb))
    }

    fn over(width: usize, height: usize, rgb: Samples) -> Result<Self> {
        let bytes = width
            .checked_mul(height)
            .and_then(|n| n.checked_mul(3))
            .filter(|&n| n > 0)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "a picture is at least 1×1 and fits in memory, got {width}×{height}"
                ))
            })?;
        if rgb.len() != bytes {
            return Err(Error::invalid(format!(
                "a {width}×{height} RGB picture takes {bytes} bytes, got {}",
                rgb.len()
            )));
        }
        Ok(Image { width, height, rgb })
    }

    /// A picture of one colour.
    ///
    /// # Errors
    /// `InvalidInput` if a side is zero or the size does not fit in memory.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Result<Self> {
        let pixels = width
            .checked_mul(height)
            .filter(|n| n.checked_mul(3).is_some());
        let pixels = pixels.ok_or_else(|| {
            Error::invalid(format!("a {width}×{height} picture does not fit in memory"))
        })?;
        Image::new(width, height, colour.repeat(pixels))
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The samples, `[H, W, 3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The samples, to be written.
    pub fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// The samples; without a copy if [`Image::new`] was given them.
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb.into_vec()
    }

    /// The colour at column `x` and row `y`, or `None` outside the picture.
    pub fn pixel(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        if x >= self.width || y >= self.height {
            return None;
        }
        let at = (y * self.width + x) * 3;
        self.rgb.get(at..at + 3)?.try_into().ok()
    }

    /// The row `y` as `[W, 3]`; empty outside the picture.
    pub(crate) fn row(&self, y: usize) -> &[u8] {
        let stride = self.width * 3;
        self.rgb.get(y * stride..(y + 1) * stride).unwrap_or(&[])
    }

    /// The rectangle of `width × height` whose upper left corner is `(left, top)`.
    ///
    /// # Errors
    /// `InvalidInput` if the rectangle is empty or leaves the picture.
    pub fn crop(&self, left: usize, top: usize, width: usize, height: usize) -> Result<Image> {
        let inside = left.checked_add(width).is_some_and(|r| r <= self.width)
            && top.checked_add(height).is_some_and(|b| b <= self.height);
        if !inside {
            return Err(Error::invalid(format!(
                "a {width}×{height} crop at ({left}, {top}) leaves a {}×{} picture",
                self.width, self.height
            )));
        }
        let mut rgb = Vec::with_capacity(width * height * 3);
        for y in top..top + height {
            rgb.extend_from_slice(&self.row(y)[left * 3..(left + width) * 3]);
        }
        Image::new(width, height, rgb)
    }

    /// The middle `width × height`, padded with black where the picture is smaller.
    ///
    /// Cropping takes an odd pixel from the right and below. Padding puts it there too in torchvision's processors, and
    /// left and above in Pillow's (`center_crop` of either backend of transformers 5).
    ///
    /// # Errors
    /// `InvalidInput` if a side is zero or the size does not fit in memory.
    pub fn center_crop(&self, width: usize, height: usize, reference: Reference) -> Result<Image> {
        let before = |crop: usize, side: usize| match reference {
            Reference::Torchvision => crop.saturating_sub(side) / 2,
            Reference::Pillow => crop.saturating_sub(side).div_ceil(2),
        };
        let (full_w, full_h) = (width.max(self.width), height.max(self.height));
        let (left, top) = ((full_w - width) / 2, (full_h - height) / 2);
        if (full_w, full_h) == (self.width, self.height) {
            return self.crop(left, top, width, height);
        }
        let (pad_left, pad_top) = (before(width, self.width), before(height, self.height));
        let padded = self.pad(pad_left, pad_top, full_w, full_h, [0; 3])?;
        padded.crop(left, top, width, height)
    }

    /// This picture at `(left, top)` on a `width × height` sheet of one colour.
    ///
    /// # Errors
    /// `InvalidInput` if the sheet does not hold the picture or does not fit in memory.
    pub fn pad(
        &self,
        left: usize,
        top: usize,
        width: usize,
        height: usize,
        colour: [u8; 3],
    ) -> Result<Image> {
        let holds = left.checked_add(self.width).is_some_and(|r| r <= width)
            && top.checked_add(self.height).is_some_and(|b| b <= height);
        if !holds {
            return Err(Error::invalid(format!(
                "a {width}×{height} sheet does not hold a {}×{} picture at ({left}, {top})",
                self.width, self.height
            )));
        }
        let mut sheet = Image::filled(width, height, colour)?;
        for y in 0..self.height {
            let at = ((top + y) * width + left) * 3;
            sheet.rgb[at..at + self.width * 3].copy_from_slice(self.row(y));
        }
        Ok(sheet)
    }

    /// The picture as an EXIF orientation (1 to 8) says it should be seen; any other value leaves it as it is.
    ///
    /// As Pillow's `exif_transpose`: 2 mirror, 3 half turn, 4 upside down, 5 transpose, 6 quarter turn clockwise,
    /// 7 transverse, 8 quarter turn anticlockwise.
    pub fn oriented(self, orientation: u8) -> Image {
        // Each orientation is a transpose (rows become columns) after a choice of mirrored axes of the source.
        let (transpose, flip_x, flip_y) = match orientation {
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, false, true),
            7 => (true, true, true),
            8 => (true, true, false),
            _ => return self,
        };
        let (width, height) = match transpose {
            true => (self.height, self.width),
            false => (self.width, self.height),
        };
        let mut rgb = Vec::with_capacity(self.rgb.len());
        for y in 0..height {
            for x in 0..width {
                let (sx, sy) = if transpose { (y, x) } else { (x, y) };
                let sx = if flip_x { self.width - 1 - sx } else { sx };
                let sy = if flip_y { self.height - 1 - sy } else { sy };
                let at = (sy * self.width + sx) * 3;
                rgb.extend_from_slice(&self.rgb[at..at + 3]);
            }
        }
        Image {
            width,
            height,
            rgb: Samples::Vec(rgb),
        }
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({}×{} RGB8)", self.width, self.height)
    }
}
