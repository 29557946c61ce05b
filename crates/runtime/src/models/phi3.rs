//! Phi-3, Phi-3.5 mini and Phi-4 mini: Llama with `qkv_proj` and `gate_up_proj` as one matrix each, a sliding window on every
//! layer, and LongRoPE.
//!
//! Abdin et al. 2024, Ding et al. 2024 (LongRoPE); reference `transformers/models/phi3/modeling_phi3.py` 5.23.0: one set of
//! rotary divisors for sequences up to the original context, another beyond, and at the switch everything cached is computed
//! again. GGUF architecture `phi3` as llama.cpp writes it, the divisors as tensors. Checked on the `phi3` and `phi3_longrope`
//! fixtures.

use super::CausalLm;
use super::decoder::{self, Config, Defaults};
use crate::checkpoint::{Checkpoint, Config as Source, Fields};
use crate::loader::{LoadProgress, Loader};
use crate::rope::{Scaling, long_amplitude};
use crate::{Error, Result};
use firelight_kernels::Device;
use firelight_tensor::gguf::Metadata;
use serde_json::Value;

/// Loads a checkpoint; see [`super::load`].
pub(super) fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn CausalLm>> {
    let mut config = match checkpoint.config()? {
        Source::Json(value) => from_json(value)?,
        Source::Gguf(metadata) => from_gguf(checkpoint, device, metadata)?,
    };
    config.fused = true;
    decoder::load(config, checkpoint, device, progress)
}

fn from_json(value: &Value) -> Result<Config> {
    let defaults = Defaults {
        max_position_embeddings: 4096,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        head_dim: None,
        partial_rotary: true,
    };
    let mut config = Config::from_json(value, "phi3", &defaults)?;
    if let Some(window) = Fields(value).maybe_size("sliding_window")? {
        config.windows.fill(window as u32);
    }
    Ok(config)
}

fn from_gguf(checkpoint: &Checkpoint, device: &Device, m: &Metadata) -> Result<Config> {
    let mut config = Config::from_gguf(checkpoint, m, "phi3")?;
    if let Some(window) = m.get_as::<u32>("phi3.attention.sliding_window")? {
        config.windows.fill(window);
    }
    let mut quiet = |_, _| ();
    let mut l = Loader::new(checkpoint, device, decoder::gguf_name, &mut quiet);
    if l.has("rope_factors_long.weight") {
        let pairs = [config.ropes[0].dims / 2];
        let original = m.require::<u32>("phi3.rope.scaling.original_context_length")?;
        if original == 0 {
            return Err(Error::malformed(
                "GGUF metadata",
                "`phi3.rope.scaling.original_context_length` is 0",
            ));
        }
        let ratio = config.max_position_embeddings as f64 / f64::from(original);
        let amplitude = m.get_as::<f32>("phi3.rope.scaling.attn_factor")?;
        config.ropes[0].scaling = Scaling::Long {
            short: l.host("rope_factors_short.weight", &pairs)?,
            long: l.host("rope_factors_long.weight", &pairs)?,
            original_context: original as usize,
            amplitude: amplitude
                .map_or_else(|| long_amplitude(ratio, f64::from(original)), f64::from),
        };
    }
    Ok(config)
}
