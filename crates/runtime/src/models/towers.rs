//! A language model with towers: what every multimodal family is.

#[cfg(not(target_arch = "wasm32"))]
use super::qwen_vision::{QwenVision, Style};
use super::{CausalLm, Inputs, Spec};
#[cfg(not(target_arch = "wasm32"))]
use super::{gemma4, smolvlm};
use crate::Result;
use crate::cache::Cache;
#[cfg(not(target_arch = "wasm32"))]
use crate::checkpoint::{Config as Source, Projector, ProjectorKind};
use crate::media::{MediaKind, Tower};
use firelight_kernels::{Array, DType, Device, Holder, Recorder};

/// A text model and what its pictures and sounds go through.
pub(super) struct WithTowers {
    pub text: Box<dyn CausalLm>,
    pub towers: Vec<(MediaKind, Box<dyn Tower>)>,
}

impl CausalLm for WithTowers {
    fn spec(&self) -> &Spec {
        self.text.spec()
    }

    fn tower(&self, kind: MediaKind) -> Option<&dyn Tower> {
        let found = self.towers.iter().find(|(k, _)| *k == kind);
        found.map(|(_, tower)| tower.as_ref())
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        inputs: Inputs<'_>,
        cache: &Cache,
    ) -> Result<Option<Array>> {
        self.text.forward(rec, inputs, cache)
    }
}

/// A text model of a GGUF file with the tower in the file beside it.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn projected(
    text: Box<dyn CausalLm>,
    projector: &Projector,
    device: &Device,
) -> Result<Box<dyn CausalLm>> {
    let (checkpoint, hidden) = (&projector.checkpoint, projector.hidden);
    let Source::Json(config) = checkpoint.config()? else {
        return Ok(text);
    };
    // Progress is told of the model's own file.
    let quiet = &mut |_, _| ();
    let tower: Box<dyn Tower> = match projector.kind {
        ProjectorKind::Idefics3 => Box::new(smolvlm::vision::Vision::load(
            checkpoint, config, hidden, device, quiet,
        )?),
        ProjectorKind::Qwen2Vl => Box::new(QwenVision::load(
            checkpoint,
            config,
            Style::Qwen2Vl,
            hidden,
            device,
            quiet,
        )?),
        ProjectorKind::Qwen3Vl => Box::new(QwenVision::load(
            checkpoint,
            config,
            Style::Qwen3,
            hidden,
            device,
            quiet,
        )?),
        ProjectorKind::Gemma4 => Box::new(gemma4::vision::Vision::load(
            checkpoint, config, hidden, device, quiet,
        )?),
    };
    Ok(Box::new(WithTowers {
        text,
        towers: vec![(MediaKind::Image, tower)],
    }))
}

/// Words made on the host, u32 in the given shape, for one recording.
pub(super) fn words(device: &Device, shape: &[usize], words: &[u32]) -> Result<Array> {
    let bytes = bytemuck::cast_slice(words);
    Ok(device.upload(DType::U32, shape, bytes, Holder::Activations)?)
}

/// Floats made on the host, f32 in the given shape, for one recording.
pub(super) fn floats(device: &Device, shape: &[usize], values: &[f32]) -> Result<Array> {
    let bytes = bytemuck::cast_slice(values);
    Ok(device.upload(DType::F32, shape, bytes, Holder::Activations)?)
}
