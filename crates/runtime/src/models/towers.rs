//! A language model with towers: what every multimodal family is.

use super::{CausalLm, Inputs, Spec};
use crate::Result;
use crate::cache::Cache;
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
