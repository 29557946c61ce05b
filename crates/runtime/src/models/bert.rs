//! BERT: MiniLM, bge, e5, cross-encoders, and whatever else says `model_type: bert`.
//!
//! Devlin et al. 2018; reference `transformers/models/bert/modeling_bert.py` 5.23.0. Tensors with and without the `bert.`
//! prefix, norms called weight and bias or gamma and beta. Checked on the `bert` fixture and all-MiniLM-L6-v2.

use crate::checkpoint::{Checkpoint, Config as Source, Fields};
use crate::encoder::{Encoder, EncoderInputs, EncoderSpec, Head, Texts};
use crate::loader::{Linear, LoadProgress, Loader};
use crate::norm::LayerNorm;
use crate::{Error, Result};
use firelight_kernels::act::Activation;
use firelight_kernels::span_attention::{Part, SpanAttentionArgs, span_attention};
use firelight_kernels::{Array, Device, Recorder, Weight, add_bias, embed};
use serde_json::Value;

/// The numbers of a checkpoint, under upstream's names.
#[derive(Clone, Debug)]
pub struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: Activation,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    vocab_size: usize,
}

impl Config {
    fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let Source::Json(value) = checkpoint.config()? else {
            return Err(Error::Unsupported(
                "a BERT in a GGUF file; take the model's folder with safetensors".into(),
            ));
        };
        let c = Fields(value);
        let position = c.text("position_embedding_type").unwrap_or("absolute");
        if position != "absolute" {
            return Err(Error::Unsupported(format!(
                "`position_embedding_type` `{position}` in a bert model; expected absolute"
            )));
        }
        if c.flag("is_decoder") == Some(true) {
            return Err(Error::Unsupported(
                "`is_decoder` true in a bert model; encoders only".into(),
            ));
        }
        Ok(Config {
            hidden_size: c.maybe_size("hidden_size")?.unwrap_or(768),
            num_hidden_layers: c.maybe_size("num_hidden_layers")?.unwrap_or(12),
            num_attention_heads: c.maybe_size("num_attention_heads")?.unwrap_or(12),
            intermediate_size: c.maybe_size("intermediate_size")?.unwrap_or(3072),
            hidden_act: activation(&c, "hidden_act", "gelu")?,
            max_position_embeddings: c.maybe_size("max_position_embeddings")?.unwrap_or(512),
            type_vocab_size: c.maybe_size("type_vocab_size")?.unwrap_or(2),
            layer_norm_eps: c.number("layer_norm_eps")?.unwrap_or(1e-12) as f32,
            vocab_size: c.maybe_size("vocab_size")?.unwrap_or(30522),
        })
    }
}

/// The activation that the field `key` names.
pub(super) fn activation(c: &Fields<'_>, key: &str, default: &str) -> Result<Activation> {
    let name = c.text(key).unwrap_or(default);
    Activation::from_name(name).ok_or_else(|| {
        Error::Unsupported(format!(
            "`{key}` `{name}`; this version has gelu, gelu_new, quick_gelu, relu, silu, tanh, sigmoid"
        ))
    })
}

/// The size of a head, or what does not fit.
pub(super) fn head_dim(
    layers: usize,
    (hidden_key, hidden): (&str, usize),
    (heads_key, heads): (&str, usize),
) -> Result<usize> {
    let hd = hidden / heads;
    if hidden.is_multiple_of(heads)
        && hidden.is_multiple_of(8)
        && hd.is_multiple_of(4)
        && hd <= 512
        && layers <= 1024
    {
        return Ok(hd);
    }
    Err(Error::malformed(
        "config.json",
        format!(
            "`{hidden_key}` {hidden} over `{heads_key}` {heads} in {layers} layers; expected heads of a multiple of 4 up to \
             512 elements, at most 1024 layers"
        ),
    ))
}

/// The head that a checkpoint has: by its `architectures`, else by its tensors.
pub(super) fn head(checkpoint: &Checkpoint, l: &Loader<'_>) -> Result<Head> {
    if !l.has("classifier.weight") {
        return Ok(Head::None);
    }
    let Source::Json(value) = checkpoint.config()? else {
        return Ok(Head::None);
    };
    let names = value.get("architectures").and_then(Value::as_array);
    let is = |part: &str| {
        let mut names = names.into_iter().flatten().filter_map(Value::as_str);
        names.any(|n| n.contains(part))
    };
    let labels = match value.get("id2label").and_then(Value::as_object) {
        Some(map) => map.len(),
        None => Fields(value).maybe_size("num_labels")?.unwrap_or(2),
    };
    if is("ForTokenClassification") {
        Ok(Head::Tokens(labels))
    } else if is("ForSequenceClassification") || names.is_none() {
        Ok(Head::Sequence(labels))
    } else {
        Ok(Head::None)
    }
}

struct Embeddings {
    word_embeddings: Weight,
    position_embeddings: Weight,
    token_type_embeddings: Weight,
    layer_norm: LayerNorm,
}

impl Embeddings {
    fn load(l: &mut Loader<'_>, c: &Config) -> Result<Self> {
        let d = c.hidden_size;
        let name = |part: &str| format!("embeddings.{part}");
        Ok(Embeddings {
            word_embeddings: l.table(&name("word_embeddings"), ("vocab_size", c.vocab_size), d)?,
            position_embeddings: l.table(
                &name("position_embeddings"),
                ("max_position_embeddings", c.max_position_embeddings),
                d,
            )?,
            token_type_embeddings: l.table(
                &name("token_type_embeddings"),
                ("type_vocab_size", c.type_vocab_size),
                d,
            )?,
            layer_norm: l.layer_norm(&name("LayerNorm"), d, c.layer_norm_eps)?,
        })
    }

    fn forward(&self, rec: &mut Recorder, inputs: EncoderInputs<'_>) -> Result<Array> {
        let h = embed::embed(rec, inputs.ids, &self.word_embeddings, 1.0)?;
        let positions = embed::embed(rec, inputs.positions, &self.position_embeddings, 1.0)?;
        add_bias::add_bias(rec, &h, &positions)?;
        let types = embed::embed(rec, inputs.types, &self.token_type_embeddings, 1.0)?;
        self.layer_norm.add_forward(rec, &h, &types)
    }
}

/// A block that normalises after each branch.
pub(super) struct Block {
    query: Linear,
    key: Linear,
    value: Linear,
    dense: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    act: Activation,
    heads: usize,
    head_dim: usize,
}

/// Sizes of a block.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub hidden: usize,
    pub heads: usize,
    pub inner: usize,
    pub act: Activation,
    pub eps: f32,
}

/// What the tensors of a block are called, in the order of [`Block`]'s fields.
pub(super) type BlockNames = [&'static str; 8];

const NAMES: BlockNames = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
];

impl Block {
    /// The block whose tensors are under `prefix`.
    pub(super) fn load(
        l: &mut Loader<'_>,
        prefix: &str,
        names: &BlockNames,
        s: Sizes,
    ) -> Result<Self> {
        let (d, f) = (s.hidden, s.inner);
        let [
            query,
            key,
            value,
            dense,
            first,
            intermediate,
            output,
            second,
        ] = names.map(|own| format!("{prefix}.{own}"));
        Ok(Block {
            query: l.linear(&query, d, d)?,
            key: l.linear(&key, d, d)?,
            value: l.linear(&value, d, d)?,
            dense: l.linear(&dense, d, d)?,
            attention_norm: l.layer_norm(&first, d, s.eps)?,
            intermediate: l.linear(&intermediate, f, d)?,
            output: l.linear(&output, d, f)?,
            output_norm: l.layer_norm(&second, d, s.eps)?,
            act: s.act,
            heads: s.heads,
            head_dim: d / s.heads,
        })
    }

    /// `x` `[T, D]`, each token seeing the tokens of its span.
    pub(super) fn forward(&self, rec: &mut Recorder, x: &Array, spans: &Array) -> Result<Array> {
        let q = self.query.forward(rec, x)?;
        let k = self.key.forward(rec, x)?;
        let v = self.value.forward(rec, x)?;
        let args = SpanAttentionArgs {
            q: Part::whole(&q),
            k: Part::whole(&k),
            v: Part::whole(&v),
            spans,
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: self.head_dim,
            scale: (self.head_dim as f32).powf(-0.5),
        };
        let out = span_attention(rec, args)?;
        drop((q, k, v));
        let out = self.dense.forward(rec, &out)?;
        let x = self.attention_norm.add_forward(rec, &out, x)?;
        drop(out);
        let h = self.intermediate.forward_act(rec, &x, self.act)?;
        let out = self.output.forward(rec, &h)?;
        self.output_norm.add_forward(rec, &out, &x)
    }
}

/// A BERT on a device.
pub struct Bert {
    spec: EncoderSpec,
    embeddings: Embeddings,
    layers: Vec<Block>,
    pooler: Option<Linear>,
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
    let d = c.hidden_size;
    head_dim(
        c.num_hidden_layers,
        ("hidden_size", d),
        ("num_attention_heads", c.num_attention_heads),
    )?;
    let mut l = Loader::new(checkpoint, device, |_| None, &mut report);
    let head = head(checkpoint, &l)?;
    let embeddings = Embeddings::load(&mut l, &c)?;
    let sizes = Sizes {
        hidden: d,
        heads: c.num_attention_heads,
        inner: c.intermediate_size,
        act: c.hidden_act,
        eps: c.layer_norm_eps,
    };
    let layers = (0..c.num_hidden_layers)
        .map(|i| Block::load(&mut l, &format!("encoder.layer.{i}"), &NAMES, sizes))
        .collect::<Result<_>>()?;
    let pooled = matches!(head, Head::Sequence(_)) || l.has("pooler.dense.weight");
    let pooler = match pooled {
        true => Some(l.linear("pooler.dense", d, d)?),
        false => None,
    };
    let classifier = match head {
        Head::Sequence(n) | Head::Tokens(n) => Some(l.linear("classifier", n, d)?),
        Head::None => None,
    };
    let spec = EncoderSpec {
        vocab: c.vocab_size,
        context: c.max_position_embeddings,
        hidden: d,
        types: c.type_vocab_size,
        head,
        pooler: pooled.then_some(d),
        texts: Texts::Whole,
    };
    Ok(Box::new(Bert {
        spec,
        embeddings,
        layers,
        pooler,
        classifier,
    }))
}

impl Encoder for Bert {
    fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    fn forward(&self, rec: &mut Recorder, inputs: EncoderInputs<'_>) -> Result<Array> {
        let mut x = self.embeddings.forward(rec, inputs)?;
        for block in &self.layers {
            x = block.forward(rec, &x, inputs.spans)?;
        }
        Ok(x)
    }

    fn pooler(&self, rec: &mut Recorder, first: &Array) -> Result<Array> {
        let Some(pooler) = &self.pooler else {
            return Err(Error::Unsupported(
                "this checkpoint has no `pooler.dense`".into(),
            ));
        };
        pooler.forward_act(rec, first, Activation::Tanh)
    }

    fn logits(&self, rec: &mut Recorder, x: &Array) -> Result<Array> {
        let Some(classifier) = &self.classifier else {
            return Err(Error::Unsupported(
                "this checkpoint has no `classifier`".into(),
            ));
        };
        match self.spec.head {
            Head::Tokens(_) => classifier.forward(rec, x),
            _ => {
                let pooled = self.pooler(rec, x)?;
                classifier.forward(rec, &pooled)
            }
        }
    }
}
