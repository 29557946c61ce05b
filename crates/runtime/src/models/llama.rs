//! Llama: Llama 2, Llama 3.x, SmolLM2, TinyLlama and whatever else says `model_type: llama`.
//!
//! Touvron et al. 2023; reference `transformers/models/llama/modeling_llama.py` 5.23.0; GGUF as llama.cpp writes it (query and
//! key rows permuted, so that neighbours turn together). Checked on the `llama` and `llama2` fixtures and SmolLM2-135M.

use super::CausalLm;
use super::decoder::{self, Config, Defaults};
use crate::Result;
use crate::checkpoint::{Checkpoint, Config as Source};
use crate::loader::LoadProgress;
use firelight_kernels::Device;
use firelight_kernels::rope_kv::Pairing;

/// Loads a checkpoint; see [`super::load`].
pub(super) fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn CausalLm>> {
    let config = match checkpoint.config()? {
        Source::Json(value) => {
            let defaults = Defaults {
                max_position_embeddings: 2048,
                rms_norm_eps: 1e-6,
                rope_theta: 1e4,
                head_dim: None,
                partial_rotary: false,
            };
            Config::from_json(value, "llama", &defaults)?
        }
        Source::Gguf(metadata) => Config {
            pairing: Pairing::Adjacent,
            ..Config::from_gguf(checkpoint, metadata, "llama")?
        },
    };
    decoder::load(config, checkpoint, device, progress)
}
