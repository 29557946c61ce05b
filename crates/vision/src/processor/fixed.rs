//! Resize → centre crop: every picture becomes one input of one size.

use super::{Layout, Plan, Size, Steps};
use crate::{Image, Result};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fixed {
    pub(super) size: Size,
    /// Width and height, where cropping is on.
    pub(super) crop: Option<(usize, usize)>,
}

impl Fixed {
    fn resize_to(&self, steps: &Steps, width: usize, height: usize) -> (usize, usize) {
        match steps.resize {
            true => self.size.of(width, height),
            false => (width, height),
        }
    }

    /// Checked before cropping, too: cropping hides how large the resized picture is.
    pub(super) fn plan(&self, steps: &Steps, width: usize, height: usize) -> Plan {
        let resized = self.resize_to(steps, width, height);
        let (width, height) = self.crop.unwrap_or(resized);
        Plan {
            width,
            height,
            layout: Layout::Whole,
        }
    }

    pub(super) fn resized(&self, steps: &Steps, image: &Image) -> Result<Image> {
        let to = self.resize_to(steps, image.width(), image.height());
        let resized = steps.resized(image, to)?;
        match self.crop {
            Some((w, h)) => resized.center_crop(w, h, steps.reference),
            None => Ok(resized),
        }
    }
}
