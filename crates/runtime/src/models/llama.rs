//! Llama: Llama 2, Llama 3.x, SmolLM2, TinyLlama and whatever else says `model_type: llama`.
//!
//! Touvron et al. 2023; reference `transformers/models/llama/modeling_llama.py` 5.23.0; GGUF as llama.cpp writes it (query and
//! key rows permuted, so that neighbours turn together). Checked on the `llama` and `llama2` fixtures and SmolLM2-135M.

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

/// The numbers of a checkpoint, under upstream's names.
#[derive(Clone, Debug)]
pub struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    rope: Rope,
    pairing: Pairing,
}

impl Config {
    fn read(checkpoint: &Checkpoint) -> Result<Self> {
        match checkpoint.config()? {
            Source::Json(value) => {
                let c = Fields(value);
                let act = c.text("hidden_act").unwrap_or("silu");
                if act != "silu" {
                    return Err(Error::Unsupported(format!(
                        "hidden_act `{act}` in a llama model; expected silu"
                    )));
                }
                let (hidden_size, num_attention_heads) =
                    (c.size("hidden_size")?, c.size("num_attention_heads")?);
                let head_dim = c
                    .maybe_size("head_dim")?
                    .unwrap_or(hidden_size / num_attention_heads);
                Ok(Config {
                    hidden_size,
                    intermediate_size: c.size("intermediate_size")?,
                    num_hidden_layers: c.size("num_hidden_layers")?,
                    num_attention_heads,
                    num_key_value_heads: c
                        .maybe_size("num_key_value_heads")?
                        .unwrap_or(num_attention_heads),
                    head_dim,
                    vocab_size: c.size("vocab_size")?,
                    max_position_embeddings: c
                        .maybe_size("max_position_embeddings")?
                        .unwrap_or(2048),
                    rms_norm_eps: c.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
                    rope: Rope::from_config(value, None, "rope_theta", 1e4, head_dim)?,
                    pairing: Pairing::Half,
                })
            }
            Source::Gguf(m) => {
                let size = |key: &str| -> Result<usize> {
                    Ok(m.require::<u32>(&format!("llama.{key}"))? as usize)
                };
                let maybe = |key: &str| -> Result<Option<usize>> {
                    Ok(m.get_as::<u32>(&format!("llama.{key}"))?
                        .map(|n| n as usize))
                };
                let (hidden_size, heads) = (
                    size("embedding_length")?,
                    size("attention.head_count")?.max(1),
                );
                let head_dim = maybe("attention.key_length")?.unwrap_or(hidden_size / heads);
                let vocab = checkpoint
                    .weights()
                    .require("token_embd.weight")?
                    .shape
                    .dims()[0];
                let scaling = match m.get_as::<&str>("llama.rope.scaling.type")? {
                    None | Some("none") => Scaling::None,
                    Some("linear") => {
                        Scaling::Linear(f64::from(m.require::<f32>("llama.rope.scaling.factor")?))
                    }
                    Some(other) => {
                        return Err(Error::Unsupported(format!(
                            "rope scaling `{other}` in a llama GGUF"
                        )));
                    }
                };
                Ok(Config {
                    hidden_size,
                    intermediate_size: size("feed_forward_length")?,
                    num_hidden_layers: size("block_count")?,
                    num_attention_heads: heads,
                    num_key_value_heads: maybe("attention.head_count_kv")?.unwrap_or(heads),
                    head_dim,
                    vocab_size: vocab,
                    max_position_embeddings: size("context_length")?,
                    rms_norm_eps: m.require::<f32>("llama.attention.layer_norm_rms_epsilon")?,
                    rope: Rope {
                        theta: f64::from(m.get_as::<f32>("llama.rope.freq_base")?.unwrap_or(1e4)),
                        dims: maybe("rope.dimension_count")?.unwrap_or(head_dim),
                        scaling,
                    },
                    pairing: Pairing::Adjacent,
                })
            }
        }
    }

    fn check(&self) -> Result<()> {
        let heads = self.num_key_value_heads > 0
            && self
                .num_attention_heads
                .is_multiple_of(self.num_key_value_heads);
        let limits = self.num_hidden_layers <= 1024
            && self.head_dim <= 512
            && self.head_dim.is_multiple_of(4);
        let rope = self.rope.dims <= self.head_dim && self.rope.dims.is_multiple_of(2);
        if heads && limits && rope {
            return Ok(());
        }
        Err(Error::malformed(
            "configuration",
            format!("sizes do not fit together: {self:?}"),
        ))
    }
}

struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
}

impl Attention {
    fn load(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Self> {
        let (d, q) = (c.hidden_size, c.num_attention_heads * c.head_dim);
        let kv = c.num_key_value_heads * c.head_dim;
        Ok(Attention {
            q_proj: l.linear(&format!("{name}.q_proj"), q, d)?,
            k_proj: l.linear(&format!("{name}.k_proj"), kv, d)?,
            v_proj: l.linear(&format!("{name}.v_proj"), kv, d)?,
            o_proj: l.linear(&format!("{name}.o_proj"), d, q)?,
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
        let k = self.k_proj.forward(rec, x)?;
        let v = self.v_proj.forward(rec, x)?;
        let (k_cache, v_cache) = cache.layer(layer);
        let args = RopeKvArgs {
            rows,
            rope: cache.rope(0),
            k_cache,
            v_cache,
            pairing: c.pairing,
        };
        rope_kv(rec, &q, &k, &v, args)?;
        let scale = (c.head_dim as f32).powf(-0.5);
        let args = AttentionArgs {
            rows,
            k_cache,
            v_cache,
            window: 0,
            scale,
            softcap: 0.0,
        };
        let out = attention(rec, &q, args)?;
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
        let h = gated_act(rec, &gate, &up, Activation::Silu)?;
        self.down_proj.forward(rec, &h)
    }
}

struct Block {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl Block {
    fn load(l: &mut Loader<'_>, c: &Config, i: usize) -> Result<Self> {
        let (d, eps) = (c.hidden_size, c.rms_norm_eps);
        Ok(Block {
            input_layernorm: l.rms_norm(&format!("layers.{i}.input_layernorm"), d, eps, 0.0)?,
            self_attn: Attention::load(l, c, &format!("layers.{i}.self_attn"))?,
            post_attention_layernorm: l.rms_norm(
                &format!("layers.{i}.post_attention_layernorm"),
                d,
                eps,
                0.0,
            )?,
            mlp: Mlp::load(l, c, &format!("layers.{i}.mlp"))?,
        })
    }
}

/// A Llama on a device.
pub struct Llama {
    config: Config,
    spec: Spec,
    embed_tokens: Weight,
    layers: Vec<Block>,
    norm: RmsNorm,
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
    let mut config = Config::read(checkpoint)?;
    let mut l = Loader::new(checkpoint, device, gguf_name, &mut report);
    if l.is_gguf() && l.has("rope_freqs.weight") {
        config.rope.scaling =
            Scaling::Factors(l.host("rope_freqs.weight", &[config.rope.dims / 2])?);
    }
    config.check()?;
    let (d, v) = (config.hidden_size, config.vocab_size);
    let embed_tokens = l.weight("embed_tokens", v, d)?;
    let layers = (0..config.num_hidden_layers)
        .map(|i| Block::load(&mut l, &config, i))
        .collect::<Result<_>>()?;
    let norm = l.rms_norm("norm", d, config.rms_norm_eps, 0.0)?;
    let lm_head = match l.has("lm_head.weight") {
        true => Some(l.weight("lm_head", v, d)?),
        false => None,
    };
    let layer = LayerCache::Attention {
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
    };
    let spec = Spec {
        vocab: v,
        context: config.max_position_embeddings,
        layers: vec![layer; config.num_hidden_layers],
        ropes: vec![config.rope.clone()],
    };
    Ok(Box::new(Llama {
        config,
        spec,
        embed_tokens,
        layers,
        norm,
        lm_head,
    }))
}

impl CausalLm for Llama {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        inputs: Inputs<'_>,
        cache: &Cache,
    ) -> Result<Option<Array>> {
        let h = embed::embed(rec, inputs.ids, &self.embed_tokens, 1.0)?;
        let mut branch: Option<Array> = None;
        for (i, block) in self.layers.iter().enumerate() {
            let x = match branch.take() {
                Some(mlp) => block.input_layernorm.add_forward(rec, &h, &mlp)?,
                None => block.input_layernorm.forward(rec, &h)?,
            };
            let attn = block
                .self_attn
                .forward(rec, &self.config, &x, inputs.rows, cache, i)?;
            let x = block.post_attention_layernorm.add_forward(rec, &h, &attn)?;
            drop(attn);
            branch = Some(block.mlp.forward(rec, &x)?);
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

/// Upstream names to GGUF's.
pub(super) fn gguf_name(name: &str) -> Option<String> {
    let fixed = match name {
        "embed_tokens.weight" => Some("token_embd.weight"),
        "norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        "rope_freqs.weight" => Some("rope_freqs.weight"),
        _ => None,
    };
    if let Some(fixed) = fixed {
        return Some(fixed.to_owned());
    }
    let (layer, rest) = name.strip_prefix("layers.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let part = match part {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.{kind}"))
}
