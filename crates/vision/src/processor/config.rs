//! `preprocessor_config.json` and the classes it can name.

use super::{ImageProcessor, Size};
use crate::normalize::check_std;
use crate::{Error, Filter, Normalize, Reference, Result};
use serde_json::{Map, Value};

/// The greatest width or height that a configuration may ask for.
const MAX_SIDE: u64 = 16384;

/// What a class does where the file is silent.
struct Class {
    name: &'static str,
    size: Size,
    /// Whether an old-style number for `size` means a square (else the shortest edge).
    square: bool,
    crop: Option<usize>,
    do_crop: bool,
    filter: Filter,
    mean: [f64; 3],
    std: [f64; 3],
    do_normalize: bool,
}

const HALF: [f64; 3] = [0.5; 3];
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// The simple family, with the class attributes of transformers 5.
const CLASSES: [Class; 9] = [
    class("ViT", square(224), Filter::Bilinear),
    Class {
        crop: Some(224),
        do_crop: true,
        ..class("DeiT", square(256), Filter::Bicubic)
    },
    clip_like("CLIP"),
    clip_like("Bit"),
    Class {
        square: false,
        ..class("Siglip", square(224), Filter::Bicubic)
    },
    mobilenet("MobileNetV1"),
    mobilenet("MobileNetV2"),
    Class {
        crop: Some(289),
        ..class("EfficientNet", square(346), Filter::Bicubic)
    },
    Class {
        square: false,
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
        do_normalize: false,
        ..class("RTDetr", square(640), Filter::Bilinear)
    },
];

const fn square(side: usize) -> Size {
    Size::Exact {
        width: side,
        height: side,
    }
}

const fn class(name: &'static str, size: Size, filter: Filter) -> Class {
    Class {
        name,
        size,
        square: true,
        crop: None,
        do_crop: false,
        filter,
        mean: HALF,
        std: HALF,
        do_normalize: true,
    }
}

const fn clip_like(name: &'static str) -> Class {
    Class {
        square: false,
        crop: Some(224),
        do_crop: true,
        mean: CLIP_MEAN,
        std: CLIP_STD,
        ..class(name, Size::Shortest(224), Filter::Bicubic)
    }
}

const fn mobilenet(name: &'static str) -> Class {
    Class {
        square: false,
        crop: Some(224),
        do_crop: true,
        ..class(name, Size::Shortest(256), Filter::Bilinear)
    }
}

pub(super) fn parse(json: &str) -> Result<ImageProcessor> {
    parse_as(json, None)
}

pub(super) fn parse_as(json: &str, reference: Option<Reference>) -> Result<ImageProcessor> {
    let value: Value = serde_json::from_str(json).map_err(|e| {
        let line_start = json
            .split_inclusive('\n')
            .take(e.line().saturating_sub(1))
            .map(str::len);
        let offset = line_start.sum::<usize>() + e.column().saturating_sub(1);
        Error::malformed("preprocessor_config.json", offset as u64, e.to_string())
    })?;
    let map = value
        .as_object()
        .and_then(|m| match m.get("image_processor") {
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
    if file.flag("do_pad", false)? {
        return Err(Error::unsupported(format!(
            "do_pad of {}: pad the batch yourself",
            class.name
        )));
    }
    let filter = match file.get("resample") {
        None => class.filter,
        Some(v) => v
            .as_u64()
            .and_then(Filter::from_pillow)
            .ok_or_else(|| Error::invalid(format!("resample is a number from 0 to 5, got {v}")))?,
    };
    let resize = match file.flag("do_resize", true)? {
        true => Some((file.size(class)?, filter)),
        false => None,
    };
    let crop = match file.flag("do_center_crop", class.do_crop)? {
        true => Some(file.crop(class)?),
        false => None,
    };
    Ok(ImageProcessor {
        reference,
        resize,
        crop,
        normalize: file.normalize(class, reference)?,
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
            Value::Object(m) => match (m.get("height"), m.get("width")) {
                (Some(h), Some(w)) => Ok((side("width", w)?, side("height", h)?)),
                _ => Err(Error::invalid(format!(
                    "crop_size has height and width, got {v}"
                ))),
            },
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

/// A width or height in pixels.
fn side(key: &str, v: &Value) -> Result<usize> {
    let n = v.as_u64().filter(|&n| n > 0).ok_or_else(|| {
        Error::invalid(format!(
            "{key} is a whole number of pixels of at least 1, got {v}"
        ))
    })?;
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
