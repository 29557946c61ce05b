//! DistilBERT: BERT without segments and without a pooler.
//!
//! Sanh et al. 2019; reference `transformers/models/distilbert/modeling_distilbert.py` 5.23.0. Checked on the `distilbert`
//! fixture.

use super::bert::{Block, BlockNames, Sizes, activation, head, head_dim};
use crate::checkpoint::{Checkpoint, Config as Source, Fields};
use crate::encoder::{Encoder, EncoderInputs, EncoderSpec, Head, Texts};
use crate::loader::{Linear, LoadProgress, Loader};
use crate::norm::LayerNorm;
use crate::{Error, Result};
use firelight_kernels::act::Activation;
use firelight_kernels::{Array, Device, Recorder, Weight, embed};

/// Upstream writes it into the code.
const LAYER_NORM_EPS: f32 = 1e-12;

/// The numbers of a checkpoint, under upstream's names.
#[derive(Clone, Debug)]
pub struct Config {
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    hidden_dim: usize,
    activation: Activation,
    max_position_embeddings: usize,
    vocab_size: usize,
}

impl Config {
    fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let Source::Json(value) = checkpoint.config()? else {
            return Err(Error::Unsupported(
                "a DistilBERT in a GGUF file; take the model's folder with safetensors".into(),
            ));
        };
        let c = Fields(value);
        Ok(Config {
            dim: c.maybe_size("dim")?.unwrap_or(768),
            n_layers: c.maybe_size("n_layers")?.unwrap_or(6),
            n_heads: c.maybe_size("n_heads")?.unwrap_or(12),
            hidden_dim: c.maybe_size("hidden_dim")?.unwrap_or(4 * 768),
            activation: activation(&c, "activation", "gelu")?,
            max_position_embeddings: c.maybe_size("max_position_embeddings")?.unwrap_or(512),
            vocab_size: c.maybe_size("vocab_size")?.unwrap_or(30522),
        })
    }
}

const NAMES: BlockNames = [
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
];

/// A DistilBERT on a device.
pub struct DistilBert {
    spec: EncoderSpec,
    word_embeddings: Weight,
    position_embeddings: Weight,
    layer_norm: LayerNorm,
    layers: Vec<Block>,
    pre_classifier: Option<Linear>,
    classifier: Option<Linear>,
}

/// Loads a checkpoint; see [`super::load_encoder`].
pub(super) fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn Encoder>> {
    let mut report = |done, total| progress(done, total);
    let c = Config::read(checkpoint)?;
    let d = c.dim;
    head_dim(c.n_layers, ("dim", d), ("n_heads", c.n_heads))?;
    let mut l = Loader::new(checkpoint, device, |_| None, &mut report);
    let head = head(checkpoint, &l)?;
    let word_embeddings = l.table(
        "embeddings.word_embeddings",
        ("vocab_size", c.vocab_size),
        d,
    )?;
    let position_embeddings = l.table(
        "embeddings.position_embeddings",
        ("max_position_embeddings", c.max_position_embeddings),
        d,
    )?;
    let layer_norm = l.layer_norm("embeddings.LayerNorm", d, LAYER_NORM_EPS)?;
    let sizes = Sizes {
        hidden: d,
        heads: c.n_heads,
        inner: c.hidden_dim,
        act: c.activation,
        eps: LAYER_NORM_EPS,
    };
    let layers = (0..c.n_layers)
        .map(|i| Block::load(&mut l, &format!("transformer.layer.{i}"), &NAMES, sizes))
        .collect::<Result<_>>()?;
    let pre_classifier = match head {
        Head::Sequence(_) => Some(l.linear("pre_classifier", d, d)?),
        _ => None,
    };
    let classifier = match head {
        Head::Sequence(n) | Head::Tokens(n) => Some(l.linear("classifier", n, d)?),
        Head::None => None,
    };
    let spec = EncoderSpec {
        vocab: c.vocab_size,
        context: c.max_position_embeddings,
        hidden: d,
        types: 0,
        head,
        pooler: None,
        texts: Texts::Whole,
    };
    Ok(Box::new(DistilBert {
        spec,
        word_embeddings,
        position_embeddings,
        layer_norm,
        layers,
        pre_classifier,
        classifier,
    }))
}

impl Encoder for DistilBert {
    fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    fn forward(&self, rec: &mut Recorder, inputs: EncoderInputs<'_>) -> Result<Array> {
        let h = embed::embed(rec, inputs.ids, &self.word_embeddings, 1.0)?;
        let positions = embed::embed(rec, inputs.positions, &self.position_embeddings, 1.0)?;
        let mut x = self.layer_norm.add_forward(rec, &h, &positions)?;
        for block in &self.layers {
            x = block.forward(rec, &x, inputs.spans)?;
        }
        Ok(x)
    }

    fn logits(&self, rec: &mut Recorder, x: &Array) -> Result<Array> {
        let Some(classifier) = &self.classifier else {
            return Err(Error::Unsupported(
                "this checkpoint has no `classifier`".into(),
            ));
        };
        match &self.pre_classifier {
            Some(pre) => {
                let h = pre.forward_act(rec, x, Activation::Relu)?;
                classifier.forward(rec, &h)
            }
            None => classifier.forward(rec, x),
        }
    }
}
