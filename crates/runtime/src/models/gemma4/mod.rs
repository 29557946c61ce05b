//! Gemma 4, the text model: E2B and E4B with per-layer embeddings and shared keys and values, 31B, and 26B-A4B with a mixture of
//! experts.
//!
//! Gemma Team 2026; reference `transformers/models/gemma4/modeling_gemma4.py` 5.23.0; GGUF architecture `gemma4` as llama.cpp
//! writes it. Checked on the text cases of the `gemma4` and `gemma4_large` fixtures.

mod config;
mod text;

use super::CausalLm;
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::loader::LoadProgress;
use config::Config;
use firelight_kernels::Device;

/// Loads a checkpoint; see [`super::load`].
pub(super) fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn CausalLm>> {
    let config = Config::read(checkpoint)?;
    config.check()?;
    text::load(config, checkpoint, device, progress)
}
