//! Qwen3, the dense ones: Llama whose queries and keys are normalised head by head before they are rotated.
//!
//! Qwen Team 2025; reference `transformers/models/qwen3/modeling_qwen3.py` 5.23.0; GGUF architecture `qwen3` as llama.cpp writes it
//! (rows as upstream's). Checked on the `qwen3` fixture.

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
                head_dim: Some(128),
                partial_rotary: false,
            };
            let mut config = Config::from_json(value, "qwen3", &defaults)?;
            config.read_windows(value)?;
            config
        }
        Source::Gguf(metadata) => Config::from_gguf(checkpoint, metadata, "qwen3")?,
    };
    config.qk_norm = true;
    decoder::load(config, checkpoint, device, progress)
}
