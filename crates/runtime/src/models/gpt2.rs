//! GPT-2: layer norms, learned positions, projections with biases that are stored transposed, an MLP without a gate.
//!
//! Radford et al. 2019; reference `transformers/models/gpt2/modeling_gpt2.py` 5.23.0 (`Conv1D` weights are `[in, out]`); GGUF
//! architecture `gpt2` as llama.cpp writes it (turned the right way round). Checked on the `gpt2` fixture.

use super::decoder::{check_heads, gguf_vocab, layers};
use super::parts::{Attention, Stream, View, Vocabulary};
use super::{CausalLm, Inputs, LayerCache, Spec};
use crate::cache::Cache;
use crate::checkpoint::{Checkpoint, Config as Source, Fields};
use crate::loader::{Linear, LoadProgress, Loader};
use crate::norm::LayerNorm;
use crate::rope::Rope;
use crate::{Error, Result};
use firelight_kernels::act::{Activation, act};
use firelight_kernels::add_scale::add_scale;
use firelight_kernels::columns::columns;
use firelight_kernels::rope_kv::Pairing;
use firelight_kernels::{Array, Device, Recorder, Weight, embed};
use firelight_tensor::gguf::Metadata;
use serde_json::Value;
use std::ops::Range;

/// The numbers of a checkpoint, under upstream's names.
#[derive(Clone, Debug)]
struct Config {
    n_embd: usize,
    n_inner: usize,
    n_layer: usize,
    n_head: usize,
    n_positions: usize,
    vocab_size: usize,
    layer_norm_epsilon: f32,
    activation_function: Activation,
    /// Scores are divided by the square root of the head's size, and by the layer's number.
    scale_attn_weights: bool,
    scale_attn_by_inverse_layer_idx: bool,
}

impl Config {
    fn read(checkpoint: &Checkpoint) -> Result<Self> {
        match checkpoint.config()? {
            Source::Json(value) => Self::from_json(value),
            Source::Gguf(m) => Self::from_gguf(checkpoint, m),
        }
    }

    fn from_json(value: &Value) -> Result<Self> {
        let c = Fields(value);
        let n_embd = c.maybe_size("n_embd")?.unwrap_or(768);
        let name = c.text("activation_function").unwrap_or("gelu_new");
        let activation = Activation::from_name(name).ok_or_else(|| {
            Error::Unsupported(format!("`activation_function` {name} in a gpt2 model"))
        })?;
        Ok(Config {
            n_embd,
            n_inner: c.maybe_size("n_inner")?.unwrap_or(4 * n_embd),
            n_layer: layers(c.maybe_size("n_layer")?.unwrap_or(12))?,
            n_head: c.maybe_size("n_head")?.unwrap_or(12),
            n_positions: c.maybe_size("n_positions")?.unwrap_or(1024),
            vocab_size: c.maybe_size("vocab_size")?.unwrap_or(50_257),
            layer_norm_epsilon: c.number("layer_norm_epsilon")?.unwrap_or(1e-5) as f32,
            activation_function: activation,
            scale_attn_weights: c.flag("scale_attn_weights") != Some(false),
            scale_attn_by_inverse_layer_idx: c.flag("scale_attn_by_inverse_layer_idx")
                == Some(true),
        })
    }

    fn from_gguf(checkpoint: &Checkpoint, m: &Metadata) -> Result<Self> {
        let size = |name: &str| -> Result<usize> {
            Ok(m.require::<u32>(&format!("gpt2.{name}"))? as usize)
        };
        Ok(Config {
            n_embd: size("embedding_length")?,
            n_inner: size("feed_forward_length")?,
            n_layer: layers(size("block_count")?)?,
            n_head: size("attention.head_count")?.max(1),
            n_positions: size("context_length")?,
            vocab_size: gguf_vocab(checkpoint)?,
            layer_norm_epsilon: m.require::<f32>("gpt2.attention.layer_norm_epsilon")?,
            activation_function: Activation::GeluTanh,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
        })
    }

    fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    fn check(&self) -> Result<()> {
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(Error::malformed(
                "configuration",
                format!(
                    "`n_embd` {} is no multiple of `n_head` {}",
                    self.n_embd, self.n_head
                ),
            ));
        }
        check_heads(self.n_head, self.n_head, self.head_dim())
    }

    /// The factor of a layer's scores.
    fn scale(&self, layer: usize) -> f32 {
        let head = match self.scale_attn_weights {
            true => (self.head_dim() as f32).powf(-0.5),
            false => 1.0,
        };
        match self.scale_attn_by_inverse_layer_idx {
            true => head / (layer + 1) as f32,
            false => head,
        }
    }
}

/// Rows of a `Conv1D` with `all` outputs: a linear layer whose weight is stored transposed.
fn conv1d(
    l: &mut Loader<'_>,
    name: &str,
    rows: Range<usize>,
    all: usize,
    inputs: usize,
) -> Result<Linear> {
    let weight = l.transposed(name, rows.clone(), all, inputs)?;
    l.with_bias(weight, name, rows, all, true)
}

/// Upstream's `c_attn` in three parts, and `c_proj`.
fn attention(l: &mut Loader<'_>, d: usize, name: &str) -> Result<Attention> {
    let c_attn = format!("{name}.c_attn");
    Ok(Attention {
        q_proj: conv1d(l, &c_attn, 0..d, 3 * d, d)?,
        k_proj: conv1d(l, &c_attn, d..2 * d, 3 * d, d)?,
        v_proj: conv1d(l, &c_attn, 2 * d..3 * d, 3 * d, d)?,
        o_proj: conv1d(l, &format!("{name}.c_proj"), 0..d, d, d)?,
        norms: None,
        gate_proj: None,
    })
}

struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
}

impl Mlp {
    fn load(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Self> {
        let (d, f) = (c.n_embd, c.n_inner);
        Ok(Mlp {
            c_fc: conv1d(l, &format!("{name}.c_fc"), 0..f, f, d)?,
            c_proj: conv1d(l, &format!("{name}.c_proj"), 0..d, d, f)?,
        })
    }

    fn forward(&self, rec: &mut Recorder, x: &Array, activation: Activation) -> Result<Array> {
        let h = self.c_fc.forward(rec, x)?;
        act(rec, &h, None, activation)?;
        self.c_proj.forward(rec, &h)
    }
}

struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn load(l: &mut Loader<'_>, c: &Config, i: usize) -> Result<Self> {
        let (d, eps) = (c.n_embd, c.layer_norm_epsilon);
        Ok(Block {
            ln_1: l.layer_norm(&format!("h.{i}.ln_1"), d, eps)?,
            attn: attention(l, d, &format!("h.{i}.attn"))?,
            ln_2: l.layer_norm(&format!("h.{i}.ln_2"), d, eps)?,
            mlp: Mlp::load(l, c, &format!("h.{i}.mlp"))?,
        })
    }
}

/// A GPT-2 on a device.
struct Gpt2 {
    config: Config,
    spec: Spec,
    vocabulary: Vocabulary,
    wpe: Weight,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

/// Loads a checkpoint; see [`super::load`].
pub(super) fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn CausalLm>> {
    let mut report = |done, total| progress(done, total);
    let config = Config::read(checkpoint)?;
    config.check()?;
    let mut l = Loader::new(checkpoint, device, gguf_name, &mut report);
    let (d, v) = (config.n_embd, config.vocab_size);
    let vocabulary = Vocabulary::load(&mut l, "wte", v, d, 1.0)?;
    let wpe = l.table("wpe", ("n_positions", config.n_positions), d)?;
    let h = (0..config.n_layer)
        .map(|i| Block::load(&mut l, &config, i))
        .collect::<Result<_>>()?;
    let ln_f = l.layer_norm("ln_f", d, config.layer_norm_epsilon)?;
    let layer = LayerCache::Attention {
        kv_heads: config.n_head,
        head_dim: config.head_dim(),
    };
    let spec = Spec {
        vocab: v,
        context: config.n_positions,
        layers: vec![layer; config.n_layer],
        ropes: vec![Rope::identity()],
        mutual: 0,
    };
    Ok(Box::new(Gpt2 {
        config,
        spec,
        vocabulary,
        wpe,
        h,
        ln_f,
    }))
}

impl CausalLm for Gpt2 {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        inputs: Inputs<'_>,
        cache: &Cache,
    ) -> Result<Option<Array>> {
        let h = self.vocabulary.embed(rec, inputs)?;
        let rows = inputs.rows.reshape(&[inputs.ids.elements(), 2])?;
        let positions = columns(rec, &rows, 1, 1)?;
        let places = embed::embed(rec, &positions, &self.wpe, 1.0)?;
        add_scale(rec, &h, &places, 1.0)?;
        drop((positions, places));
        let mut stream = Stream::new(h);
        for (layer, block) in self.h.iter().enumerate() {
            let x = stream.norm(rec, &block.ln_1)?;
            let view = View {
                cache,
                layer,
                // Turns nothing.
                rope: 0,
                pairing: Pairing::Half,
                window: 0,
                scale: self.config.scale(layer),
            };
            stream.add(block.attn.forward(rec, &x, inputs, view)?);
            let x = stream.norm(rec, &block.ln_2)?;
            let act = self.config.activation_function;
            stream.add(block.mlp.forward(rec, &x, act)?);
        }
        let x = stream.norm(rec, &self.ln_f)?;
        self.vocabulary.logits(rec, x, inputs.logits)
    }
}

/// Upstream names to GGUF's.
pub(super) fn gguf_name(name: &str) -> Option<String> {
    let fixed = match name {
        "wte.weight" => Some("token_embd.weight"),
        "wpe.weight" => Some("position_embd.weight"),
        "ln_f.weight" => Some("output_norm.weight"),
        "ln_f.bias" => Some("output_norm.bias"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(fixed) = fixed {
        return Some(fixed.to_owned());
    }
    let (layer, rest) = name.strip_prefix("h.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let part = match part {
        "ln_1" => "attn_norm",
        "attn.c_attn" => "attn_qkv",
        "attn.c_proj" => "attn_output",
        "ln_2" => "ffn_norm",
        "mlp.c_fc" => "ffn_up",
        "mlp.c_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.{kind}"))
}
