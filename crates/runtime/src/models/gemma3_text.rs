//! Gemma 3, text: the 270M and 1B models, and the text tower of the larger ones.
//!
//! Gemma Team 2025; reference `transformers/models/gemma3/modeling_gemma3.py` 5.23.0; GGUF architecture `gemma3` as llama.cpp writes
//! it (the norms' +1 already added). Checked on the `gemma3_text` fixture and Gemma 3 270M.

use super::decoder::{self, check_heads, layer_types};
use super::{CausalLm, Inputs, LayerCache, Spec, wanted_rows};
use crate::cache::Cache;
use crate::checkpoint::{Checkpoint, Config as Source, Fields};
use crate::loader::{Linear, LoadProgress, Loader, RmsNorm};
use crate::rope::{Rope, Scaling};
use crate::{Error, Result};
use firelight_kernels::attention::{AttentionArgs, attention};
use firelight_kernels::gated_act::{Activation, gated_act};
use firelight_kernels::rope_kv::{Pairing, RopeKvArgs, rope_kv};
use firelight_kernels::{Array, Device, Recorder, Weight, embed, linear};
use serde_json::Value;

/// The numbers of a checkpoint, under upstream's names.
#[derive(Clone, Debug)]
pub struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    query_pre_attn_scalar: f64,
    sliding_window: usize,
    /// Per layer: true for sliding attention.
    sliding: Vec<bool>,
    /// Of full, then of sliding layers.
    ropes: [Rope; 2],
    /// Added to norm weights.
    norm_offset: f32,
}

impl Config {
    fn read(checkpoint: &Checkpoint) -> Result<Self> {
        match checkpoint.config()? {
            // Multimodal checkpoints keep the text tower's numbers one level down.
            Source::Json(value) => Self::from_json(value.get("text_config").unwrap_or(value)),
            Source::Gguf(m) => {
                let key = |key: &str| format!("gemma3.{key}");
                let size =
                    |name: &str| -> Result<usize> { Ok(m.require::<u32>(&key(name))? as usize) };
                let heads = size("attention.head_count")?.max(1);
                let head_dim = size("attention.key_length")?;
                let theta = |name: &str, default: f32| -> Result<f64> {
                    Ok(f64::from(m.get_as::<f32>(&key(name))?.unwrap_or(default)))
                };
                let scaling = match m.get_as::<&str>(&key("rope.scaling.type"))? {
                    None | Some("none") => Scaling::None,
                    Some("linear") => {
                        Scaling::Linear(f64::from(m.require::<f32>(&key("rope.scaling.factor"))?))
                    }
                    Some(other) => {
                        return Err(Error::Unsupported(format!(
                            "rope scaling `{other}` in a gemma3 GGUF"
                        )));
                    }
                };
                let full = Rope {
                    theta: theta("rope.freq_base", 1e6)?,
                    dims: head_dim,
                    scaling,
                };
                let local = Rope {
                    theta: theta("rope.freq_base_swa", 1e4)?,
                    dims: head_dim,
                    scaling: Scaling::None,
                };
                let layers = size("block_count")?;
                Ok(Config {
                    hidden_size: size("embedding_length")?,
                    intermediate_size: size("feed_forward_length")?,
                    num_attention_heads: heads,
                    num_key_value_heads: size("attention.head_count_kv")?,
                    head_dim,
                    vocab_size: checkpoint
                        .weights()
                        .require("token_embd.weight")?
                        .shape
                        .dims()[0],
                    max_position_embeddings: size("context_length")?,
                    rms_norm_eps: m.require::<f32>(&key("attention.layer_norm_rms_epsilon"))?,
                    // The 27B model alone scales by hidden / heads; llama.cpp tells it by its 62 layers.
                    query_pre_attn_scalar: match layers {
                        62 => (size("embedding_length")? / heads) as f64,
                        _ => head_dim as f64,
                    },
                    sliding_window: size("attention.sliding_window")?,
                    sliding: pattern(layers, 6)?,
                    ropes: [full, local],
                    norm_offset: 0.0,
                })
            }
        }
    }

    fn from_json(value: &Value) -> Result<Self> {
        let c = Fields(value);
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if c.number(key)?.is_some() {
                return Err(Error::Unsupported(format!("`{key}` in a gemma3 model")));
            }
        }
        if c.flag("use_bidirectional_attention") == Some(true) {
            return Err(Error::Unsupported(
                "gemma3 with bidirectional attention (EmbeddingGemma)".into(),
            ));
        }
        let act = c.text("hidden_activation").unwrap_or("gelu_pytorch_tanh");
        if act != "gelu_pytorch_tanh" {
            return Err(Error::Unsupported(format!(
                "`hidden_activation` {act} in a gemma3 model"
            )));
        }
        let layers = c.size("num_hidden_layers")?;
        let heads = c.maybe_size("num_attention_heads")?.unwrap_or(8);
        let head_dim = c.maybe_size("head_dim")?.unwrap_or(256);
        let sliding = match layer_types(value, layers)? {
            Some(full) => full.into_iter().map(|full| !full).collect(),
            None => pattern(layers, c.maybe_size("sliding_window_pattern")?.unwrap_or(6))?,
        };
        let full = Rope::from_config(value, Some("full_attention"), "rope_theta", 1e6, head_dim)?;
        let mut local = Rope::from_config(
            value,
            Some("sliding_attention"),
            "rope_local_base_freq",
            1e4,
            head_dim,
        )?;
        if value.get("rope_parameters").is_none_or(Value::is_null) {
            // The published spelling scales the full layers only.
            local.scaling = Scaling::None;
        }
        Ok(Config {
            hidden_size: c.size("hidden_size")?,
            intermediate_size: c.size("intermediate_size")?,
            num_attention_heads: heads,
            num_key_value_heads: c.maybe_size("num_key_value_heads")?.unwrap_or(4),
            head_dim,
            vocab_size: c.maybe_size("vocab_size")?.unwrap_or(262_208),
            max_position_embeddings: c.maybe_size("max_position_embeddings")?.unwrap_or(131_072),
            rms_norm_eps: c.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            query_pre_attn_scalar: c.number("query_pre_attn_scalar")?.unwrap_or(256.0),
            sliding_window: c.maybe_size("sliding_window")?.unwrap_or(4096),
            sliding,
            ropes: [full, local],
            norm_offset: 1.0,
        })
    }

    fn check(&self) -> Result<()> {
        check_heads(
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        )?;
        if self.query_pre_attn_scalar > 0.0 {
            return Ok(());
        }
        let what = format!(
            "`query_pre_attn_scalar` is {}; expected a positive number",
            self.query_pre_attn_scalar
        );
        Err(Error::malformed("configuration", what))
    }
}

/// Every `period`-th layer sees everything, the others slide.
fn pattern(layers: usize, period: usize) -> Result<Vec<bool>> {
    let layers = 1..=decoder::layers(layers)?;
    Ok(layers.map(|i| !i.is_multiple_of(period)).collect())
}

struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
}

impl Attention {
    fn load(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Self> {
        let (d, q) = (c.hidden_size, c.num_attention_heads * c.head_dim);
        let (kv, eps) = (c.num_key_value_heads * c.head_dim, c.rms_norm_eps);
        Ok(Attention {
            q_proj: l.linear(&format!("{name}.q_proj"), q, d)?,
            k_proj: l.linear(&format!("{name}.k_proj"), kv, d)?,
            v_proj: l.linear(&format!("{name}.v_proj"), kv, d)?,
            o_proj: l.linear(&format!("{name}.o_proj"), d, q)?,
            q_norm: l.rms_norm(&format!("{name}.q_norm"), c.head_dim, eps, c.norm_offset)?,
            k_norm: l.rms_norm(&format!("{name}.k_norm"), c.head_dim, eps, c.norm_offset)?,
        })
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        c: &Config,
        x: &Array,
        rows: &Array,
        cache: &Cache,
        layer: usize,
    ) -> Result<Array> {
        let q = self.q_proj.forward(rec, x)?;
        let q = self.q_norm.forward(rec, &q)?;
        let k = self.k_proj.forward(rec, x)?;
        let k = self.k_norm.forward(rec, &k)?;
        let v = self.v_proj.forward(rec, x)?;
        let (k_cache, v_cache) = cache.layer(layer);
        let sliding = c.sliding[layer];
        let rope = cache.rope(usize::from(sliding));
        rope_kv(
            rec,
            &q,
            &k,
            &v,
            RopeKvArgs {
                rows,
                rope,
                k_cache,
                v_cache,
                pairing: Pairing::Half,
            },
        )?;
        let window = if sliding { c.sliding_window as u32 } else { 0 };
        let scale = c.query_pre_attn_scalar.powf(-0.5) as f32;
        let out = attention(
            rec,
            &q,
            AttentionArgs {
                rows,
                k_cache,
                v_cache,
                window,
                scale,
                softcap: 0.0,
            },
        )?;
        self.o_proj.forward(rec, &out)
    }
}

struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn load(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Self> {
        let (d, f) = (c.hidden_size, c.intermediate_size);
        Ok(Mlp {
            gate_proj: l.linear(&format!("{name}.gate_proj"), f, d)?,
            up_proj: l.linear(&format!("{name}.up_proj"), f, d)?,
            down_proj: l.linear(&format!("{name}.down_proj"), d, f)?,
        })
    }

    fn forward(&self, rec: &mut Recorder, x: &Array) -> Result<Array> {
        let gate = self.gate_proj.forward(rec, x)?;
        let up = self.up_proj.forward(rec, x)?;
        let h = gated_act(rec, &gate, &up, Activation::GeluTanh)?;
        self.down_proj.forward(rec, &h)
    }
}

struct Block {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: Mlp,
    post_feedforward_layernorm: RmsNorm,
}

impl Block {
    fn load(l: &mut Loader<'_>, c: &Config, i: usize) -> Result<Self> {
        let norm = |l: &mut Loader<'_>, name: &str| {
            l.rms_norm(
                &format!("layers.{i}.{name}"),
                c.hidden_size,
                c.rms_norm_eps,
                c.norm_offset,
            )
        };
        Ok(Block {
            input_layernorm: norm(l, "input_layernorm")?,
            self_attn: Attention::load(l, c, &format!("layers.{i}.self_attn"))?,
            post_attention_layernorm: norm(l, "post_attention_layernorm")?,
            pre_feedforward_layernorm: norm(l, "pre_feedforward_layernorm")?,
            mlp: Mlp::load(l, c, &format!("layers.{i}.mlp"))?,
            post_feedforward_layernorm: norm(l, "post_feedforward_layernorm")?,
        })
    }
}

/// A Gemma 3 text model on a device.
pub struct Gemma3Text {
    config: Config,
    spec: Spec,
    embed_tokens: Weight,
    layers: Vec<Block>,
    norm: RmsNorm,
    /// `None`: tied to the embedding, without its scale.
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
    let (d, v) = (config.hidden_size, config.vocab_size);
    let embed_tokens = l.table("embed_tokens", ("vocab_size", v), d)?;
    let layers = (0..config.sliding.len())
        .map(|i| Block::load(&mut l, &config, i))
        .collect::<Result<_>>()?;
    let norm = l.rms_norm("norm", d, config.rms_norm_eps, config.norm_offset)?;
    let lm_head = match l.has("lm_head.weight") {
        true => Some(l.table("lm_head", ("vocab_size", v), d)?),
        false => None,
    };
    let layer = |sliding: &bool| {
        let window = if *sliding { config.sliding_window } else { 0 };
        LayerCache::attention(config.num_key_value_heads, config.head_dim, window)
    };
    let spec = Spec {
        vocab: v,
        context: config.max_position_embeddings,
        layers: config.sliding.iter().map(layer).collect(),
        ropes: config.ropes.to_vec(),
    };
    Ok(Box::new(Gemma3Text {
        config,
        spec,
        embed_tokens,
        layers,
        norm,
        lm_head,
    }))
}

impl CausalLm for Gemma3Text {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        inputs: Inputs<'_>,
        cache: &Cache,
    ) -> Result<Option<Array>> {
        let scale = (self.config.hidden_size as f32).sqrt();
        let h = embed::embed(rec, inputs.ids, &self.embed_tokens, scale)?;
        let mut branch: Option<Array> = None;
        for (i, block) in self.layers.iter().enumerate() {
            let x = match branch.take() {
                Some(mlp) => block.input_layernorm.add_forward(rec, &h, &mlp)?,
                None => block.input_layernorm.forward(rec, &h)?,
            };
            let attn = block
                .self_attn
                .forward(rec, &self.config, &x, inputs.rows, cache, i)?;
            let attn = block.post_attention_layernorm.forward(rec, &attn)?;
            let x = block
                .pre_feedforward_layernorm
                .add_forward(rec, &h, &attn)?;
            drop(attn);
            let mlp = block.mlp.forward(rec, &x)?;
            branch = Some(block.post_feedforward_layernorm.forward(rec, &mlp)?);
        }
        let x = match branch.take() {
            Some(mlp) => self.norm.add_forward(rec, &h, &mlp)?,
            None => self.norm.forward(rec, &h)?,
        };
        let Some(x) = wanted_rows(rec, x, inputs.logits)? else {
            return Ok(None);
        };
        Ok(Some(linear::linear(
            rec,
            &x,
            self.lm_head.as_ref().unwrap_or(&self.embed_tokens),
        )?))
    }
}

/// Upstream names to GGUF's: as Llama's, but for the norms.
pub(super) fn gguf_name(name: &str) -> Option<String> {
    let norm = name
        .strip_prefix("layers.")
        .and_then(|r| r.split_once('.'))
        .and_then(|(layer, rest)| {
            let part = match rest {
                "post_attention_layernorm.weight" => "post_attention_norm",
                "pre_feedforward_layernorm.weight" => "ffn_norm",
                "post_feedforward_layernorm.weight" => "post_ffw_norm",
                "self_attn.q_norm.weight" => "attn_q_norm",
                "self_attn.k_norm.weight" => "attn_k_norm",
                _ => return None,
            };
            Some(format!("blk.{layer}.{part}.weight"))
        });
    norm.or_else(|| decoder::gguf_name(name))
}
