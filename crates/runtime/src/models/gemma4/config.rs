//! The numbers of a Gemma 4 text model.

use crate::checkpoint::{Checkpoint, Config as Source, Fields};
use crate::models::decoder::{check_heads, check_rope, gguf_vocab, layer_types, layers};
use crate::rope::{Rope, Scaling};
use crate::{Error, Result};
use firelight_tensor::gguf::{Array, Metadata, Value as Meta};
use serde_json::Value;
use std::borrow::Cow;

/// The numbers of a checkpoint, under upstream's names.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub hidden_size: usize,
    pub num_attention_heads: usize,
    pub vocab_size: usize,
    pub vocab_size_per_layer_input: usize,
    /// 0: no per-layer embeddings.
    pub hidden_size_per_layer_input: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f32,
    pub sliding_window: usize,
    pub attention_bias: bool,
    /// 0: none.
    pub final_logit_softcapping: f32,
    pub layers: Vec<Layer>,
    /// Of full, then of sliding layers.
    pub ropes: [Rope; 2],
    pub experts: Option<Experts>,
    /// Tokens of a picture see each other on sliding layers.
    #[cfg(feature = "vision")]
    pub mutual_pictures: bool,
}

/// What differs from layer to layer.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub sliding: bool,
    pub head_dim: usize,
    pub num_key_value_heads: usize,
    pub intermediate_size: usize,
    /// Values are the keys before their norm and rotation.
    pub k_eq_v: bool,
    /// Which of the cached layers holds its keys and values; the layer itself computes them if `own`.
    pub cache: usize,
    pub own: bool,
}

/// The mixture of experts beside each MLP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Experts {
    pub num_experts: usize,
    pub top_k_experts: usize,
    pub moe_intermediate_size: usize,
}

impl Config {
    pub(super) fn read(checkpoint: &Checkpoint) -> Result<Self> {
        match checkpoint.config()? {
            // Multimodal checkpoints keep the text tower's numbers one level down.
            Source::Json(value) => from_json(value.get("text_config").unwrap_or(value)),
            Source::Gguf(metadata) => from_gguf(checkpoint, metadata),
        }
    }

    /// Layers that have a cache of their own, in order.
    pub(super) fn cached(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(|l| l.own)
    }

    /// Bounds what the file can ask for.
    pub(super) fn check(&self) -> Result<()> {
        for layer in &self.layers {
            check_heads(
                self.num_attention_heads,
                layer.num_key_value_heads,
                layer.head_dim,
            )?;
            check_rope(&self.ropes[usize::from(layer.sliding)], layer.head_dim)?;
        }
        if !self.hidden_size_per_layer_input.is_multiple_of(8) {
            return Err(Error::malformed(
                "configuration",
                format!(
                    "`hidden_size_per_layer_input` {} is no multiple of 8",
                    self.hidden_size_per_layer_input
                ),
            ));
        }
        let Some(experts) = &self.experts else {
            return Ok(());
        };
        let most = experts
            .num_experts
            .min(firelight_kernels::expert_route::MAX_CHOSEN);
        if experts.top_k_experts > most {
            return Err(Error::malformed(
                "configuration",
                format!("`top_k_experts` {} is above {most}", experts.top_k_experts),
            ));
        }
        Ok(())
    }
}

fn from_json(value: &Value) -> Result<Config> {
    let c = Fields(value);
    if let Some(kind @ "all") = c.text("use_bidirectional_attention") {
        return Err(Error::Unsupported(format!(
            "`use_bidirectional_attention` {kind} in a gemma4 model"
        )));
    }
    let act = c.text("hidden_activation").unwrap_or("gelu_pytorch_tanh");
    if act != "gelu_pytorch_tanh" {
        return Err(Error::Unsupported(format!(
            "`hidden_activation` {act} in a gemma4 model; expected gelu_pytorch_tanh"
        )));
    }
    let count = layers(c.maybe_size("num_hidden_layers")?.unwrap_or(30))?;
    let head_dim = c.maybe_size("head_dim")?.unwrap_or(256);
    let kv_heads = c.maybe_size("num_key_value_heads")?.unwrap_or(4);
    let k_eq_v = c.flag("attention_k_eq_v") == Some(true);
    let mut full = layer_types(value, count)?
        .unwrap_or_else(|| (1..=count).map(|i| i.is_multiple_of(6)).collect());
    // The last layer sees everything, whatever the list says.
    if let Some(last) = full.last_mut() {
        *last = true;
    }
    let global = Heads {
        head_dim: c.maybe_size("global_head_dim")?.unwrap_or(512),
        kv_heads: match k_eq_v {
            true => c.maybe_size("num_global_key_value_heads")?,
            false => None,
        }
        .unwrap_or(kv_heads),
    };
    let heads = (0..count).map(|i| {
        let usual = Heads { head_dim, kv_heads };
        match value.get("per_layer_config").filter(|v| !v.is_null()) {
            Some(all) => usual.changed(all.get(i.to_string())),
            None if full[i] => Ok(global),
            None => Ok(usual),
        }
    });
    let heads = heads.collect::<Result<Vec<_>>>()?;
    let shared = c.count("num_kv_shared_layers")?;
    let first_shared = count.saturating_sub(shared);
    let intermediate = c.maybe_size("intermediate_size")?.unwrap_or(9216);
    let wide = c.flag("use_double_wide_mlp") == Some(true);
    let experts = match c.flag("enable_moe_block") {
        Some(true) => Some(Experts {
            num_experts: c.size("num_experts")?,
            top_k_experts: c.size("top_k_experts")?,
            moe_intermediate_size: c.size("moe_intermediate_size")?,
        }),
        _ => None,
    };
    let sliding_heads = (0..count).find(|&i| !full[i]).map(|i| heads[i]);
    let full_heads = (0..count).find(|&i| full[i]).map(|i| heads[i]);
    let vocab_size = c.maybe_size("vocab_size")?.unwrap_or(262_144);
    Ok(Config {
        hidden_size: c.maybe_size("hidden_size")?.unwrap_or(2304),
        num_attention_heads: c.maybe_size("num_attention_heads")?.unwrap_or(8),
        vocab_size,
        vocab_size_per_layer_input: c
            .maybe_size("vocab_size_per_layer_input")?
            .unwrap_or(262_144),
        hidden_size_per_layer_input: match value.get("hidden_size_per_layer_input") {
            None => 256,
            Some(_) => c.count("hidden_size_per_layer_input")?,
        },
        max_position_embeddings: c.maybe_size("max_position_embeddings")?.unwrap_or(131_072),
        rms_norm_eps: c.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        sliding_window: c.maybe_size("sliding_window")?.unwrap_or(512),
        attention_bias: c.flag("attention_bias") == Some(true),
        final_logit_softcapping: c.number("final_logit_softcapping")?.unwrap_or(0.0) as f32,
        layers: assemble(first_shared, &full, |i, shares| Layer {
            sliding: !full[i],
            head_dim: heads[i].head_dim,
            num_key_value_heads: heads[i].kv_heads,
            intermediate_size: if wide && shares {
                2 * intermediate
            } else {
                intermediate
            },
            k_eq_v: k_eq_v && full[i],
            cache: 0,
            own: true,
        })?,
        ropes: ropes(
            value,
            full_heads.map_or(head_dim, |h| h.head_dim),
            sliding_heads.map_or(head_dim, |h| h.head_dim),
        )?,
        experts,
        #[cfg(feature = "vision")]
        mutual_pictures: c.text("use_bidirectional_attention") == Some("vision"),
    })
}

/// Head sizes of a layer.
#[derive(Clone, Copy)]
struct Heads {
    head_dim: usize,
    kv_heads: usize,
}

impl Heads {
    /// With what a layer's entry of `per_layer_config` changes.
    fn changed(self, entry: Option<&Value>) -> Result<Self> {
        let Some(entry) = entry else {
            return Ok(self);
        };
        let known = ["head_dim", "num_key_value_heads"];
        let other = entry.as_object().into_iter().flatten();
        if let Some((key, _)) = other
            .into_iter()
            .find(|(k, _)| !known.contains(&k.as_str()))
        {
            return Err(Error::Unsupported(format!(
                "`{key}` in `per_layer_config` of a gemma4 model"
            )));
        }
        let c = Fields(entry);
        Ok(Heads {
            head_dim: c.maybe_size("head_dim")?.unwrap_or(self.head_dim),
            kv_heads: c
                .maybe_size("num_key_value_heads")?
                .unwrap_or(self.kv_heads),
        })
    }
}

/// The layers, those from `first_shared` on with the cache of the last one before it that is of their type.
fn assemble(
    first_shared: usize,
    full: &[bool],
    layer: impl Fn(usize, bool) -> Layer,
) -> Result<Vec<Layer>> {
    let make = |(i, &kind): (usize, &bool)| {
        let shares = i >= first_shared;
        let source = match shares {
            true => full[..first_shared].iter().rposition(|&k| k == kind),
            false => Some(i),
        };
        let cache = source.ok_or_else(|| {
            Error::malformed(
                "configuration",
                format!("`num_kv_shared_layers`: no layer of layer {i}'s type has keys and values before layer {first_shared}"),
            )
        })?;
        let layer = layer(i, shares);
        Ok(Layer {
            cache,
            own: !shares,
            ..layer
        })
    };
    full.iter().enumerate().map(make).collect()
}

/// Rotary embeddings of full and of sliding layers.
fn ropes(value: &Value, full_dims: usize, sliding_dims: usize) -> Result<[Rope; 2]> {
    if value.get("rope_parameters").is_none_or(Value::is_null) {
        let pairs = full_dims / 8;
        let scaling = Scaling::Proportional { pairs, factor: 1.0 };
        return Ok([
            rope(1e6, full_dims, scaling),
            rope(1e4, sliding_dims, Scaling::None),
        ]);
    }
    let read = |kind: &str, theta, dims| {
        let own = value.get("rope_parameters").and_then(|v| v.get(kind));
        if own.is_some_and(|v| v.get("rope_type").is_none()) {
            let what = format!("`rope_parameters` of {kind} have no `rope_type`");
            return Err(Error::malformed("config.json", what));
        }
        Rope::from_config(value, Some(kind), "rope_theta", theta, dims)
    };
    Ok([
        read("full_attention", 1e6, full_dims)?,
        read("sliding_attention", 1e4, sliding_dims)?,
    ])
}

fn rope(theta: f64, dims: usize, scaling: Scaling) -> Rope {
    Rope {
        theta,
        dims,
        scaling,
        axes: Vec::new(),
    }
}

fn from_gguf(checkpoint: &Checkpoint, m: &Metadata) -> Result<Config> {
    let key = |name: &str| format!("gemma4.{name}");
    let size = |name: &str| -> Result<usize> { Ok(m.require::<u32>(&key(name))? as usize) };
    let maybe =
        |name: &str| -> Result<usize> { Ok(m.get_as::<u32>(&key(name))?.unwrap_or(0) as usize) };
    let theta = |name: &str, default: f32| -> Result<f64> {
        Ok(f64::from(m.get_as::<f32>(&key(name))?.unwrap_or(default)))
    };
    let count = layers(size("block_count")?)?;
    // One number for all layers, or a list.
    let each = |name: &str| -> Result<Vec<usize>> {
        if let Ok(Some(n)) = m.get_as::<u32>(&key(name)) {
            return Ok(vec![n as usize; count]);
        }
        let list = m.require::<Cow<'_, [u32]>>(&key(name))?;
        if list.len() != count {
            return Err(Error::malformed(
                "GGUF metadata",
                format!(
                    "`{}` has {} entries for {count} layers",
                    key(name),
                    list.len()
                ),
            ));
        }
        Ok(list.iter().map(|&n| n as usize).collect())
    };
    let pattern = match m.get(&key("attention.sliding_window_pattern")) {
        Some(Meta::Array(Array::Bool(list))) => list,
        found => {
            return Err(Error::malformed(
                "GGUF metadata",
                format!(
                    "`{}` is {}; expected a list of bool",
                    key("attention.sliding_window_pattern"),
                    if found.is_some() {
                        "something else"
                    } else {
                        "missing"
                    }
                ),
            ));
        }
    };
    if pattern.len() != count {
        return Err(Error::malformed(
            "GGUF metadata",
            format!(
                "`{}` has {} entries for {count} layers",
                key("attention.sliding_window_pattern"),
                pattern.len()
            ),
        ));
    }
    let full: Vec<bool> = pattern.iter().map(|s| !s).collect();
    let (kv_heads, widths) = (
        each("attention.head_count_kv")?,
        each("feed_forward_length")?,
    );
    let (full_dims, sliding_dims) = (
        size("attention.key_length")?,
        size("attention.key_length_swa")?,
    );
    let first_shared = count.saturating_sub(maybe("attention.shared_kv_layers")?);
    let vocab = gguf_vocab(checkpoint)?;
    let experts = match maybe("expert_count")? {
        0 => None,
        num_experts => Some(Experts {
            num_experts,
            top_k_experts: size("expert_used_count")?,
            moe_intermediate_size: size("expert_feed_forward_length")?,
        }),
    };
    let has = |name: String| checkpoint.weights().info(&name).is_some();
    Ok(Config {
        hidden_size: size("embedding_length")?,
        num_attention_heads: size("attention.head_count")?.max(1),
        vocab_size: vocab,
        vocab_size_per_layer_input: vocab,
        hidden_size_per_layer_input: maybe("embedding_length_per_layer_input")?,
        max_position_embeddings: size("context_length")?,
        rms_norm_eps: m.require::<f32>(&key("attention.layer_norm_rms_epsilon"))?,
        sliding_window: size("attention.sliding_window")?,
        attention_bias: false,
        final_logit_softcapping: m
            .get_as::<f32>(&key("final_logit_softcapping"))?
            .unwrap_or(0.0),
        layers: assemble(first_shared, &full, |i, _| Layer {
            sliding: !full[i],
            head_dim: if full[i] { full_dims } else { sliding_dims },
            num_key_value_heads: kv_heads[i],
            intermediate_size: widths[i],
            k_eq_v: full[i] && !has(format!("blk.{i}.attn_v.weight")),
            cache: 0,
            own: true,
        })?,
        ropes: [
            // The pairs that stay are in a tensor; see the loading.
            rope(theta("rope.freq_base", 1e6)?, full_dims, Scaling::None),
            rope(
                theta("rope.freq_base_swa", 1e4)?,
                sliding_dims,
                Scaling::None,
            ),
        ],
        experts,
        #[cfg(feature = "vision")]
        mutual_pictures: false,
    })
}
