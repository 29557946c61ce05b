//! Gemma 4: E2B and E4B with per-layer embeddings and shared keys and values, 31B, and 26B-A4B with a mixture of experts. With an
//! image processor beside the weights pictures are read, too.
//!
//! Gemma Team 2026; reference `transformers/models/gemma4/modeling_gemma4.py` 5.23.0; GGUF architecture `gemma4` (text) as llama.cpp
//! writes it. Checked on the `gemma4` and `gemma4_large` fixtures.

#[cfg(feature = "vision")]
mod clipped;
mod config;
mod text;
#[cfg(feature = "vision")]
pub(super) mod vision;

use super::CausalLm;
#[cfg(feature = "vision")]
use super::{MediaKind, pictures::Pictures, towers::WithTowers};
use crate::Result;
use crate::checkpoint::Checkpoint;
#[cfg(feature = "vision")]
use crate::checkpoint::Config as Source;
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
    #[cfg(feature = "vision")]
    if let Source::Json(json) = checkpoint.config()?
        && json.get("vision_config").is_some_and(|v| v.is_object())
        && Pictures::are_there(checkpoint)?
    {
        let hidden = config.hidden_size;
        let mutual = match config.mutual_pictures {
            true => vision::MOST_TOKENS,
            false => 0,
        };
        let text = text::load(config, checkpoint, device, mutual, progress)?;
        let tower = vision::Vision::load(checkpoint, json, hidden, device, progress)?;
        return Ok(Box::new(WithTowers {
            text,
            towers: vec![(MediaKind::Image, Box::new(tower))],
        }));
    }
    #[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
    if checkpoint.projector().is_some_and(|p| p.mutual) {
        return text::load(config, checkpoint, device, vision::MOST_TOKENS, progress);
    }
    text::load(config, checkpoint, device, 0, progress)
}
