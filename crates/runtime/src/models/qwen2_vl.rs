//! Qwen2-VL: Qwen2 with positions along time, height and width, and a vision tower.
//!
//! Wang et al. 2024; reference `transformers/models/qwen2_vl/modeling_qwen2_vl.py` 5.23.0; GGUF architecture `qwen2vl`. Checked on the
//! `qwen2_vl` fixture.

use super::decoder::{self, Config, Defaults};
use super::qwen_vision::{QwenVision, Style};
use super::towers::WithTowers;
use super::{CausalLm, MediaKind};
use crate::checkpoint::{Checkpoint, Config as Source};
use crate::loader::LoadProgress;
use crate::{Error, Result};
use firelight_kernels::Device;

/// Loads a checkpoint; see [`super::load`].
pub(super) fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn CausalLm>> {
    let config = match checkpoint.config()? {
        Source::Json(config) => config,
        // The tower is in a file of its own: see `checkpoint::projector`.
        Source::Gguf(metadata) => {
            let mut decoder = Config::from_gguf(checkpoint, metadata, "qwen2vl")?;
            (decoder.qkv_bias, decoder.o_bias) = (true, false);
            return decoder::load(decoder, checkpoint, device, progress);
        }
    };
    // Published configurations have the text model's numbers at the top, newer ones apart.
    let text = config.get("text_config").unwrap_or(config);
    let defaults = Defaults {
        max_position_embeddings: 32_768,
        rms_norm_eps: 1e-5,
        rope_theta: 1e6,
        head_dim: None,
        partial_rotary: false,
    };
    let mut decoder = Config::from_json(text, "qwen2_vl", &defaults)?;
    decoder.read_windows(text)?;
    (decoder.qkv_bias, decoder.o_bias) = (true, false);
    if decoder.ropes.iter().all(|rope| rope.axes.is_empty()) {
        return Err(Error::malformed(
            "config.json",
            "`mrope_section` is missing in the rope scaling",
        ));
    }
    let hidden = decoder.hidden_size;
    let text = decoder::load(decoder, checkpoint, device, progress)?;
    let tower = QwenVision::load(checkpoint, config, Style::Qwen2Vl, hidden, device, progress)?;
    Ok(Box::new(WithTowers {
        text,
        towers: vec![(MediaKind::Image, Box::new(tower))],
    }))
}
