//! GPT-2: layer norms, learned positions, projections with biases that are stored transposed, an MLP without a gate.
//!
//! Radford et al. 2019; reference `transformers/models/gpt2/modeling_gpt2.py` 5.23.0 (`Conv1D` weights are `[in, out]`); GGUF
//! architecture `gpt2` as llama.cpp writes it (turned the right way round). Checked on the `gpt2` fixture.

use super::decoder::{check_heads, gguf_vocab, layers};
use super::{CausalLm, Inputs, LayerCache, Spec, wanted_rows};
use crate::cache::Cache;
use crate::checkpoint::{Checkpoint, Config as Source, Fields};
use crate::loader::{Linear, LoadProgress, Loader};
use crate::norm::LayerNorm;
use crate::rope::Rope;
use crate::{Error, Result};
use firelight_kernels::act::{Activation, act};
use firelight_kernels::add_scale::add_scale;
use firelight_kernels::attention::{AttentionArgs, attention};
use firelight_kernels::columns::columns;
use firelight_kernels::rope_kv::{Pairing, RopeKvArgs, rope_kv};
use firelight_kernels::{Array, Device, Recorder, Weight, embed, linear};
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

struct Attention {
    /// Upstream's `c_attn` in three parts.
    q: Linear,
    k: Linear,
    v: Linear,
    c_proj: Linear,
}

impl Attention {
    fn load(l: &mut Loader<'_>, d: usize, name: &str) -> Result<Self> {
        let c_attn = format!("{name}.c_attn");
        Ok(Attention {
            q: conv1d(l, &c_attn, 0..d, 3 * d, d)?,
            k: conv1d(l, &c_attn, d..2 * d, 3 * d, d)?,
            v: conv1d(l, &c_attn, 2 * d..3 * d, 3 * d, d)?,
            c_proj: conv1d(l, &format!("{name}.c_proj"), 0..d, d, d)?,
        })
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        x: &Array,
        rows: &Array,
        (cache, layer, scale): (&Cache, usize, f32),
    ) -> Result<Array> {
        let q = self.q.forward(rec, x)?;
        let k = self.k.forward(rec, x)?;
        let v = self.v.forward(rec, x)?;
        let (k_cache, v_cache) = cache.layer(layer);
        let args = RopeKvArgs {
            rows,
            // Turns nothing.
            rope: cache.rope(0),
            k_cache,
            v_cache,
            pairing: Pairing::Half,
        };
        rope_kv(rec, &q, &k, &v, args)?;
        let args = AttentionArgs {
            rows,
            k_cache,
            v_cache,
            window: 0,
            scale,
            softcap: 0.0,
        };
        let out = attention(rec, &q, args)?;
        self.c_proj.forward(rec, &out)
    }
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
            attn: Attention::load(l, d, &format!("h.{i}.attn"))?,
            ln_2: l.layer_norm(&format!("h.{i}.ln_2"), d, eps)?,
            mlp: Mlp::load(l, c, &format!("h.{i}.mlp"))?,
        })
    }
}

/// A GPT-2 on a device.
struct Gpt2 {
    config: Config,
    spec: Spec,
    wte: Weight,
    wpe: Weight,
    h: Vec<Block>,
    ln_f: LayerNorm,
    /// `None`: tied to the embedding.
    lm_head: Option<Weight>,
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
    let wte = l.table("wte", ("vocab_size", v), d)?;
    let wpe = l.table("wpe", ("n_positions", config.n_positions), d)?;
    let h = (0..config.n_layer)
        .map(|i| Block::load(&mut l, &config, i))
        .collect::<Result<_>>()?;
    let ln_f = l.layer_norm("ln_f", d, config.layer_norm_epsilon)?;
    let lm_head = match l.has("lm_head.weight") {
        true => Some(l.table("lm_head", ("vocab_size", v), d)?),
        false => None,
    };
    let layer = LayerCache::Attention {
        kv_heads: config.n_head,
        head_dim: config.head_dim(),
    };
    let spec = Spec {
        vocab: v,
        context: config.n_positions,
        layers: vec![layer; config.n_layer],
        ropes: vec![Rope::identity()],
    };
    Ok(Box::new(Gpt2 {
        config,
        spec,
        wte,
        wpe,
        h,
        ln_f,
        lm_head,
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
        let h = embed::embed(rec, inputs.ids, &self.wte, 1.0)?;
        let rows = inputs.rows.reshape(&[inputs.ids.elements(), 2])?;
        let positions = columns(rec, &rows, 1, 1)?;
        let places = embed::embed(rec, &positions, &self.wpe, 1.0)?;
        add_scale(rec, &h, &places, 1.0)?;
        drop((positions, places));
        let mut branch: Option<Array> = None;
        for (i, block) in self.h.iter().enumerate() {
            let x = match branch.take() {
                Some(mlp) => block.ln_1.add_forward(rec, &h, &mlp)?,
                None => block.ln_1.forward(rec, &h)?,
            };
            let place = (cache, i, self.config.scale(i));
            let attn = block.attn.forward(rec, &x, inputs.rows, place)?;
            let x = block.ln_2.add_forward(rec, &h, &attn)?;
            drop(attn);
            branch = Some(
                block
                    .mlp
                    .forward(rec, &x, self.config.activation_function)?,
            );
        }
        let x = match branch.take() {
            Some(mlp) => self.ln_f.add_forward(rec, &h, &mlp)?,
            None => self.ln_f.forward(rec, &h)?,
        };
        let Some(x) = wanted_rows(rec, x, inputs.logits)? else {
            return Ok(None);
        };
        Ok(Some(linear::linear(
            rec,
            &x,
            self.lm_head.as_ref().unwrap_or(&self.wte),
        )?))
    }
}

/// Upstream names to GGUF's.
fn gguf_name(name: &str) -> Option<String> {
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
