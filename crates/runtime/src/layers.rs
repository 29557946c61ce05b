//! Layers that every family has: their tensors, and how they are recorded. [`crate::loader::Loader`] makes them.

use crate::Result;
use firelight_kernels::act::Activation;
use firelight_kernels::{Array, Recorder, Weight, add_bias, linear, rms_norm};

/// A linear layer, with or without a bias.
pub struct Linear {
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Array>,
}

impl Linear {
    /// `x` `[T, K]` to `[T, N]`: the product, plus the bias if there is one.
    ///
    /// # Errors
    /// As [`linear::linear`].
    pub fn forward(&self, rec: &mut Recorder, x: &Array) -> Result<Array> {
        let y = linear::linear(rec, x, &self.weight)?;
        if let Some(bias) = &self.bias {
            add_bias::add_bias(rec, &y, bias)?;
        }
        Ok(y)
    }

    /// The product, the bias if there is one, and `act` of both: one pass less over the result than one after the other.
    ///
    /// # Errors
    /// As [`linear::linear`].
    pub fn forward_act(&self, rec: &mut Recorder, x: &Array, act: Activation) -> Result<Array> {
        let y = linear::linear(rec, x, &self.weight)?;
        firelight_kernels::act::act(rec, &y, self.bias.as_ref(), act)?;
        Ok(y)
    }
}

/// An RMSNorm's weight and constants.
pub struct RmsNorm {
    /// `[D]`.
    pub weight: Array,
    /// Added to the mean square.
    pub eps: f32,
    /// Added to the weight.
    pub offset: f32,
}

impl RmsNorm {
    /// Normalises the rows of `x`.
    ///
    /// # Errors
    /// As [`rms_norm::rms_norm`].
    pub fn forward(&self, rec: &mut Recorder, x: &Array) -> Result<Array> {
        Ok(rms_norm::rms_norm(
            rec,
            x,
            &self.weight,
            self.eps,
            self.offset,
        )?)
    }

    /// `h += x`, then the norm of `h`.
    ///
    /// # Errors
    /// As [`firelight_kernels::add_rms_norm::add_rms_norm`].
    pub fn add_forward(&self, rec: &mut Recorder, h: &Array, x: &Array) -> Result<Array> {
        let (w, eps, offset) = (&self.weight, self.eps, self.offset);
        Ok(firelight_kernels::add_rms_norm::add_rms_norm(
            rec, h, x, w, eps, offset,
        )?)
    }
}
