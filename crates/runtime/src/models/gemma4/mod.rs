//! Gemma 4: E2B and E4B with per-layer embeddings and shared keys and values, 31B, and 26B-A4B with a mixture of experts. With an
//! image processor beside the weights pictures are read, too, with an audio one sounds (E2B, E4B).
//!
//! Gemma Team 2026; reference `transformers/models/gemma4/modeling_gemma4.py` 5.23.0; GGUF architecture `gemma4` (text) as llama.cpp
//! writes it. Checked on the `gemma4` and `gemma4_large` fixtures.

#[cfg(feature = "audio")]
mod audio;
#[cfg(any(feature = "vision", feature = "audio"))]
mod clipped;
mod config;
mod text;
#[cfg(feature = "vision")]
pub(super) mod vision;

use super::CausalLm;
#[cfg(feature = "vision")]
use super::pictures::Pictures;
#[cfg(any(feature = "vision", feature = "audio"))]
use super::{MediaKind, towers::WithTowers};
use crate::Result;
use crate::checkpoint::Checkpoint;
#[cfg(any(feature = "vision", feature = "audio"))]
use crate::checkpoint::Config as Source;
use crate::loader::LoadProgress;
#[cfg(any(feature = "vision", feature = "audio"))]
use crate::media::Tower;
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
    #[cfg(any(feature = "vision", feature = "audio"))]
    if let Source::Json(json) = checkpoint.config()? {
        let hidden = config.hidden_size;
        #[cfg_attr(not(feature = "vision"), allow(unused_mut))]
        let mut mutual = 0;
        let mut towers: Vec<(MediaKind, Box<dyn Tower>)> = Vec::new();
        let there = |part: &str| json.get(part).is_some_and(|v| v.is_object());
        #[cfg(feature = "vision")]
        if there("vision_config") && Pictures::are_there(checkpoint)? {
            let tower = vision::Vision::load(checkpoint, json, hidden, device, progress)?;
            towers.push((MediaKind::Image, Box::new(tower)));
            if config.mutual_pictures {
                mutual = vision::MOST_TOKENS;
            }
        }
        #[cfg(feature = "audio")]
        if there("audio_config")
            && checkpoint
                .weights()
                .names()
                .any(|n| n.contains("audio_tower."))
            && let Some(front) = audio::Audio::front(checkpoint)?
        {
            let tower = audio::Audio::load(checkpoint, (json, front), hidden, device, progress)?;
            towers.push((MediaKind::Audio, Box::new(tower)));
        }
        if !towers.is_empty() {
            let text = text::load(config, checkpoint, device, mutual, progress)?;
            return Ok(Box::new(WithTowers { text, towers }));
        }
    }
    #[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
    if checkpoint.projector().is_some_and(|p| p.mutual) {
        return text::load(config, checkpoint, device, vision::MOST_TOKENS, progress);
    }
    text::load(config, checkpoint, device, 0, progress)
}
