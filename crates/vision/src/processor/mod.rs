//! Image processors as Hugging Face's `preprocessor_config.json` describes them.
//!
//! Every step comes from the file alone, keys that it lacks from the defaults of the class it names.
//!
//! | file | classes | a picture becomes |
//! |---|---|---|
//! | `fixed` | ViT, DeiT, Bit, CLIP, SigLIP, MobileNetV1/V2, EfficientNet | one input `[3, H, W]` |
//! | `detect` | YOLOS, RT-DETR (also D-FINE's) | one input `[3, H, W]`, padded to the batch, with a mask |
//! | `tiles` | Idefics3, SmolVLM | rows × columns of square tiles and a view of the whole |
//! | `grid` | Qwen2-VL (also Qwen3.5's) | a grid of patches, as many as its size asks for |
//! | `video` | Qwen2-VL's and Qwen3-VL's for films | frames as a grid with a time axis |
//! | `soft` | Gemma 4 | patches with positions, padded to the most there may be |
//!
//! The tensors other than `pixel_values` (masks, grids, positions) follow from the [`Plan`]s, which follow from the
//! pictures' sizes: [`Processor::plan`] tells them before anything is decoded, [`Processed::tensors`] writes them out.

mod budget;
mod classes;
mod config;
mod detect;
mod fixed;
mod grid;
mod plan;
mod size;
mod soft;
mod tiles;
mod video;

pub use budget::Overrides;
pub use plan::{Layout, Plan};
pub use size::Size;
pub use video::{ProcessedVideo, VideoProcessor};

use crate::{Error, Filter, Image, Normalize, Reference, Result, resize};
use detect::Detect;
use firelight_tensor::{DType, Tensor};
use fixed::Fixed;
use grid::Grid;
use soft::Soft;
use tiles::Tiles;

/// Pictures to the tensors a vision model takes.
///
/// ```
/// use firelight_vision::{Image, Layout, Processor};
///
/// # fn main() -> firelight_vision::Result<()> {
/// let config = r#"{"image_processor_type": "Qwen2VLImageProcessor", "max_pixels": 50176}"#;
/// let processor = Processor::from_config(config)?;
/// let plan = processor.plan(640, 427)?; // from the size alone
/// assert_eq!(plan.layout, Layout::Grid { t: 1, h: 12, w: 18, merge: 2 });
/// assert_eq!(plan.tokens(0), 54);
///
/// let made = processor.process(&[Image::filled(640, 427, [200, 30, 60])?])?;
/// assert_eq!(made.pixel_values.shape(), [12 * 18, 3 * 2 * 14 * 14]);
/// let names: Vec<_> = made.tensors()?.into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["pixel_values", "image_grid_thw"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Processor {
    steps: Steps,
    kind: Kind,
    /// The text tokens that stand for one input of the tower, where the file says so (`image_seq_len`).
    image_seq_len: Option<usize>,
}

/// What all classes share.
#[derive(Clone, Debug, PartialEq)]
struct Steps {
    reference: Reference,
    /// Whether `do_resize` is on.
    resize: bool,
    filter: Filter,
    normalize: Normalize,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Fixed(Fixed),
    Detect(Detect),
    Tiles(Tiles),
    Grid(Grid),
    Soft(Soft),
}

impl Steps {
    fn resized(&self, image: &Image, (width, height): (usize, usize)) -> Result<Image> {
        resize(image, width, height, self.filter, self.reference)
    }
}

/// What a processor makes of the pictures of one prompt (or of one batch).
#[derive(Clone, Debug)]
pub struct Processed {
    /// f32. `[B, 3, H, W]`; tiles `[1, inputs, 3, side, side]`; a grid `[patches of all pictures, values]`; soft tokens
    /// `[B, most patches, values]`. Always there.
    pub pixel_values: Tensor,
    /// What became of each picture, in order.
    pub plans: Vec<Plan>,
    companions: Companions,
}

/// Which tensors accompany `pixel_values`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Companions {
    None,
    PixelMask,
    AttentionMask,
    ImageGrid,
    Positions,
}

impl Processed {
    /// Every tensor that the reference's processor returns, under its names and in its order:
    ///
    /// | kind | beside `pixel_values` |
    /// |---|---|
    /// | YOLOS, RT-DETR with `do_pad` | `pixel_mask` `[B, H, W]` i64 |
    /// | Idefics3, SmolVLM with `do_pad` | `pixel_attention_mask` `[1, inputs, side, side]` i64 |
    /// | Qwen2-VL, Qwen3.5 | `image_grid_thw` `[B, 3]` i64 |
    /// | Gemma 4 | `image_position_ids` `[B, most patches, 2]` (x, y) i64, −1 in padding; `num_soft_tokens_per_image` `[B]` i64 |
    ///
    /// # Errors
    /// `Tensor` if the memory is not to be had.
    pub fn tensors(&self) -> Result<Vec<(&'static str, Tensor)>> {
        let mut out = vec![("pixel_values", self.pixel_values.clone())];
        let shape = self.pixel_values.shape();
        match self.companions {
            Companions::None => {}
            Companions::PixelMask => {
                // The reference's mapping has the mask first.
                out.insert(0, ("pixel_mask", detect::mask(&self.plans, shape)?));
            }
            Companions::AttentionMask => {
                let ones = shape.iter().product::<usize>() / 3;
                let shape: Vec<usize> = [&shape[..2], &shape[3..]].concat();
                out.push(("pixel_attention_mask", integers(&vec![1; ones], &shape)?));
            }
            Companions::ImageGrid => out.push(("image_grid_thw", grid::thw(&self.plans)?)),
            Companions::Positions => {
                out.push(("image_position_ids", soft::positions(&self.plans, shape)?));
                let counts: Vec<i64> = self.plans.iter().map(|p| p.tokens(0) as i64).collect();
                let shape = [counts.len()];
                out.push(("num_soft_tokens_per_image", integers(&counts, &shape)?));
            }
        }
        Ok(out)
    }

    /// The tensor of this name, as [`Processed::tensors`] lists them.
    ///
    /// # Errors
    /// `InvalidInput` if this kind of processor returns none of that name.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let tensors = self.tensors()?;
        let names: Vec<_> = tensors.iter().map(|(n, _)| *n).collect();
        let found = tensors.iter().find(|(n, _)| *n == name);
        found
            .map(|(_, t)| t.clone())
            .ok_or_else(|| Error::invalid(format!("the processor returns {names:?}, not {name:?}")))
    }
}

fn integers(values: &[i64], shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::new(
        DType::I64,
        shape,
        bytemuck::cast_slice::<i64, u8>(values),
    )?)
}

impl Processor {
    /// The processor of a `preprocessor_config.json` or a `processor_config.json`.
    ///
    /// Classes, each with or without `Fast`: `Qwen2VLImageProcessor`, `SmolVLMImageProcessor`, `Idefics3ImageProcessor`,
    /// `Gemma4ImageProcessor`, `CLIPImageProcessor`, `SiglipImageProcessor`, `ViTImageProcessor`, `DeiTImageProcessor`,
    /// `BitImageProcessor` (DINOv2), `MobileNetV1ImageProcessor`, `MobileNetV2ImageProcessor`,
    /// `EfficientNetImageProcessor`, `YolosImageProcessor`, `RTDetrImageProcessor` (also D-FINE). Older names
    /// (`…FeatureExtractor`) and older spellings of sizes are read; a name that ends in `Pil` means Pillow's arithmetic
    /// instead of torchvision's.
    ///
    /// Pictures are RGB here whatever `do_convert_rgb` says.
    ///
    /// # Errors
    /// `Malformed` if the text is not JSON, `Unsupported` for another class or a setting that is not served,
    /// `InvalidInput` for a value of the wrong type or range, `Limit` for sizes beyond 16384.
    pub fn from_config(json: &str) -> Result<Self> {
        config::parse(json, None)
    }

    /// The processor of a checkpoint: `read` gives the text of a file of this name, or `None` where there is none.
    ///
    /// Newer checkpoints have everything in `processor_config.json`, older ones the picture's part in
    /// `preprocessor_config.json` and the length of a tile, if any, in the former.
    ///
    /// # Errors
    /// `InvalidInput` if neither file is there, and as [`Processor::from_config`]; what `read` brings.
    pub fn from_checkpoint<E: From<Error>>(
        mut read: impl FnMut(&str) -> Result<Option<String>, E>,
        reference: Option<Reference>,
    ) -> Result<Self, E> {
        let whole = read("processor_config.json")?;
        if let Some(json) = &whole
            && config::is_nested(json)
        {
            return Ok(config::parse(json, reference)?);
        }
        let Some(json) = read("preprocessor_config.json")? else {
            return Err(Error::invalid(
                "there is neither a preprocessor_config.json nor a processor_config.json with an image_processor; fetch the checkpoint's processor files",
            )
            .into());
        };
        let mut processor = config::parse(&json, reference)?;
        if let (Some(json), Kind::Tiles(_)) = (&whole, &processor.kind) {
            processor.image_seq_len = config::image_seq_len(json)?;
        }
        Ok(processor)
    }

    /// The same processor with the arithmetic of another reference.
    ///
    /// # Errors
    /// As [`Processor::from_config`], whose text it takes: the tables depend on the reference.
    pub fn from_config_as(json: &str, reference: Reference) -> Result<Self> {
        config::parse(json, Some(reference))
    }

    /// The text tokens that stand for one input of the vision tower, where the file says so (`image_seq_len` of a
    /// `processor_config.json`); elsewhere the model's configuration knows.
    pub fn image_seq_len(&self) -> Option<usize> {
        self.image_seq_len
    }

    /// What becomes of a picture of this size, before it is decoded.
    ///
    /// # Errors
    /// `InvalidInput` if a side is zero or the class refuses such a shape (Qwen2-VL: more than 200 times as long as
    /// wide), `Limit` if the resized picture would be too large (a long strip whose short edge is enlarged).
    pub fn plan(&self, width: usize, height: usize) -> Result<Plan> {
        if width == 0 || height == 0 {
            return Err(Error::invalid(format!(
                "a picture has at least one pixel, got {width}×{height}"
            )));
        }
        let plan = match &self.kind {
            Kind::Fixed(k) => k.plan(&self.steps, width, height),
            Kind::Detect(k) => k.plan(&self.steps, width, height)?,
            Kind::Tiles(k) => k.plan(&self.steps, width, height),
            Kind::Grid(k) => k.plan(&self.steps, width, height)?,
            Kind::Soft(k) => k.plan(&self.steps, width, height)?,
        };
        plan.check()
    }

    /// The pictures of one prompt (or of one batch) as tensors.
    ///
    /// # Errors
    /// `InvalidInput` if there is no picture or pictures do not fit one batch, and as [`Processor::plan`]; `Tensor` if
    /// the memory is not to be had.
    pub fn process(&self, images: &[Image]) -> Result<Processed> {
        self.process_each(images.iter().map(Ok))
    }

    /// As [`Processor::process`], for pictures that come one at a time: each is let go once it is resized, so that a
    /// batch of files takes the memory of one decoded picture.
    ///
    /// # Errors
    /// As [`Processor::process`], and what the pictures bring.
    pub fn process_each<I: std::borrow::Borrow<Image>>(
        &self,
        images: impl IntoIterator<Item = Result<I>>,
    ) -> Result<Processed> {
        let mut plans = Vec::new();
        let mut resized = Vec::new();
        for image in images {
            let image = image?;
            let image = image.borrow();
            let plan = self.plan(image.width(), image.height())?;
            match &self.kind {
                Kind::Fixed(k) => resized.push(k.resized(&self.steps, image)?),
                Kind::Tiles(k) => k.resized(&self.steps, image, &plan, &mut resized)?,
                Kind::Detect(_) | Kind::Grid(_) | Kind::Soft(_) => {
                    resized.push(self.steps.resized(image, (plan.width, plan.height))?);
                }
            }
            plans.push(plan);
        }
        if plans.is_empty() {
            return Err(Error::invalid(
                "there is no picture to process; give at least one",
            ));
        }
        let normalize = &self.steps.normalize;
        let (pixel_values, companions) = match &self.kind {
            Kind::Fixed(_) => (normalize.batch(&resized)?, Companions::None),
            Kind::Detect(k) => k.batch(normalize, &resized)?,
            Kind::Tiles(k) => k.batch(normalize, &resized)?,
            Kind::Grid(k) => (k.batch(normalize, &resized)?, Companions::ImageGrid),
            Kind::Soft(k) => (k.batch(normalize, &resized)?, Companions::Positions),
        };
        Ok(Processed {
            pixel_values,
            plans,
            companions,
        })
    }

    /// The 8-bit stage: what the vision tower gets to see of `image`, before it becomes numbers. One picture, or the
    /// tiles and the view of the whole.
    ///
    /// # Errors
    /// As [`Processor::process`].
    pub fn views(&self, image: &Image) -> Result<Vec<Image>> {
        let plan = self.plan(image.width(), image.height())?;
        match &self.kind {
            Kind::Fixed(k) => Ok(vec![k.resized(&self.steps, image)?]),
            Kind::Tiles(k) => {
                let mut out = Vec::new();
                k.resized(&self.steps, image, &plan, &mut out)?;
                Ok(out)
            }
            _ => Ok(vec![self.steps.resized(image, (plan.width, plan.height))?]),
        }
    }
}
