//! CLIP: a causal text tower and a ViT with a class token, trained to agree on what belongs together.
//!
//! Radford et al. 2021; reference `transformers/models/clip/modeling_clip.py` 5.23.0. A text's vector is made of its last token (the end
//! token, which has the highest id: what the reference looks for), a picture's of the class token. Checked on the `clip` fixture.

use super::dual::{
    Dual, PicturePool, Text, TextSizes, Vision, VisionSizes, config, part, scale_and_bias,
};
use super::parts::Stream;
use super::towers::words;
use super::vit::{VitConfig, VitDefaults};
use crate::Result;
use crate::checkpoint::{Checkpoint, Fields};
use crate::encoder::{Encoder, Similarity, Texts};
use crate::loader::{Linear, LoadProgress, Loader};
use crate::norm::LayerNorm;
use firelight_kernels::{Array, Device, Recorder, Weight, embed};

/// The class token's hidden state, normalised and projected.
struct Class {
    post_layernorm: LayerNorm,
    visual_projection: Linear,
}

impl PicturePool for Class {
    const CLASS: bool = true;

    fn last(&self, rec: &mut Recorder, stream: Stream) -> Result<Array> {
        stream.sum(rec)
    }

    fn pool(
        &self,
        rec: &mut Recorder,
        hidden: &Array,
        count: usize,
        tokens: usize,
    ) -> Result<Array> {
        let first: Vec<u32> = (0..count).map(|i| (i * tokens) as u32).collect();
        let first = words(&rec.device().clone(), &[count], &first)?;
        let class = embed::embed(rec, &first, &Weight::from_array(hidden)?, 1.0)?;
        let class = self.post_layernorm.forward(rec, &class)?;
        self.visual_projection.forward(rec, &class)
    }
}

/// Loads a checkpoint; see [`super::load_encoder`].
pub(super) fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn Encoder>> {
    let config = config(checkpoint, "CLIP")?;
    let dims = Fields(config).maybe_size("projection_dim")?.unwrap_or(512);
    let (t, v) = (
        Fields(part(config, "text_config")),
        Fields(part(config, "vision_config")),
    );
    let text = VitConfig::read(
        &t,
        &VitDefaults {
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            hidden_act: "quick_gelu",
            layer_norm_eps: 1e-5,
        },
    )?;
    let vision = VitConfig::read(
        &v,
        &VitDefaults {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            hidden_act: "quick_gelu",
            layer_norm_eps: 1e-5,
        },
    )?;
    let text_sizes = TextSizes {
        vocab: t.maybe_size("vocab_size")?.unwrap_or(49408),
        positions: t.maybe_size("max_position_embeddings")?.unwrap_or(77),
        dims,
    };
    let vision_sizes = VisionSizes::read(&v, 32, dims)?;
    let (hidden, d, eps) = (text.hidden_size, vision.hidden_size, vision.layer_norm_eps);
    let mut report = |done, total| progress(done, total);
    let mut l = Loader::new(checkpoint, device, |_| None, &mut report);
    let (scale, bias) = scale_and_bias(&mut l, false)?;
    let similarity = Similarity {
        scale,
        bias,
        sigmoid: false,
    };
    let text = Text::load(&mut l, text, &text_sizes, "text_projection")?;
    let pool = Class {
        post_layernorm: l.layer_norm("vision_model.post_layernorm", d, eps)?,
        visual_projection: l.linear("visual_projection", dims, d)?,
    };
    // The name is upstream's.
    let pre = Some("pre_layrnorm");
    let vision = Vision::load(&mut l, vision, &vision_sizes, similarity, pre, pool)?;
    Ok(Box::new(Dual::new(
        text,
        vision,
        &text_sizes,
        hidden,
        Texts::Causal,
    )))
}
