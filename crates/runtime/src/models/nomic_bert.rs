//! NomicBERT: nomic-embed-text. BERT with rotary positions, a gated feed-forward block and no biases in linear layers.
//!
//! Nussbaum et al. 2024; reference `transformers/models/nomic_bert/modeling_nomic_bert.py` 5.23.0. Both spellings of the
//! configuration: GPT-2's names (`n_embd`, `n_inner`, `rotary_emb_base`, as published) and transformers' own. Checked on the
//! `nomic_bert` fixture.

use super::bert::head_dim;
use crate::checkpoint::{Checkpoint, Config as Source, Fields};
use crate::encoder::{Encoder, EncoderInputs, EncoderSpec, Head, Texts};
use crate::loader::{Linear, LoadProgress, Loader};
use crate::norm::LayerNorm;
use crate::rope::Rope;
use crate::{Error, Result};
use firelight_kernels::gated_act::{Activation, gated_act};
use firelight_kernels::rope_kv::{Pairing, RopeKvArgs, rope_kv};
use firelight_kernels::span_attention::{Part, SpanAttentionArgs, span_attention};
use firelight_kernels::{Array, DType, Device, Holder, Recorder, Weight, embed};
use serde_json::Value;

/// The numbers of a checkpoint, under transformers' names.
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
    rope: Rope,
}

impl Config {
    fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let Source::Json(value) = checkpoint.config()? else {
            return Err(Error::Unsupported(
                "a NomicBERT in a GGUF file; take the model's folder with safetensors".into(),
            ));
        };
        match value.get("n_embd") {
            Some(_) => Self::published(value),
            None => Self::upstream(value),
        }
    }

    /// transformers' spelling.
    fn upstream(value: &Value) -> Result<Self> {
        let c = Fields(value);
        let act = c.text("hidden_act").unwrap_or("silu");
        let hidden_size = c.maybe_size("hidden_size")?.unwrap_or(768);
        let heads = c.maybe_size("num_attention_heads")?.unwrap_or(12);
        let hd = hidden_size / heads;
        if c.maybe_size("head_dim")?.is_some_and(|n| n != hd) {
            return Err(Error::Unsupported(format!(
                "`head_dim` that is not `hidden_size` / `num_attention_heads` = {hd} in a nomic_bert model"
            )));
        }
        Ok(Config {
            hidden_size,
            num_hidden_layers: c.maybe_size("num_hidden_layers")?.unwrap_or(12),
            num_attention_heads: heads,
            intermediate_size: c.maybe_size("intermediate_size")?.unwrap_or(3072),
            hidden_act: gate(act)?,
            max_position_embeddings: c.maybe_size("max_position_embeddings")?.unwrap_or(2048),
            type_vocab_size: c.maybe_size("type_vocab_size")?.unwrap_or(2),
            layer_norm_eps: c.number("layer_norm_eps")?.unwrap_or(1e-12) as f32,
            vocab_size: c.maybe_size("vocab_size")?.unwrap_or(30528),
            rope: Rope::from_config(value, None, "rope_theta", 1000.0, hd)?,
        })
    }

    /// GPT-2's spelling, that of the published checkpoints.
    fn published(value: &Value) -> Result<Self> {
        let c = Fields(value);
        let refused = [
            ("prenorm", false),
            ("qkv_proj_bias", false),
            ("mlp_fc1_bias", false),
            ("mlp_fc2_bias", false),
            ("use_rms_norm", false),
            ("parallel_block", false),
            ("causal", false),
            ("rotary_emb_interleaved", false),
        ];
        for (key, expected) in refused {
            if c.flag(key).is_some_and(|v| v != expected) {
                return Err(Error::Unsupported(format!(
                    "`{key}` {} in a nomic_bert model; expected {expected}",
                    !expected
                )));
            }
        }
        if c.number("num_experts")?.is_some_and(|n| n > 0.0) {
            return Err(Error::Unsupported(
                "`num_experts`: the mixture-of-experts form of nomic_bert".into(),
            ));
        }
        let (hidden_size, heads) = (c.size("n_embd")?, c.size("n_head")?);
        let fraction = c.number("rotary_emb_fraction")?.unwrap_or(1.0);
        if fraction != 1.0 {
            return Err(Error::Unsupported(format!(
                "`rotary_emb_fraction` {fraction} in a nomic_bert model; expected 1"
            )));
        }
        // With a scaling factor, positions beyond those of the training would be stretched by the length of the text.
        let stretched = c.number("rotary_scaling_factor")?.is_some();
        let trained = c.maybe_size("max_trained_positions")?.filter(|_| stretched);
        let positions = c.size("n_positions")?;
        Ok(Config {
            hidden_size,
            num_hidden_layers: c.size("n_layer")?,
            num_attention_heads: heads,
            intermediate_size: c.maybe_size("n_inner")?.unwrap_or(4 * hidden_size),
            hidden_act: match c.text("activation_function").unwrap_or("swiglu") {
                "swiglu" => Activation::Silu,
                "geglu" => Activation::Gelu,
                other => return Err(no_gate("activation_function", other)),
            },
            max_position_embeddings: trained.unwrap_or(positions).min(positions),
            type_vocab_size: c.maybe_size("type_vocab_size")?.unwrap_or(2),
            layer_norm_eps: c.number("layer_norm_epsilon")?.unwrap_or(1e-12) as f32,
            vocab_size: c.size("vocab_size")?,
            rope: Rope {
                theta: c.number("rotary_emb_base")?.unwrap_or(10_000.0),
                dims: hidden_size / heads,
                scaling: crate::rope::Scaling::None,
                axes: Vec::new(),
            },
        })
    }
}

fn gate(name: &str) -> Result<Activation> {
    match Activation::from_name(name) {
        Some(act @ (Activation::Silu | Activation::Gelu | Activation::GeluTanh)) => Ok(act),
        _ => Err(no_gate("hidden_act", name)),
    }
}

fn no_gate(key: &str, name: &str) -> Error {
    Error::Unsupported(format!(
        "`{key}` `{name}` in a nomic_bert model; expected a gate of silu or gelu"
    ))
}

struct Attention {
    /// Query, key and value rows of `Wqkv`.
    qkv: [Linear; 3],
    out_proj: Linear,
    heads: usize,
    head_dim: usize,
}

impl Attention {
    fn load(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Self> {
        let d = c.hidden_size;
        let mut part = |i: usize| {
            let rows = i * d..(i + 1) * d;
            l.linear_part(&format!("{name}.Wqkv"), rows, 3 * d, d, false)
        };
        Ok(Attention {
            qkv: [part(0)?, part(1)?, part(2)?],
            out_proj: l.linear(&format!("{name}.out_proj"), d, d)?,
            heads: c.num_attention_heads,
            head_dim: d / c.num_attention_heads,
        })
    }

    /// `rope` has the turns of each token of the batch.
    fn forward(
        &self,
        rec: &mut Recorder,
        x: &Array,
        inputs: EncoderInputs<'_>,
        rope: &Array,
    ) -> Result<Array> {
        let [q, k, v] = [0, 1, 2].map(|i| self.qkv[i].forward(rec, x));
        let (q, k, v) = (q?, k?, v?);
        // A cache of one sequence with a position per token of the batch.
        let t = x.elements() / (self.heads * self.head_dim).max(1);
        let shape = [1, t, self.heads, self.head_dim];
        let (k_cache, v_cache) = (rec.temp(DType::F32, &shape)?, rec.temp(DType::F32, &shape)?);
        let args = RopeKvArgs {
            rows: inputs.rows,
            rope,
            k_cache: &k_cache,
            v_cache: &v_cache,
            pairing: Pairing::Half,
        };
        rope_kv(rec, &q, &k, &v, args)?;
        let flat = [t, self.heads * self.head_dim];
        let (k, v) = (k_cache.reshape(&flat)?, v_cache.reshape(&flat)?);
        let args = SpanAttentionArgs {
            q: Part::whole(&q),
            k: Part::whole(&k),
            v: Part::whole(&v),
            spans: inputs.spans,
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: self.head_dim,
            scale: (self.head_dim as f32).powf(-0.5),
        };
        let out = span_attention(rec, args)?;
        self.out_proj.forward(rec, &out)
    }
}

struct Mlp {
    fc11: Linear,
    /// The gate.
    fc12: Linear,
    fc2: Linear,
    act: Activation,
}

impl Mlp {
    fn load(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Self> {
        let (d, f) = (c.hidden_size, c.intermediate_size);
        Ok(Mlp {
            fc11: l.linear(&format!("{name}.fc11"), f, d)?,
            fc12: l.linear(&format!("{name}.fc12"), f, d)?,
            fc2: l.linear(&format!("{name}.fc2"), d, f)?,
            act: c.hidden_act,
        })
    }

    fn forward(&self, rec: &mut Recorder, x: &Array) -> Result<Array> {
        let up = self.fc11.forward(rec, x)?;
        let gate = self.fc12.forward(rec, x)?;
        let h = gated_act(rec, &gate, &up, self.act)?;
        self.fc2.forward(rec, &h)
    }
}

struct Block {
    attn: Attention,
    norm1: LayerNorm,
    mlp: Mlp,
    norm2: LayerNorm,
}

impl Block {
    fn load(l: &mut Loader<'_>, c: &Config, i: usize) -> Result<Self> {
        let name = |part: &str| format!("encoder.layers.{i}.{part}");
        let (d, eps) = (c.hidden_size, c.layer_norm_eps);
        Ok(Block {
            attn: Attention::load(l, c, &name("attn"))?,
            norm1: l.layer_norm(&name("norm1"), d, eps)?,
            mlp: Mlp::load(l, c, &name("mlp"))?,
            norm2: l.layer_norm(&name("norm2"), d, eps)?,
        })
    }
}

/// A NomicBERT on a device.
pub struct NomicBert {
    spec: EncoderSpec,
    word_embeddings: Weight,
    token_type_embeddings: Weight,
    emb_ln: LayerNorm,
    layers: Vec<Block>,
    /// Cosine and sine of every pair at every position, `[P, HD]`.
    rope: Weight,
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
    let hd = head_dim(
        c.num_hidden_layers,
        ("hidden_size", d),
        ("num_attention_heads", c.num_attention_heads),
    )?;
    if !hd.is_multiple_of(8) || c.max_position_embeddings > 1 << 17 {
        return Err(Error::malformed(
            "config.json",
            format!(
                "heads of {hd} elements, {} positions; expected a multiple of 8, at most 131072 positions",
                c.max_position_embeddings
            ),
        ));
    }
    let mut l = Loader::new(checkpoint, device, |_| None, &mut report);
    let word_embeddings = l.table(
        "embeddings.word_embeddings",
        ("vocab_size", c.vocab_size),
        d,
    )?;
    let token_type_embeddings = l.table(
        "embeddings.token_type_embeddings",
        ("type_vocab_size", c.type_vocab_size),
        d,
    )?;
    let emb_ln = l.layer_norm("emb_ln", d, c.layer_norm_eps)?;
    let layers = (0..c.num_hidden_layers)
        .map(|i| Block::load(&mut l, &c, i))
        .collect::<Result<_>>()?;
    let table = c
        .rope
        .table(c.max_position_embeddings, c.max_position_embeddings);
    let table = device.upload(
        DType::F32,
        &[c.max_position_embeddings, hd],
        bytemuck::cast_slice(&table),
        Holder::Weights,
    )?;
    let spec = EncoderSpec {
        vocab: c.vocab_size,
        context: c.max_position_embeddings,
        hidden: d,
        types: c.type_vocab_size,
        head: Head::None,
        pooler: None,
        texts: Texts::Whole,
    };
    Ok(Box::new(NomicBert {
        spec,
        word_embeddings,
        token_type_embeddings,
        emb_ln,
        layers,
        rope: Weight::from_array(&table)?,
    }))
}

impl Encoder for NomicBert {
    fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    fn forward(&self, rec: &mut Recorder, inputs: EncoderInputs<'_>) -> Result<Array> {
        let h = embed::embed(rec, inputs.ids, &self.word_embeddings, 1.0)?;
        let types = embed::embed(rec, inputs.types, &self.token_type_embeddings, 1.0)?;
        let mut x = self.emb_ln.add_forward(rec, &h, &types)?;
        let rope = embed::embed(rec, inputs.positions, &self.rope, 1.0)?;
        let [t, hd] = [rope.shape()[0], self.rope.cols()];
        let rope = rope.reshape(&[t, hd / 2, 2])?;
        for block in &self.layers {
            let attn = block.attn.forward(rec, &x, inputs, &rope)?;
            let h = block.norm1.add_forward(rec, &attn, &x)?;
            let mlp = block.mlp.forward(rec, &h)?;
            x = block.norm2.add_forward(rec, &mlp, &h)?;
        }
        Ok(x)
    }
}
