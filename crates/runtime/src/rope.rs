//! Rotary position tables for the scalings of the model families.
//!
//! The angle of pair `i` at position `p` is `p · f_i`, `f_i = theta^(−2i/dims)` before scaling; like the reference, frequencies
//! and angles are rounded to f32 and the functions taken of that. Source: `modeling_rope_utils.py` of transformers.

use crate::{Error, Result};
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
}

impl Rope {
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
        let new = config.get("rope_parameters").filter(|v| v.is_object());
        let new = new.map(|v| kind.and_then(|k| v.get(k)).unwrap_or(v));
        let old = config.get("rope_scaling").filter(|v| v.is_object());
        let theta = new
            .and_then(|v| v.get("rope_theta"))
            .or_else(|| config.get(theta_key))
            .and_then(Value::as_f64)
            .unwrap_or(default_theta);
        let scaling = match new.or(old) {
            Some(v) => Self::scaling(v)?,
            None => Scaling::None,
        };
        Ok(Rope {
            theta,
            dims,
            scaling,
        })
    }

    fn scaling(v: &Value) -> Result<Scaling> {
        let kind = v
            .get("rope_type")
            .or_else(|| v.get("type"))
            .and_then(Value::as_str)
            .unwrap_or("default");
        let number = |key: &str| {
            v.get(key)
                .and_then(Value::as_f64)
                .filter(|n| n.is_finite() && *n > 0.0)
                .ok_or_else(|| {
                    Error::malformed(
                        "config.json",
                        format!("rope scaling `{kind}` needs a positive `{key}`"),
                    )
                })
        };
        match kind {
            "default" => Ok(Scaling::None),
            "linear" => Ok(Scaling::Linear(number("factor")?)),
            "llama3" => Ok(Scaling::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original_context: number("original_max_position_embeddings")?,
            }),
            other => Err(Error::Unsupported(format!(
                "rope scaling `{other}`; this version knows default, linear, llama3"
            ))),
        }
    }

    /// The frequency of each pair.
    pub fn frequencies(&self) -> Vec<f32> {
        let plain =
            (0..self.dims / 2).map(|i| self.theta.powf(-((2 * i) as f64) / self.dims as f64));
        let scaled = plain.enumerate().map(|(i, f)| match &self.scaling {
            Scaling::None => f,
            Scaling::Linear(factor) => f / factor,
            Scaling::Factors(factors) => f / factors.get(i).map_or(1.0, |&x| f64::from(x)),
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

    /// Cosine and sine of every pair at positions `0..positions`: f32 `[positions, dims / 2, 2]`.
    pub fn table(&self, positions: usize) -> Vec<f32> {
        let frequencies = self.frequencies();
        let mut table = Vec::with_capacity(positions * self.dims);
        for p in 0..positions {
            for f in &frequencies {
                let angle = f64::from(p as f32 * f);
                table.push(angle.cos() as f32);
                table.push(angle.sin() as f32);
            }
        }
        table
    }
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
        };
        let (scaled, plain) = (
            rope.frequencies(),
            Rope {
                scaling: Scaling::None,
                ..rope
            }
            .frequencies(),
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
        let bad = json!({"rope_scaling": {"type": "linear"}});
        assert!(Rope::from_config(&bad, None, "rope_theta", 1e4, 16).is_err());
    }
}
