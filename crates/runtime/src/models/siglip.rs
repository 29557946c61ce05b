//! SigLIP: two towers trained pair by pair, each text and picture with a probability of their own.
//!
//! Zhai et al. 2023; reference `transformers/models/siglip/modeling_siglip.py` 5.23.0; SigLIP 2 at a fixed size is the same model. A text
//! is filled up with padding that all tokens see, and its vector made of the last one; a picture's is what a learnt query finds in its
//! patches. Checked on the `siglip` fixture.

use super::dual::{
    Dual, PicturePool, Text, TextSizes, Vision, VisionSizes, config, part, scale_and_bias,
};
use super::parts::Stream;
use super::towers::words;
use super::vit::{VitConfig, VitDefaults};
use crate::checkpoint::{Checkpoint, Fields};
use crate::encoder::{Encoder, Similarity, Texts};
use crate::loader::{Linear, LoadProgress, Loader};
use crate::norm::LayerNorm;
use crate::{Error, Result};
use firelight_kernels::act::Activation;
use firelight_kernels::span_attention::{Part, SpanAttentionArgs, span_attention};
use firelight_kernels::{Array, Device, Recorder, Weight, embed};

/// Attention of one learnt query over a picture's patches, and an MLP.
struct Probe {
    post_layernorm: LayerNorm,
    /// `[1, D]`.
    probe: Weight,
    q_proj: Linear,
    /// Keys, then values.
    kv_proj: Linear,
    out_proj: Linear,
    layernorm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    act: Activation,
    heads: usize,
    hidden: usize,
}

impl Probe {
    fn load(l: &mut Loader<'_>, c: &VitConfig) -> Result<Self> {
        let (d, f, eps) = (c.hidden_size, c.intermediate_size, c.layer_norm_eps);
        let name = |own: &str| format!("vision_model.head.{own}");
        let (weight, bias) = (
            name("attention.in_proj_weight"),
            name("attention.in_proj_bias"),
        );
        let one = 0..1;
        let mut projection = |rows: std::ops::Range<usize>| -> Result<Linear> {
            let biases = l.host(&bias, &[3 * d])?;
            Ok(Linear {
                weight: l.matrix(&weight, &[3 * d, d], std::slice::from_ref(&rows))?,
                bias: Some(l.upload(biases.get(rows).unwrap_or_default())?),
            })
        };
        let (q_proj, kv_proj) = (projection(0..d)?, projection(d..3 * d)?);
        Ok(Probe {
            post_layernorm: l.layer_norm("vision_model.post_layernorm", d, eps)?,
            probe: l.matrix(&name("probe"), &[1, 1, d], std::slice::from_ref(&one))?,
            q_proj,
            kv_proj,
            out_proj: l.linear(&name("attention.out_proj"), d, d)?,
            layernorm: l.layer_norm(&name("layernorm"), d, eps)?,
            fc1: l.linear(&name("mlp.fc1"), f, d)?,
            fc2: l.linear(&name("mlp.fc2"), d, f)?,
            act: c.hidden_act,
            heads: c.num_attention_heads,
            hidden: d,
        })
    }
}

impl PicturePool for Probe {
    const CLASS: bool = false;

    fn last(&self, rec: &mut Recorder, mut stream: Stream) -> Result<Array> {
        stream.norm(rec, &self.post_layernorm)
    }

    fn pool(
        &self,
        rec: &mut Recorder,
        hidden: &Array,
        count: usize,
        tokens: usize,
    ) -> Result<Array> {
        let device = rec.device().clone();
        let same = words(&device, &[count], &vec![0; count])?;
        let spans: Vec<u32> = (0..count)
            .flat_map(|i| [i * tokens, (i + 1) * tokens])
            .map(|t| t as u32)
            .collect();
        let spans = words(&device, &[count, 2], &spans)?;
        let probe = embed::embed(rec, &same, &self.probe, 1.0)?;
        let q = self.q_proj.forward(rec, &probe)?;
        let kv = self.kv_proj.forward(rec, hidden)?;
        let head_dim = self.hidden / self.heads;
        let args = SpanAttentionArgs {
            q: Part::whole(&q),
            k: Part::columns(&kv, 0),
            v: Part::columns(&kv, self.hidden),
            spans: &spans,
            heads: self.heads,
            kv_heads: self.heads,
            head_dim,
            scale: (head_dim as f32).powf(-0.5),
        };
        let found = span_attention(rec, args)?;
        drop((q, kv, probe));
        let mut stream = Stream::new(self.out_proj.forward(rec, &found)?);
        let x = stream.norm(rec, &self.layernorm)?;
        let f = self.fc1.forward_act(rec, &x, self.act)?;
        stream.add(self.fc2.forward(rec, &f)?);
        stream.sum(rec)
    }
}

/// Loads a checkpoint; see [`super::load_encoder`].
pub(super) fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn Encoder>> {
    let config = config(checkpoint, "SigLIP")?;
    let (t, v) = (
        Fields(part(config, "text_config")),
        Fields(part(config, "vision_config")),
    );
    let defaults = VitDefaults {
        hidden_size: 768,
        intermediate_size: 3072,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        hidden_act: "gelu_pytorch_tanh",
        layer_norm_eps: 1e-6,
    };
    let (text, vision) = (
        VitConfig::read(&t, &defaults)?,
        VitConfig::read(&v, &defaults)?,
    );
    let dims = t.maybe_size("projection_size")?.unwrap_or(text.hidden_size);
    if v.flag("vision_use_head") == Some(false) || dims != vision.hidden_size {
        return Err(Error::Unsupported(format!(
            "a SigLIP whose pictures have vectors of {} elements (`vision_use_head` {}) and texts of {dims}; they have to agree",
            vision.hidden_size,
            v.flag("vision_use_head").unwrap_or(true)
        )));
    }
    let text_sizes = TextSizes {
        vocab: t.maybe_size("vocab_size")?.unwrap_or(32000),
        positions: t.maybe_size("max_position_embeddings")?.unwrap_or(64),
        dims,
    };
    let vision_sizes = VisionSizes::read(&v, 16, dims)?;
    let hidden = text.hidden_size;
    let mut report = |done, total| progress(done, total);
    let mut l = Loader::new(checkpoint, device, |_| None, &mut report);
    let (scale, bias) = scale_and_bias(&mut l, true)?;
    let similarity = Similarity {
        scale,
        bias,
        sigmoid: true,
    };
    let text = Text::load(&mut l, text, &text_sizes, "text_model.head")?;
    let pool = Probe::load(&mut l, &vision)?;
    let vision = Vision::load(&mut l, vision, &vision_sizes, similarity, None, pool)?;
    Ok(Box::new(Dual::new(
        text,
        vision,
        &text_sizes,
        hidden,
        Texts::Padded,
    )))
}
