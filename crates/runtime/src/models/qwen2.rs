//! Qwen2 and Qwen2.5: Llama with biases on queries, keys and values.
//!
//! Qwen Team 2024; reference `transformers/models/qwen2/modeling_qwen2.py` 5.23.0; GGUF architecture `qwen2` as llama.cpp writes it
//! (rows as upstream's). Checked on the `qwen2` fixture.

use super::CausalLm;
use super::decoder::{self, Config, Defaults};
use crate::Result;
use crate::checkpoint::{Checkpoint, Config as Source};
use crate::loader::LoadProgress;
use firelight_kernels::Device;

/// Loads a checkpoint; see [`super::load`].
pub(super) fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn CausalLm>> {
    let mut config = match checkpoint.config()? {
        Source::Json(value) => {
            let defaults = Defaults {
                max_position_embeddings: 32_768,
                rms_norm_eps: 1e-6,
                rope_theta: 1e4,
                head_dim: None,
                partial_rotary: false,
            };
            let mut config = Config::from_json(value, "qwen2", &defaults)?;
            config.read_windows(value)?;
            config
        }
        Source::Gguf(metadata) => Config::from_gguf(checkpoint, metadata, "qwen2")?,
    };
    (config.qkv_bias, config.o_bias) = (true, false);
    decoder::load(config, checkpoint, device, progress)
}
