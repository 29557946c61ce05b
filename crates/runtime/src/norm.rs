//! Layer norms of a checkpoint.

use crate::Result;
use crate::loader::Loader;
use firelight_kernels::{Array, Recorder, add_layer_norm, layer_norm};

/// A layer norm's weight, bias and constant.
pub struct LayerNorm {
    /// `[D]`.
    pub weight: Array,
    /// `[D]`, if the model has one.
    pub bias: Option<Array>,
    /// Added to the variance.
    pub eps: f32,
}

impl Loader<'_> {
    /// The layer norm `name` over `n` elements: `name.weight` and, if there is one, `name.bias`; old checkpoints call them
    /// `gamma` and `beta`.
    ///
    /// # Errors
    /// As [`Loader::weight`].
    pub fn layer_norm(&mut self, name: &str, n: usize, eps: f32) -> Result<LayerNorm> {
        let old = !self.has(&format!("{name}.weight")) && self.has(&format!("{name}.gamma"));
        let (weight, bias) = if old {
            ("gamma", "beta")
        } else {
            ("weight", "bias")
        };
        let weight = self.vector(&format!("{name}.{weight}"), n)?;
        let bias = match self.has(&format!("{name}.{bias}")) {
            true => Some(self.vector(&format!("{name}.{bias}"), n)?),
            false => None,
        };
        Ok(LayerNorm { weight, bias, eps })
    }
}

impl LayerNorm {
    /// Normalises the rows of `x`.
    ///
    /// # Errors
    /// As [`layer_norm::layer_norm`].
    pub fn forward(&self, rec: &mut Recorder, x: &Array) -> Result<Array> {
        let (w, b) = (&self.weight, self.bias.as_ref());
        Ok(layer_norm::layer_norm(rec, x, w, b, self.eps)?)
    }

    /// `h += x`, then the norm of `h`.
    ///
    /// # Errors
    /// As [`add_layer_norm::add_layer_norm`].
    pub fn add_forward(&self, rec: &mut Recorder, h: &Array, x: &Array) -> Result<Array> {
        let (w, b) = (&self.weight, self.bias.as_ref());
        Ok(add_layer_norm::add_layer_norm(rec, h, x, w, b, self.eps)?)
    }
}
