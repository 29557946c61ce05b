//! Rotary position tables for the scalings of the model families.
//!
//! The angle of pair `i` at position `p` is `p · f_i`, `f_i = theta^(−2i/dims)` before scaling; like the reference, frequencies
//! and angles are rounded to f32 and the functions taken of that. Source: `modeling_rope_utils.py` of transformers.

use crate::{Error, Result};
use firelight_tensor::gguf::Metadata;
use serde_json::Value;

/// How the plain frequencies are changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// All divided by a factor.
    Linear(f64),
    /// Llama 3: long wavelengths divided by `factor`, short ones kept, a blend in between.
    Llama3 {
        /// Divisor of long wavelengths.
        factor: f64,
        /// Wavelengths above `original_context / low` are long.
        low: f64,
        /// Wavelengths below `original_context / high` are short.
        high: f64,
        /// The context the model was first trained on.
        original_context: f64,
    },
    /// Each frequency divided by its own factor (GGUF's `rope_freqs`).
    Factors(Vec<f32>),
    /// Only the first pairs turn, with the exponents of the whole head; the others stay (Gemma 4's full layers).
    Proportional {
        /// Pairs that turn.
        pairs: usize,
        /// Divisor of their frequencies.
        factor: f64,
    },
    /// LongRoPE: a divisor per pair, other ones for sequences longer than the original context, which makes the keys cached
    /// before void; see [`crate::cache::Cache::span`].
    Long {
        /// Divisors for sequences of up to `original_context` positions.
        short: Vec<f32>,
        /// Divisors for longer ones.
        long: Vec<f32>,
        /// The context the model was first trained on.
        original_context: usize,
        /// Factor of cosines and sines, whatever the length.
        amplitude: f64,
    },
}

/// A rotary embedding: which dimensions turn, how fast.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Dimensions that turn (twice the number of pairs).
    pub dims: usize,
    /// Change of the frequencies.
    pub scaling: Scaling,
    /// For each pair the axis whose position turns it: 0 time, 1 height, 2 width. Empty: all by the token's position.
    pub axes: Vec<u8>,
}

/// Positions along time, height and width of a sequence's tokens: pictures are not one behind the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Places {
    given: Vec<[u32; 3]>,
    shift: i64,
}

impl Places {
    /// The positions of the first tokens; those that follow go on behind the largest.
    pub fn new(given: Vec<[u32; 3]>) -> Self {
        let next = given
            .iter()
            .flatten()
            .max()
            .map_or(0, |&p| i64::from(p) + 1);
        let shift = next - given.len() as i64;
        // Places that say nothing are the default, so that there is nothing to write.
        let plain = given
            .iter()
            .enumerate()
            .all(|(i, p)| p.iter().all(|&x| x as usize == i));
        match plain {
            true => Places::default(),
            false => Places { given, shift },
        }
    }

    /// What is added to a token's index to get its position, behind the given ones.
    pub fn shift(&self) -> i64 {
        self.shift
    }

    /// The positions of token `index`.
    pub fn at(&self, index: usize) -> [u32; 3] {
        let beyond = (index as i64 + self.shift).max(0) as u32;
        self.given.get(index).copied().unwrap_or([beyond; 3])
    }
}

/// Which axis turns each pair, by the `mrope_section` of a config: sections one after the other (Qwen2-VL), or height and width in every
/// third pair each (`mrope_interleaved`, Qwen3.5).
fn axes(config: &Value, v: Option<&Value>, pairs: usize) -> Result<Vec<u8>> {
    let Some(list) = v
        .and_then(|v| v.get("mrope_section"))
        .and_then(Value::as_array)
    else {
        return Ok(Vec::new());
    };
    let sections: Vec<usize> = list
        .iter()
        .filter_map(|n| n.as_u64().map(|n| n as usize))
        .collect();
    let wrong = || {
        Error::malformed(
            "config.json",
            format!(
                "`mrope_section` is {}; expected three numbers whose sum is {pairs}",
                Value::from(list.clone())
            ),
        )
    };
    let [time, height, width] = sections[..] else {
        return Err(wrong());
    };
    if [time, height, width].iter().any(|&n| n > pairs) || time + height + width != pairs {
        return Err(wrong());
    }
    let flag = |v: &Value| v.get("mrope_interleaved").and_then(Value::as_bool);
    let interleaved = v.and_then(flag).or_else(|| flag(config)).unwrap_or(false);
    Ok(axes_of([time, height, width], interleaved))
}

/// The axis of each pair.
fn axes_of([time, height, width]: [usize; 3], interleaved: bool) -> Vec<u8> {
    (0..time + height + width)
        .map(|i| match (interleaved, i % 3) {
            (true, 1) if i < 3 * height => 1,
            (true, 2) if i < 3 * width => 2,
            (true, _) => 0,
            (false, _) if i < time => 0,
            (false, _) => 1 + u8::from(i >= time + height),
        })
        .collect()
}

/// The same of a GGUF's `rope.dimension_sections`: `time, height, width, 0`, whose sum is `pairs`. Empty without that key.
///
/// # Errors
/// `Malformed` if they are other numbers.
pub(crate) fn gguf_axes(
    m: &Metadata,
    arch: &str,
    pairs: usize,
    interleaved: bool,
) -> Result<Vec<u8>> {
    let key = format!("{arch}.rope.dimension_sections");
    let Some(list) = m.get_array_i32(&key)? else {
        return Ok(Vec::new());
    };
    let sections: Vec<usize> = list
        .iter()
        .map(|&n| usize::try_from(n).unwrap_or(usize::MAX))
        .collect();
    match sections[..] {
        [t, h, w] | [t, h, w, 0] if [t, h, w].iter().all(|&n| n <= pairs) && t + h + w == pairs => {
            Ok(axes_of([t, h, w], interleaved))
        }
        _ => Err(Error::malformed(
            key,
            format!("{sections:?}; expected three numbers whose sum is {pairs}, and 0"),
        )),
    }
}

impl Rope {
    /// One that turns nothing: for models whose positions are learned.
    pub fn identity() -> Rope {
        Rope {
            theta: 1.0,
            dims: 2,
            scaling: Scaling::Proportional {
                pairs: 0,
                factor: 1.0,
            },
            axes: Vec::new(),
        }
    }

    /// Reads the published (`rope_theta`, `rope_scaling`) or the newer (`rope_parameters`) spelling of a config. `kind` picks the
    /// entry of a `rope_parameters` that has one per layer type.
    ///
    /// # Errors
    /// `Unsupported` for a scaling this version does not know, `Malformed` for a missing number.
    pub fn from_config(
        config: &Value,
        kind: Option<&str>,
        theta_key: &str,
        default_theta: f64,
        dims: usize,
    ) -> Result<Rope> {
        let new = parameters(config, kind);
        let old = config.get("rope_scaling").filter(|v| v.is_object());
        let theta = new
            .and_then(|v| v.get("rope_theta"))
            .or_else(|| config.get(theta_key))
            .and_then(Value::as_f64)
            .unwrap_or(default_theta);
        if !(theta.is_finite() && theta > 0.0) {
            return Err(Error::malformed(
                "config.json",
                format!("`{theta_key}` is {theta}; expected a positive number"),
            ));
        }
        let scaling = match new.or(old) {
            Some(v) => Self::scaling(config, v, dims)?,
            None => Scaling::None,
        };
        Ok(Rope {
            theta,
            dims,
            scaling,
            axes: axes(config, new.or(old), dims / 2)?,
        })
    }

    fn scaling(config: &Value, v: &Value, dims: usize) -> Result<Scaling> {
        let kind = v.get("rope_type").or_else(|| v.get("type"));
        let kind = match kind.and_then(Value::as_str) {
            Some(kind) => kind,
            // Newer configs always have the object; without a type only the base may be in it.
            None => match v.as_object().into_iter().flatten().find(|(key, _)| {
                !matches!(
                    key.as_str(),
                    "rope_theta" | "partial_rotary_factor" | "mrope_section" | "mrope_interleaved"
                )
            }) {
                None => "default",
                Some((key, _)) => {
                    return Err(Error::malformed(
                        "config.json",
                        format!("the rope scaling has `{key}` and no `rope_type`"),
                    ));
                }
            },
        };
        let maybe = |key: &str| {
            v.get(key)
                .or_else(|| config.get(key).filter(|_| key.ends_with("_embeddings")))
                .and_then(Value::as_f64)
                .filter(|n| n.is_finite() && *n > 0.0)
        };
        let number = |key: &str| {
            maybe(key).ok_or_else(|| {
                Error::malformed(
                    "config.json",
                    format!("rope scaling `{kind}` needs a positive `{key}`"),
                )
            })
        };
        match kind {
            "default" | "mrope" => Ok(Scaling::None),
            "linear" => Ok(Scaling::Linear(number("factor")?)),
            "llama3" => Ok(Scaling::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original_context: number("original_max_position_embeddings")?,
            }),
            "proportional" => {
                let part = maybe("partial_rotary_factor").unwrap_or(1.0).min(1.0);
                Ok(Scaling::Proportional {
                    pairs: (part * dims as f64 / 2.0) as usize,
                    factor: maybe("factor").unwrap_or(1.0),
                })
            }
            "longrope" | "su" => {
                let original = number("original_max_position_embeddings")?;
                let ratio = match maybe("factor") {
                    Some(factor) => factor,
                    None => number("max_position_embeddings")? / original,
                };
                let list = |key: &str| divisors(v, key, dims / 2);
                Ok(Scaling::Long {
                    short: list("short_factor")?,
                    long: list("long_factor")?,
                    original_context: original as usize,
                    amplitude: maybe("attention_factor")
                        .unwrap_or_else(|| long_amplitude(ratio, original)),
                })
            }
            other => Err(Error::Unsupported(format!(
                "rope scaling `{other}`; this version knows default, linear, llama3, longrope, proportional"
            ))),
        }
    }

    /// The length up to which the cached keys of shorter sequences hold; `None`: any.
    pub fn switch(&self) -> Option<usize> {
        match &self.scaling {
            Scaling::Long {
                original_context, ..
            } => Some(*original_context),
            _ => None,
        }
    }

    /// The frequency of each pair in sequences of `length` positions.
    pub fn frequencies(&self, length: usize) -> Vec<f32> {
        let plain =
            (0..self.dims / 2).map(|i| self.theta.powf(-((2 * i) as f64) / self.dims as f64));
        let scaled = plain.enumerate().map(|(i, f)| match &self.scaling {
            Scaling::None => f,
            Scaling::Linear(factor) => f / factor,
            Scaling::Factors(factors) => f / factors.get(i).map_or(1.0, |&x| f64::from(x)),
            Scaling::Proportional { pairs, factor } => match i < *pairs {
                true => f / factor,
                false => 0.0,
            },
            Scaling::Long {
                short,
                long,
                original_context,
                ..
            } => {
                let factors = if length > *original_context {
                    long
                } else {
                    short
                };
                f / factors.get(i).map_or(1.0, |&x| f64::from(x))
            }
            Scaling::Llama3 {
                factor,
                low,
                high,
                original_context,
            } => {
                let wavelength = std::f64::consts::TAU / f;
                if wavelength < original_context / high {
                    f
                } else if wavelength > original_context / low {
                    f / factor
                } else {
                    let blend = (original_context / wavelength - low) / (high - low);
                    (1.0 - blend) * f / factor + blend * f
                }
            }
        });
        scaled.map(|f| f as f32).collect()
    }

    /// Cosine and sine of every pair at positions `0..positions` of a sequence of `length`: f32 `[positions, dims / 2, 2]`.
    pub fn table(&self, positions: usize, length: usize) -> Vec<f32> {
        self.table_at(positions, length, &Places::default())
    }

    /// The same for tokens that are at `places`.
    pub fn table_at(&self, positions: usize, length: usize, places: &Places) -> Vec<f32> {
        let frequencies = self.frequencies(length);
        let amplitude = match &self.scaling {
            Scaling::Long { amplitude, .. } => *amplitude,
            _ => 1.0,
        };
        let mut table = Vec::with_capacity(positions * self.dims);
        for token in 0..positions {
            let place = places.at(token);
            for (i, f) in frequencies.iter().enumerate() {
                let axis = self.axes.get(i).map_or(0, |&a| usize::from(a).min(2));
                let angle = f64::from(place[axis] as f32 * f);
                table.push((angle.cos() * amplitude) as f32);
                table.push((angle.sin() * amplitude) as f32);
            }
        }
        table
    }
}

/// The newer spelling's object, of a layer type if there is one per type.
fn parameters<'a>(config: &'a Value, kind: Option<&str>) -> Option<&'a Value> {
    let all = config.get("rope_parameters").filter(|v| v.is_object())?;
    Some(kind.and_then(|k| all.get(k)).unwrap_or(all))
}

/// The share of a head's dimensions that turn, in either spelling; 1 if none is given.
///
/// # Errors
/// `Malformed` unless it is in `0 ..= 1`.
pub fn partial_rotary_factor(config: &Value, kind: Option<&str>) -> Result<f64> {
    let key = "partial_rotary_factor";
    let given = parameters(config, kind)
        .and_then(|v| v.get(key))
        .or_else(|| config.get(key))
        .filter(|v| !v.is_null());
    match given.map(|v| (v, v.as_f64())) {
        None => Ok(1.0),
        Some((_, Some(part))) if part > 0.0 && part <= 1.0 => Ok(part),
        Some((v, _)) => Err(Error::malformed(
            "config.json",
            format!("`{key}` is {v}; expected a number up to 1"),
        )),
    }
}

/// The factor of cosines and sines that LongRoPE's authors give for a context `ratio` times the original one.
pub fn long_amplitude(ratio: f64, original_context: f64) -> f64 {
    if ratio <= 1.0 || original_context <= 1.0 {
        return 1.0;
    }
    (1.0 + ratio.ln() / original_context.ln()).sqrt()
}

/// A list of one positive number per pair.
fn divisors(v: &Value, key: &str, pairs: usize) -> Result<Vec<f32>> {
    let list = v.get(key).and_then(Value::as_array);
    let numbers: Vec<f32> = list
        .into_iter()
        .flatten()
        .filter_map(|n| n.as_f64().map(|n| n as f32))
        .filter(|n| n.is_finite() && *n > 0.0)
        .collect();
    if numbers.len() != pairs || list.is_some_and(|l| l.len() != pairs) {
        return Err(Error::malformed(
            "config.json",
            format!(
                "`{key}` must have {pairs} positive numbers, one for each pair of dimensions that turns"
            ),
        ));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn llama(config: &Value) -> Rope {
        Rope::from_config(config, None, "rope_theta", 1e4, 16).expect("valid")
    }

    #[test]
    fn old_and_new_spelling_say_the_same() {
        let scaling = json!({"rope_type": "llama3", "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 128});
        let old = json!({"rope_theta": 5e5, "rope_scaling": scaling});
        let mut new = scaling.clone();
        new["rope_theta"] = json!(5e5);
        assert_eq!(llama(&old), llama(&json!({"rope_parameters": new})));
        assert_eq!(llama(&json!({"rope_scaling": null})).scaling, Scaling::None);
    }

    #[test]
    fn llama3_keeps_short_wavelengths_and_stretches_long_ones() {
        let rope = Rope {
            theta: 5e5,
            dims: 64,
            scaling: Scaling::Llama3 {
                factor: 8.0,
                low: 1.0,
                high: 4.0,
                original_context: 8192.0,
            },
            axes: Vec::new(),
        };
        let (scaled, plain) = (
            rope.frequencies(1),
            Rope {
                scaling: Scaling::None,
                ..rope
            }
            .frequencies(1),
        );
        assert_eq!(scaled[0], plain[0]);
        assert!((scaled[31] * 8.0 / plain[31] - 1.0).abs() < 1e-6);
        assert!(scaled.windows(2).all(|w| w[0] > w[1]));
    }

    #[test]
    fn unknown_and_incomplete_scalings_are_named() {
        let bad = json!({"rope_scaling": {"type": "yarn", "factor": 2.0}});
        let error = Rope::from_config(&bad, None, "rope_theta", 1e4, 16).expect_err("unknown");
        assert!(error.to_string().contains("yarn"));
        for (bad, named) in [
            (json!({"rope_scaling": {"type": "linear"}}), "`factor`"),
            (json!({"rope_scaling": {"factor": 2.0}}), "`rope_type`"),
            (json!({"rope_theta": -1.0}), "`rope_theta`"),
            (
                json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]},
                    "max_position_embeddings": 64}),
                "`original_max_position_embeddings`",
            ),
            (
                json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]},
                    "max_position_embeddings": 64, "original_max_position_embeddings": 32}),
                "`short_factor`",
            ),
        ] {
            let error = Rope::from_config(&bad, None, "rope_theta", 1e4, 16).expect_err("refused");
            assert!(error.to_string().contains(named), "{named}: {error}");
        }
        let plain = json!({"rope_parameters": {"rope_theta": 5.0}});
        assert_eq!(llama(&plain).scaling, Scaling::None);
    }

    #[test]
    fn longrope_changes_beyond_the_original_context_and_not_at_it() {
        let config = json!({"max_position_embeddings": 256, "original_max_position_embeddings": 16,
            "rope_scaling": {"type": "su", "short_factor": [1.0, 2.0], "long_factor": [4.0, 8.0]}});
        let rope = Rope::from_config(&config, None, "rope_theta", 1e4, 4).expect("valid");
        assert_eq!(rope.switch(), Some(16));
        assert_eq!(rope.frequencies(16), [1.0, 0.005]);
        assert_eq!(rope.frequencies(17), [0.25, 0.00125]);
        // sqrt(1 + ln 16 / ln 16)
        assert_eq!(rope.table(1, 1)[0], 2f32.sqrt());
    }

    #[test]
    fn proportional_keeps_the_whole_heads_exponents() {
        let config = json!({"rope_parameters": {"full": {"rope_type": "proportional", "rope_theta": 1e4,
            "partial_rotary_factor": 0.25}}});
        let rope = Rope::from_config(&config, Some("full"), "rope_theta", 1.0, 16).expect("valid");
        let plain = llama(&json!({})).frequencies(1);
        let found = rope.frequencies(1);
        assert_eq!(found[..2], plain[..2]);
        assert!(found[2..].iter().all(|&f| f == 0.0));
        assert!(
            Rope::identity()
                .table(9, 9)
                .chunks(2)
                .all(|c| c == [1.0, 0.0])
        );
    }
}
