//! SmolVLM and Idefics3: a SigLIP tower over tiles of a picture, a pixel shuffle, a Llama.
//!
//! Laurençon et al. 2024 (Idefics3), Marafioti et al. 2025 (SmolVLM); reference `transformers/models/smolvlm/modeling_smolvlm.py` and
//! `processing_smolvlm.py` 5.23.0. A picture is cut into square tiles and seen once more as a whole; each tile becomes as many tokens as the
//! pixel shuffle leaves of its patches. Checked on the `smolvlm` fixture and on firelight-spark.

pub(super) mod vision;

use super::decoder::{self, Config, Defaults};
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
    let Source::Json(config) = checkpoint.config()? else {
        return Err(Error::Unsupported(
            "a SmolVLM in a GGUF file; take the model's folder with safetensors".into(),
        ));
    };
    let missing = |key: &str| Error::malformed("config.json", format!("`{key}` is missing"));
    let text = config
        .get("text_config")
        .ok_or_else(|| missing("text_config"))?;
    let defaults = Defaults {
        max_position_embeddings: 2048,
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        head_dim: None,
        partial_rotary: false,
    };
    let decoder = Config::from_json(text, "smolvlm", &defaults)?;
    let hidden = decoder.hidden_size;
    let text = decoder::load(decoder, checkpoint, device, progress)?;
    let tower = vision::Vision::load(checkpoint, config, hidden, device, progress)?;
    Ok(Box::new(WithTowers {
        text,
        towers: vec![(MediaKind::Image, Box::new(tower))],
    }))
}
