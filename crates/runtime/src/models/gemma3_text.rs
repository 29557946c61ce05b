//! Gemma 3, text: the 270M and 1B models, and the text tower of the larger ones.
//!
//! Gemma Team 2025; reference `transformers/models/gemma3/modeling_gemma3.py` 5.23.0; GGUF architecture `gemma3` as llama.cpp writes
//! it (the norms' +1 already added). Checked on the `gemma3_text` fixture and Gemma 3 270M.

use super::CausalLm;
use super::decoder::{self, Config, gguf_scaling, gguf_vocab, layer_types};
use crate::checkpoint::{Checkpoint, Config as Source, Fields};
use crate::loader::LoadProgress;
use crate::rope::{Rope, Scaling};
use crate::{Error, Result};
use firelight_kernels::Device;
use firelight_kernels::act::Activation;
use firelight_tensor::gguf::Metadata;
use serde_json::Value;

/// Loads a checkpoint; see [`super::load`].
pub(super) fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn CausalLm>> {
    let config = match checkpoint.config()? {
        // Multimodal checkpoints keep the text tower's numbers one level down.
        Source::Json(value) => from_json(value.get("text_config").unwrap_or(value))?,
        Source::Gguf(metadata) => from_gguf(checkpoint, metadata)?,
    };
    decoder::load(config, checkpoint, device, progress)
}

/// What is the family's own: the factor of the embeddings, norms around both branches, and those of queries and keys.
fn family(hidden_size: usize, head_dim: usize) -> Config {
    Config {
        hidden_size,
        embed_scale: (hidden_size as f32).sqrt(),
        act: Activation::GeluTanh,
        sandwich: true,
        qk_norm: true,
        gguf_name,
        ..Config::plain(head_dim)
    }
}

fn from_gguf(checkpoint: &Checkpoint, m: &Metadata) -> Result<Config> {
    let key = |key: &str| format!("gemma3.{key}");
    let size = |name: &str| -> Result<usize> { Ok(m.require::<u32>(&key(name))? as usize) };
    let hidden_size = size("embedding_length")?;
    let heads = size("attention.head_count")?.max(1);
    let head_dim = size("attention.key_length")?;
    let rope = |name: &str, default: f32, scaling: Scaling| -> Result<Rope> {
        Ok(Rope {
            theta: f64::from(m.get_as::<f32>(&key(name))?.unwrap_or(default)),
            dims: head_dim,
            scaling,
            axes: Vec::new(),
        })
    };
    let layers = size("block_count")?;
    // The 27B model alone scales by hidden / heads; llama.cpp tells it by its 62 layers.
    let scalar = match layers {
        62 => hidden_size / heads,
        _ => head_dim,
    };
    Ok(Config {
        intermediate_size: size("feed_forward_length")?,
        num_attention_heads: heads,
        num_key_value_heads: size("attention.head_count_kv")?,
        vocab_size: gguf_vocab(checkpoint)?,
        max_position_embeddings: size("context_length")?,
        rms_norm_eps: m.require::<f32>(&key("attention.layer_norm_rms_epsilon"))?,
        scale: (scalar as f64).powf(-0.5) as f32,
        windows: pattern(layers, 6, size("attention.sliding_window")?)?,
        ropes: vec![
            rope("rope.freq_base", 1e6, gguf_scaling(m, "gemma3")?)?,
            rope("rope.freq_base_swa", 1e4, Scaling::None)?,
        ],
        ..family(hidden_size, head_dim)
    })
}

fn from_json(value: &Value) -> Result<Config> {
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
    let head_dim = c.maybe_size("head_dim")?.unwrap_or(256);
    let window = c.maybe_size("sliding_window")?.unwrap_or(4096);
    let windows = match layer_types(value, layers)? {
        Some(full) => {
            let window = |full| if full { 0 } else { window as u32 };
            full.into_iter().map(window).collect()
        }
        None => {
            let period = c.maybe_size("sliding_window_pattern")?.unwrap_or(6);
            pattern(layers, period, window)?
        }
    };
    let rope =
        |kind: &str, key: &str, theta| Rope::from_config(value, Some(kind), key, theta, head_dim);
    let full = rope("full_attention", "rope_theta", 1e6)?;
    let mut local = rope("sliding_attention", "rope_local_base_freq", 1e4)?;
    if value.get("rope_parameters").is_none_or(Value::is_null) {
        // The published spelling scales the full layers only.
        local.scaling = Scaling::None;
    }
    let scalar = c.number("query_pre_attn_scalar")?.unwrap_or(256.0);
    if scalar <= 0.0 {
        return Err(Error::malformed(
            "config.json",
            format!("`query_pre_attn_scalar` is {scalar}; expected a positive number"),
        ));
    }
    Ok(Config {
        intermediate_size: c.size("intermediate_size")?,
        num_attention_heads: c.maybe_size("num_attention_heads")?.unwrap_or(8),
        num_key_value_heads: c.maybe_size("num_key_value_heads")?.unwrap_or(4),
        vocab_size: c.maybe_size("vocab_size")?.unwrap_or(262_208),
        max_position_embeddings: c.maybe_size("max_position_embeddings")?.unwrap_or(131_072),
        rms_norm_eps: c.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        scale: scalar.powf(-0.5) as f32,
        windows,
        ropes: vec![full, local],
        norm_offset: 1.0,
        ..family(c.size("hidden_size")?, head_dim)
    })
}

/// Every `period`-th layer sees everything, the others slide.
fn pattern(layers: usize, period: usize, window: usize) -> Result<Vec<u32>> {
    let window = |i: usize| match i.is_multiple_of(period) {
        true => 0,
        false => window as u32,
    };
    Ok((1..=decoder::layers(layers)?).map(window).collect())
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
