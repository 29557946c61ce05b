//! Detectors: the shape may be kept, and a batch is padded to its largest picture.

use super::{Companions, Layout, Plan, Size, Steps, integers};
use crate::{Error, Image, Normalize, Result, pixels};
use firelight_tensor::Tensor;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Detect {
    pub(super) size: Size,
    /// Sides of resized pictures are cut down to multiples of this, where `size` keeps the shape (YOLOS: 16).
    pub(super) multiple: usize,
    pub(super) pad: bool,
    /// Width and height to pad to, instead of the largest picture's.
    pub(super) pad_size: Option<(usize, usize)>,
}

impl Detect {
    pub(super) fn plan(&self, steps: &Steps, width: usize, height: usize) -> Result<Plan> {
        let (w, h) = match (steps.resize, self.size) {
            (false, _) => (width, height),
            (true, size @ Size::Between { .. }) => {
                let (w, h) = size.of(width, height);
                (w - w % self.multiple, h - h % self.multiple)
            }
            (true, size) => size.of(width, height),
        };
        if w == 0 || h == 0 {
            return Err(Error::invalid(format!(
                "a {width}×{height} picture becomes narrower than {} pixels, the model's patch; crop or pad it",
                self.multiple
            )));
        }
        Ok(Plan {
            width: w,
            height: h,
            layout: Layout::Whole,
        })
    }

    pub(super) fn batch(
        &self,
        normalize: &Normalize,
        images: &[Image],
    ) -> Result<(Tensor, Companions)> {
        if !self.pad {
            return Ok((normalize.batch(images)?, Companions::None));
        }
        let largest = |side: fn(&Image) -> usize| images.iter().map(side).max().unwrap_or(0);
        let (width, height) = self
            .pad_size
            .unwrap_or((largest(Image::width), largest(Image::height)));
        if let Some(large) = images
            .iter()
            .find(|i| i.width() > width || i.height() > height)
        {
            return Err(Error::invalid(format!(
                "pad_size is {width}×{height}, but {large:?} is larger"
            )));
        }
        let values = pixels::buffer(&[images.len(), 3, height, width], |i, plane| {
            for (c, plane) in plane.chunks_exact_mut(width * height).enumerate() {
                let image = &images[i];
                for (y, row) in plane
                    .chunks_exact_mut(width)
                    .take(image.height())
                    .enumerate()
                {
                    normalize.channel(c, image.row(y), &mut row[..image.width()]);
                }
            }
        })?;
        Ok((values, Companions::PixelMask))
    }
}

/// `[B, H, W]` i64: 1 where the picture is, 0 where it is padded.
pub(super) fn mask(plans: &[Plan], pixel_values: &[usize]) -> Result<Tensor> {
    let &[b, _, h, w] = pixel_values else {
        return Err(Error::invalid(
            "pixel_values of detectors have four dimensions",
        ));
    };
    let mut mask = vec![0i64; b * h * w];
    for (plan, mask) in plans.iter().zip(mask.chunks_exact_mut(h * w)) {
        for row in mask.chunks_exact_mut(w).take(plan.height) {
            row[..plan.width].fill(1);
        }
    }
    integers(&mask, &[b, h, w])
}
