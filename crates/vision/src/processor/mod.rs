//! Image processors as Hugging Face's `preprocessor_config.json` describes them.
//!
//! The simple family is here: resize → centre crop → rescale → normalise, every step from the file alone, keys that it
//! lacks from the defaults of the class it names. See [`ImageProcessor::from_config`] for the classes.

mod config;
mod size;

pub use size::Size;

use crate::{Filter, Image, Normalize, Reference, Result, resize};
use firelight_tensor::Tensor;

/// A processor of the simple family: pictures to `pixel_values` `[B, 3, H, W]` f32.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageProcessor {
    reference: Reference,
    /// Target and filter, where resizing is on.
    resize: Option<(Size, Filter)>,
    /// Width and height, where cropping is on.
    crop: Option<(usize, usize)>,
    normalize: Normalize,
}

impl ImageProcessor {
    /// The processor of a `preprocessor_config.json` (or of the `image_processor` part of a `processor_config.json`).
    ///
    /// Classes: `ViTImageProcessor`, `DeiTImageProcessor`, `BitImageProcessor` (DINOv2), `CLIPImageProcessor`,
    /// `SiglipImageProcessor`, `MobileNetV1ImageProcessor`, `MobileNetV2ImageProcessor`, `EfficientNetImageProcessor`,
    /// `RTDetrImageProcessor` without padding (RT-DETR, D-FINE). Older names (`…FeatureExtractor`, `…Fast`) and older
    /// spellings of sizes are read; a class name that ends in `Pil` means Pillow's arithmetic instead of torchvision's.
    ///
    /// Pictures are RGB here whatever `do_convert_rgb` says.
    ///
    /// # Errors
    /// `Malformed` if the text is not JSON, `Unsupported` for another class or a setting that is not served,
    /// `InvalidInput` for a value of the wrong type or range, `Limit` for sizes beyond 16384.
    pub fn from_config(json: &str) -> Result<Self> {
        config::parse(json)
    }

    /// The same processor with the arithmetic of another reference.
    ///
    /// # Errors
    /// As [`ImageProcessor::from_config`], whose text it takes: the tables depend on the reference.
    pub fn from_config_as(json: &str, reference: Reference) -> Result<Self> {
        config::parse_as(json, Some(reference))
    }

    /// The 8-bit stage: `image` resized and cropped.
    ///
    /// # Errors
    /// `Limit` if the resized picture would be too large (a long strip whose short edge is enlarged).
    pub fn resized(&self, image: &Image) -> Result<Image> {
        let resized = match self.resize {
            Some((size, filter)) => {
                let (width, height) = size.of(image.width(), image.height());
                Some(resize(image, width, height, filter, self.reference)?)
            }
            None => None,
        };
        match (self.crop, resized) {
            (Some((w, h)), resized) => {
                resized
                    .as_ref()
                    .unwrap_or(image)
                    .center_crop(w, h, self.reference)
            }
            (None, Some(resized)) => Ok(resized),
            (None, None) => Ok(image.clone()),
        }
    }

    /// Pictures to `pixel_values` `[B, 3, H, W]` f32.
    ///
    /// # Errors
    /// `InvalidInput` if there is no picture or the processor leaves them at different sizes; as
    /// [`ImageProcessor::resized`].
    pub fn preprocess(&self, images: &[Image]) -> Result<Tensor> {
        let resized = images
            .iter()
            .map(|i| self.resized(i))
            .collect::<Result<Vec<_>>>()?;
        self.normalize.batch(&resized)
    }

    /// Width and height of what becomes of a picture of this size.
    pub fn output_size(&self, width: usize, height: usize) -> (usize, usize) {
        let resized = self.resize.map(|(size, _)| size.of(width, height));
        self.crop.or(resized).unwrap_or((width, height))
    }
}
