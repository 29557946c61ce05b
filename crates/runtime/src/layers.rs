//! Layers that every family has: their tensors, and how they are recorded. [`crate::loader::Loader`] makes them.

use crate::Result;
use firelight_kernels::act::Activation;
use firelight_kernels::{
    Array, Recorder, Weight, add_bias, gated_act, gated_linear, linear, linear_three, rms_norm,
};

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

    /// Three layers of the same `x`, with their biases.
    ///
    /// # Errors
    /// As [`linear_three::linear_three`].
    pub fn forward_three(
        rec: &mut Recorder,
        x: &Array,
        layers: [&Linear; 3],
    ) -> Result<[Array; 3]> {
        let ys = linear_three::linear_three(rec, x, layers.map(|l| &l.weight))?;
        for (y, layer) in ys.iter().zip(layers) {
            if let Some(bias) = &layer.bias {
                add_bias::add_bias(rec, y, bias)?;
            }
        }
        Ok(ys)
    }

    /// `act(gate(x)) · up(x)`.
    ///
    /// # Errors
    /// As [`gated_linear::gated_linear`].
    pub fn forward_gated(
        rec: &mut Recorder,
        x: &Array,
        gate: &Linear,
        up: &Linear,
        act: Activation,
    ) -> Result<Array> {
        if gate.bias.is_none() && up.bias.is_none() {
            return Ok(gated_linear::gated_linear(
                rec,
                x,
                &gate.weight,
                &up.weight,
                act,
            )?);
        }
        let (gate, up) = (gate.forward(rec, x)?, up.forward(rec, x)?);
        Ok(gated_act::gated_act(rec, &gate, &up, act)?)
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
