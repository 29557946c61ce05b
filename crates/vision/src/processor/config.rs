//! `preprocessor_config.json` and the classes it can name.

use super::classes::{CLASSES, CLIP_MEAN, CLIP_STD, Class, Family, HALF, class, square};
use super::detect::Detect;
use super::fixed::Fixed;
use super::grid::Grid;
use super::soft::{SOFT_TOKENS, Soft};
use super::tiles::{TileSize, Tiles};
use super::video::{Sampling, Style, VideoProcessor};
use super::{Kind, Processor, Size, Steps};
use crate::normalize::check_std;
use crate::{Error, Filter, Normalize, Reference, Result};
use serde_json::{Map, Value};

/// The greatest width or height that a configuration may ask for.
const MAX_SIDE: u64 = 16384;

/// Whether a `processor_config.json` holds the picture's part, too.
pub(super) fn is_nested(json: &str) -> bool {
    json_value(json).is_ok_and(|v| v.get("image_processor").is_some_and(Value::is_object))
}

/// The tokens of a tile, where a `processor_config.json` says them.
pub(super) fn image_seq_len(json: &str) -> Result<Option<usize>> {
    let value = json_value(json)?;
    value
        .as_object()
        .map_or(Ok(None), |m| File(m).count("image_seq_len"))
}

fn json_value(json: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(|e| {
        let line_start = json
            .split_inclusive('\n')
            .take(e.line().saturating_sub(1))
            .map(str::len);
        let offset = line_start.sum::<usize>() + e.column().saturating_sub(1);
        Error::malformed("preprocessor_config.json", offset as u64, e.to_string())
    })
}

pub(super) fn parse(json: &str, reference: Option<Reference>) -> Result<Processor> {
    let value = json_value(json)?;
    let whole = value.as_object();
    let map = whole.and_then(|m| match m.get("image_processor") {
        Some(inner) => inner.as_object(),
        None => Some(m),
    });
    let file = File(map.ok_or_else(|| {
        Error::invalid(format!(
            "a preprocessor configuration is a JSON object, got {}",
            kind(&value)
        ))
    })?);
    let (class, named) = file.class()?;
    let reference = reference.unwrap_or(named);
    let steps = Steps {
        reference,
        resize: file.flag("do_resize", true)?,
        filter: file.filter(class)?,
        normalize: file.normalize(class, reference)?,
    };
    let kind = match class.family {
        Family::Fixed => Kind::Fixed(file.fixed(class, &steps)?),
        Family::Detect(multiple) => Kind::Detect(file.detect(class, multiple)?),
        Family::Tiles => Kind::Tiles(file.tiles(class)?),
        Family::Grid => Kind::Grid(file.grid((56 * 56, 28 * 28 * 1280), 14)?),
        Family::Soft => Kind::Soft(file.soft()?),
    };
    let image_seq_len = match whole.map(File) {
        Some(whole) if class.family == Family::Tiles => whole.count("image_seq_len")?,
        _ => None,
    };
    Ok(Processor {
        steps,
        kind,
        image_seq_len,
    })
}

pub(super) fn parse_video(json: &str, reference: Reference) -> Result<VideoProcessor> {
    let value = json_value(json)?;
    let map = value.as_object().map(|m| {
        m.get("video_processor")
            .and_then(Value::as_object)
            .unwrap_or(m)
    });
    let file = File(map.ok_or_else(|| {
        Error::invalid(format!(
            "a preprocessor configuration is a JSON object, got {}",
            kind(&value)
        ))
    })?);
    let name = ["video_processor_type", "image_processor_type"]
        .into_iter()
        .find_map(|k| file.get(k).and_then(Value::as_str))
        .unwrap_or_default();
    let (style, mean, std, side, patch) = match name {
        "Qwen2VLVideoProcessor" | "Qwen2VLImageProcessor" | "Qwen2VLImageProcessorFast" => {
            (Style::Qwen2, CLIP_MEAN, CLIP_STD, 28, 14)
        }
        "Qwen3VLVideoProcessor" => (Style::Qwen3, HALF, HALF, 32, 16),
        _ => {
            return Err(Error::unsupported(format!(
                "video processor {name:?}; Qwen2VLVideoProcessor and Qwen3VLVideoProcessor are served"
            )));
        }
    };
    let class = Class {
        mean,
        std,
        ..class("video", square(0), Filter::Bicubic)
    };
    if file.flag("cap_pixels_per_frame", false)? {
        return Err(Error::unsupported(
            "cap_pixels_per_frame: set size.longest_edge instead",
        ));
    }
    let qwen3 = style == Style::Qwen3;
    let fps = file.number("fps", if qwen3 { 2.0 } else { 0.0 })?;
    Ok(VideoProcessor {
        steps: Steps {
            reference,
            resize: file.flag("do_resize", true)?,
            filter: file.filter(&class)?,
            normalize: file.normalize(&class, reference)?,
        },
        grid: file.grid((128 * side * side, 768 * side * side), patch)?,
        style,
        sampling: Sampling {
            on: file.flag("do_sample_frames", qwen3)?,
            fps: Some(fps).filter(|&f| f > 0.0),
            num_frames: file.count("num_frames")?,
            min_frames: file.count("min_frames")?.unwrap_or(4),
            max_frames: file.count("max_frames")?.unwrap_or(768),
        },
    })
}

/// The object with its typed readers; a key that is absent or null is silent.
struct File<'a>(&'a Map<String, Value>);

impl File<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key).map_or(Ok(default), |v| {
            v.as_bool()
                .ok_or_else(|| Error::invalid(format!("{key} is true or false, got {v}")))
        })
    }

    fn number(&self, key: &str, default: f64) -> Result<f64> {
        self.get(key).map_or(Ok(default), |v| {
            v.as_f64()
                .ok_or_else(|| Error::invalid(format!("{key} is a number, got {v}")))
        })
    }

    /// One number for all channels, or one per channel.
    fn triple(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3]> {
        let Some(v) = self.get(key) else {
            return Ok(default);
        };
        if let Some(x) = v.as_f64() {
            return Ok([x; 3]);
        }
        let numbers: Option<Vec<f64>> = v
            .as_array()
            .and_then(|a| a.iter().map(Value::as_f64).collect());
        numbers
            .and_then(|n| n.try_into().ok())
            .ok_or_else(|| Error::invalid(format!("{key} is a number or three of them, got {v}")))
    }

    fn class(&self) -> Result<(&'static Class, Reference)> {
        let key = ["image_processor_type", "feature_extractor_type"]
            .into_iter()
            .find_map(|k| self.get(k).and_then(Value::as_str));
        let Some(name) = key else {
            return Err(Error::invalid(
                "the configuration names no class; add \"image_processor_type\", for instance \"CLIPImageProcessor\"",
            ));
        };
        let (bare, reference) = match name.strip_suffix("Pil") {
            Some(bare) => (bare, Reference::Pillow),
            None => (
                name.strip_suffix("Fast").unwrap_or(name),
                Reference::Torchvision,
            ),
        };
        let family = bare
            .strip_suffix("ImageProcessor")
            .or(bare.strip_suffix("FeatureExtractor"));
        let class = family.and_then(|f| CLASSES.iter().find(|c| c.name == f));
        class.map(|c| (c, reference)).ok_or_else(|| {
            let known: Vec<&str> = CLASSES.iter().map(|c| c.name).collect();
            Error::unsupported(format!(
                "image processor {name}; of the {}ImageProcessor classes any is served",
                known.join("-, ")
            ))
        })
    }

    fn filter(&self, class: &Class) -> Result<Filter> {
        match self.get("resample") {
            None => Ok(class.filter),
            Some(v) => v.as_u64().and_then(Filter::from_pillow).ok_or_else(|| {
                Error::invalid(format!("resample is a number from 0 to 5, got {v}"))
            }),
        }
    }

    /// A whole number of at least 1.
    fn count(&self, key: &str) -> Result<Option<usize>> {
        self.get(key).map(|v| side(key, v)).transpose()
    }

    fn fixed(&self, class: &Class, steps: &Steps) -> Result<Fixed> {
        if self.flag("do_pad", false)? {
            return Err(Error::unsupported(format!(
                "do_pad of {}: pad the batch yourself",
                class.name
            )));
        }
        Ok(Fixed {
            size: match steps.resize {
                true => self.size(class)?,
                false => class.size,
            },
            crop: match self.flag("do_center_crop", class.do_crop)? {
                true => Some(self.crop(class)?),
                false => None,
            },
        })
    }

    fn detect(&self, class: &Class, multiple: usize) -> Result<Detect> {
        let pad = self.flag("pad_and_return_pixel_mask", class.do_pad)?;
        let size = match (self.get("size"), class.size) {
            // Old files have a number here and the bound of the longer side beside it.
            (Some(Value::Number(_)), Size::Between { longest, .. }) => Size::Between {
                shortest: self.count("size")?.unwrap_or(1),
                longest: self.count("max_size")?.unwrap_or(longest),
            },
            _ => self.size(class)?,
        };
        Ok(Detect {
            size,
            multiple,
            pad: self.flag("do_pad", pad)?,
            pad_size: match self.get("pad_size") {
                Some(v) => Some(height_width("pad_size", v)?),
                None => None,
            },
        })
    }

    fn tiles(&self, class: &Class) -> Result<Tiles> {
        let object = |key: &str| self.get(key).and_then(Value::as_object).map(File);
        let size = match object("size") {
            None if self.get("size").is_none() => TileSize::Longest(4 * 364),
            None => TileSize::Longest(self.count("size")?.unwrap_or(1)),
            Some(size) => match size.count("longest_edge")? {
                Some(side) => TileSize::Longest(side),
                None => {
                    let (w, h) = height_width("size", &Value::Object(size.0.clone()))?;
                    TileSize::Exact(w, h)
                }
            },
        };
        let tile = match object("max_image_size") {
            Some(tile) => tile.count("longest_edge")?,
            None => self.count("max_image_size")?,
        };
        Ok(Tiles {
            size,
            side: tile.unwrap_or(364),
            split: self.flag("do_image_splitting", true)?,
            pad: self.flag("do_pad", class.do_pad)?,
        })
    }

    /// `min` and `max` pixels, and the side of a patch, where the file is silent.
    fn grid(&self, (min, max): (usize, usize), patch: usize) -> Result<Grid> {
        // Pixels of a whole picture, under three generations of names.
        let pixels = |old: &str, new: &str, default: usize| {
            let size = self.get("size").and_then(Value::as_object);
            let value = self
                .get(old)
                .or_else(|| size.and_then(|m| m.get(new)))
                .or_else(|| size.and_then(|m| m.get(old)));
            match value {
                None => Ok(default),
                Some(v) => v
                    .as_u64()
                    .filter(|&n| (1..=MAX_SIDE * MAX_SIDE).contains(&n))
                    .map(|n| n as usize)
                    .ok_or_else(|| {
                        Error::invalid(format!(
                            "{old} (or size.{new}) is a number of pixels from 1 to {}, got {v}",
                            MAX_SIDE * MAX_SIDE
                        ))
                    }),
            }
        };
        Ok(Grid {
            min_pixels: pixels("min_pixels", "shortest_edge", min)?,
            max_pixels: pixels("max_pixels", "longest_edge", max)?,
            patch: self.small("patch_size", patch)?,
            merge: self.small("merge_size", 2)?,
            temporal: self.small("temporal_patch_size", 2)?,
        })
    }

    fn soft(&self) -> Result<Soft> {
        let soft_tokens = self.count("max_soft_tokens")?.unwrap_or(280);
        if !SOFT_TOKENS.contains(&soft_tokens) {
            return Err(Error::invalid(format!(
                "max_soft_tokens is one of {SOFT_TOKENS:?}, got {soft_tokens}"
            )));
        }
        Ok(Soft {
            patch: self.small("patch_size", 16)?,
            pool: self.small("pooling_kernel_size", 3)?,
            soft_tokens,
        })
    }

    /// A whole number from 1 to 256: a patch's side, or what it is multiplied with.
    fn small(&self, key: &str, default: usize) -> Result<usize> {
        match self.count(key)?.unwrap_or(default) {
            n @ 1..=256 => Ok(n),
            n => Err(Error::Limit {
                what: "the side of a patch, or of a block of patches,",
                max: 256,
                got: n as u64,
            }),
        }
    }

    fn size(&self, class: &Class) -> Result<Size> {
        let Some(v) = self.get("size") else {
            return Ok(class.size);
        };
        match v {
            Value::Object(m) => {
                let side = |key: &str| {
                    m.get(key)
                        .filter(|v| !v.is_null())
                        .map(|v| side(key, v))
                        .transpose()
                };
                let (shortest, longest) = (side("shortest_edge")?, side("longest_edge")?);
                if let (Some(width), Some(height)) = (side("max_width")?, side("max_height")?) {
                    return Ok(Size::Within { width, height });
                }
                match (shortest, longest, side("height")?, side("width")?) {
                    (Some(shortest), Some(longest), ..) => Ok(Size::Between { shortest, longest }),
                    (Some(shortest), None, ..) => Ok(Size::Shortest(shortest)),
                    (None, None, Some(height), Some(width)) => Ok(Size::Exact { width, height }),
                    _ => Err(Error::unsupported(format!(
                        "size {v}; height and width, shortest_edge, or shortest_edge and longest_edge are served"
                    ))),
                }
            }
            Value::Array(a) if a.len() == 2 => Ok(Size::Exact {
                height: side("size", &a[0])?,
                width: side("size", &a[1])?,
            }),
            v => side("size", v).map(|s| {
                if class.square {
                    square(s)
                } else {
                    Size::Shortest(s)
                }
            }),
        }
    }

    /// Width and height.
    fn crop(&self, class: &Class) -> Result<(usize, usize)> {
        let Some(v) = self.get("crop_size") else {
            return class.crop.map(|s| (s, s)).ok_or_else(|| {
                Error::invalid("do_center_crop is true, but there is no crop_size; add it")
            });
        };
        match v {
            Value::Object(_) => height_width("crop_size", v),
            Value::Array(a) if a.len() == 2 => {
                Ok((side("crop_size", &a[1])?, side("crop_size", &a[0])?))
            }
            v => side("crop_size", v).map(|s| (s, s)),
        }
    }

    fn normalize(&self, class: &Class, reference: Reference) -> Result<Normalize> {
        let factor = self.number("rescale_factor", 1.0 / 255.0)?;
        let rescale = self.flag("do_rescale", true)?.then_some(factor);
        let mean = self.triple("image_mean", class.mean)?;
        let std = self.triple("image_std", class.std)?;
        let mean_std = self
            .flag("do_normalize", class.do_normalize)?
            .then_some((mean, std));
        if class.name != "EfficientNet" {
            return Normalize::new(rescale, mean_std, reference);
        }
        let normal = match self.flag("rescale_offset", false)? && rescale.is_some() {
            false => Normalize::new(rescale, mean_std, reference)?,
            // The offset cannot be fused: x·s − 1, then normalised.
            true => {
                let scaled = Normalize::new(rescale, None, reference)?;
                match mean_std {
                    None => scaled.then(|_, x| x - 1.0),
                    Some((mean, std)) => {
                        check_std(std)?;
                        scaled.then(|c, x| (x - 1.0 - mean[c] as f32) / std[c] as f32)
                    }
                }
            }
        };
        // Classifiers are normalised once more, by the deviation alone.
        if !self.flag("include_top", true)? {
            return Ok(normal);
        }
        check_std(std)?;
        Ok(normal.then(|c, x| x / std[c] as f32))
    }
}

/// The width and height of an object that has both.
fn height_width(key: &str, v: &Value) -> Result<(usize, usize)> {
    match (v.get("height"), v.get("width")) {
        (Some(h), Some(w)) => Ok((side("width", w)?, side("height", h)?)),
        _ => Err(Error::invalid(format!(
            "{key} has height and width, got {v}"
        ))),
    }
}

/// A width or height in pixels.
fn side(key: &str, v: &Value) -> Result<usize> {
    let n = v
        .as_u64()
        .filter(|&n| n > 0)
        .ok_or_else(|| Error::invalid(format!("{key} is a whole number of at least 1, got {v}")))?;
    if n > MAX_SIDE {
        return Err(Error::Limit {
            what: "pixels of a side in a processor's configuration",
            max: MAX_SIDE,
            got: n,
        });
    }
    Ok(n as usize)
}

fn kind(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object without an object under image_processor",
    }
}
