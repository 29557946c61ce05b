//! The numbers of a Qwen3.5 text tower, from `config.json` or GGUF metadata.

use crate::checkpoint::{Checkpoint, Config as Source, Fields};
use crate::models::decoder::{check_heads, check_rope, gguf_vocab, layers};
use crate::models::parts::Heads;
use crate::rope::{Rope, gguf_axes};
use crate::{Error, Result};
use firelight_kernels::gated_delta_rule::HeadOrder;
use firelight_tensor::gguf::Metadata;
use serde_json::Value;

/// The numbers of a checkpoint, under upstream's names.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_attention_heads: usize,
    pub(super) num_key_value_heads: usize,
    pub(super) head_dim: usize,
    pub(super) vocab_size: usize,
    pub(super) max_position_embeddings: usize,
    pub(super) rms_norm_eps: f32,
    pub(super) linear_conv_kernel_dim: usize,
    pub(super) linear_key_head_dim: usize,
    pub(super) linear_value_head_dim: usize,
    pub(super) linear_num_key_heads: usize,
    pub(super) linear_num_value_heads: usize,
    /// Per layer: true for full attention.
    pub(super) full_attention: Vec<bool>,
    pub(super) rope: Rope,
    /// Added to the weights of all norms but the gated one.
    pub(super) norm_offset: f32,
    /// The file has `A_log`, not `−exp(A_log)`.
    pub(super) log_decay: bool,
    pub(super) order: HeadOrder,
}

impl Config {
    /// Of the layers of full attention.
    pub(super) fn heads(&self) -> Heads {
        Heads {
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
        }
    }

    pub(super) fn read(checkpoint: &Checkpoint) -> Result<Self> {
        match checkpoint.config()? {
            // Multimodal checkpoints keep the text tower's numbers one level down.
            Source::Json(value) => Self::from_json(value.get("text_config").unwrap_or(value)),
            Source::Gguf(metadata) => Self::from_gguf(checkpoint, metadata),
        }
    }

    fn from_json(value: &Value) -> Result<Self> {
        let c = Fields(value);
        let act = c.text("hidden_act").unwrap_or("silu");
        if act != "silu" {
            return Err(Error::Unsupported(format!(
                "`hidden_act` {act} in a qwen3_5 model; expected silu"
            )));
        }
        for (key, expected) in [("attention_bias", false), ("attn_output_gate", true)] {
            if c.flag(key).is_some_and(|flag| flag != expected) {
                return Err(Error::Unsupported(format!(
                    "`{key}` {} in a qwen3_5 model; expected {expected}",
                    !expected
                )));
            }
        }
        let size = |key: &str, default: usize| -> Result<usize> {
            Ok(c.maybe_size(key)?.unwrap_or(default))
        };
        let head_dim = size("head_dim", 256)?;
        let rope = value.get("rope_parameters").filter(|v| v.is_object());
        let partial = match rope.map(|r| Fields(r).number("partial_rotary_factor")) {
            Some(factor) => factor?,
            None => None,
        };
        let partial = match partial {
            Some(factor) => factor,
            None => c.number("partial_rotary_factor")?.unwrap_or(0.25),
        };
        let turning = (head_dim as f64 * partial) as usize;
        Ok(Config {
            hidden_size: c.size("hidden_size")?,
            intermediate_size: c.size("intermediate_size")?,
            num_attention_heads: size("num_attention_heads", 16)?,
            num_key_value_heads: size("num_key_value_heads", 4)?,
            head_dim,
            vocab_size: c.size("vocab_size")?,
            max_position_embeddings: size("max_position_embeddings", 32_768)?,
            rms_norm_eps: c.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            linear_conv_kernel_dim: size("linear_conv_kernel_dim", 4)?,
            linear_key_head_dim: size("linear_key_head_dim", 128)?,
            linear_value_head_dim: size("linear_value_head_dim", 128)?,
            linear_num_key_heads: size("linear_num_key_heads", 16)?,
            linear_num_value_heads: size("linear_num_value_heads", 32)?,
            full_attention: layer_types(value, layers(c.size("num_hidden_layers")?)?)?,
            rope: Rope::from_config(value, None, "rope_theta", 1e4, turning)?,
            norm_offset: 1.0,
            log_decay: true,
            order: HeadOrder::Grouped,
        })
    }

    fn from_gguf(checkpoint: &Checkpoint, m: &Metadata) -> Result<Self> {
        let key = |key: &str| format!("qwen35.{key}");
        let size = |name: &str| -> Result<usize> { Ok(m.require::<u32>(&key(name))? as usize) };
        let maybe = |name: &str| -> Result<Option<usize>> {
            Ok(m.get_as::<u32>(&key(name))?.map(|n| n as usize))
        };
        let heads = size("ssm.time_step_rank")?;
        let inner = size("ssm.inner_size")?;
        if heads == 0 || !inner.is_multiple_of(heads) {
            return Err(Error::malformed(
                "GGUF metadata",
                format!(
                    "`qwen35.ssm.inner_size` {inner} is no multiple of `ssm.time_step_rank` {heads}"
                ),
            ));
        }
        // Layers that only predict further tokens follow the model's own.
        let ahead = maybe("nextn_predict_layers")?.unwrap_or(0);
        let layers = size("block_count")?.saturating_sub(ahead);
        let head_dim = size("attention.key_length")?;
        Ok(Config {
            hidden_size: size("embedding_length")?,
            intermediate_size: size("feed_forward_length")?,
            num_attention_heads: size("attention.head_count")?,
            num_key_value_heads: size("attention.head_count_kv")?,
            head_dim,
            vocab_size: gguf_vocab(checkpoint)?,
            max_position_embeddings: size("context_length")?,
            rms_norm_eps: m.require::<f32>(&key("attention.layer_norm_rms_epsilon"))?,
            linear_conv_kernel_dim: size("ssm.conv_kernel")?,
            linear_key_head_dim: size("ssm.state_size")?,
            linear_value_head_dim: inner / heads,
            linear_num_key_heads: size("ssm.group_count")?,
            linear_num_value_heads: heads,
            full_attention: match recurrent(m, &key("attention.recurrent_layers"))? {
                Some(list) if list.len() >= layers => {
                    list.into_iter().take(layers).map(|r| !r).collect()
                }
                Some(list) => {
                    return Err(Error::malformed(
                        "GGUF metadata",
                        format!(
                            "`attention.recurrent_layers` has {} entries for {layers} layers",
                            list.len()
                        ),
                    ));
                }
                None => pattern(layers, maybe("full_attention_interval")?.unwrap_or(4))?,
            },
            rope: Rope {
                theta: f64::from(m.require::<f32>(&key("rope.freq_base"))?),
                dims: maybe("rope.dimension_count")?.unwrap_or(head_dim),
                scaling: crate::rope::Scaling::None,
                axes: gguf_axes(
                    m,
                    "qwen35",
                    maybe("rope.dimension_count")?.unwrap_or(head_dim) / 2,
                    true,
                )?,
            },
            norm_offset: 0.0,
            log_decay: false,
            order: HeadOrder::Tiled,
        })
    }

    /// Bounds what the file can ask for; after it no arithmetic overflows.
    pub(super) fn check(&self) -> Result<()> {
        let multiple = |a: usize, b: usize| b > 0 && a.is_multiple_of(b);
        let (heads, kv) = (self.num_attention_heads, self.num_key_value_heads);
        let (nv, nk) = (self.linear_num_value_heads, self.linear_num_key_heads);
        let (hk, hv) = (self.linear_key_head_dim, self.linear_value_head_dim);
        check_heads(heads, kv, self.head_dim)?;
        check_rope(&self.rope, self.head_dim)?;
        let wrong = if nv == 0 || !multiple(nv, nk) {
            format!("`linear_num_value_heads` {nv} is no multiple of `linear_num_key_heads` {nk}")
        } else if nv > 4096 {
            format!("`linear_num_value_heads` {nv} is beyond 4096")
        } else if !(1..=256).contains(&hk) || !(1..=4096).contains(&hv) {
            format!(
                "`linear_key_head_dim` {hk}, `linear_value_head_dim` {hv}; expected at most 256 and 4096"
            )
        } else if !multiple(nv * hv, 8) {
            format!("{nv} value heads of `linear_value_head_dim` {hv}: no multiple of 8 elements")
        } else if !(1..=64).contains(&self.linear_conv_kernel_dim) {
            let got = self.linear_conv_kernel_dim;
            format!("`linear_conv_kernel_dim` {got}; expected 1 to 64")
        } else {
            return Ok(());
        };
        Err(Error::malformed("configuration", wrong))
    }

    /// Channels of a linear layer's convolution: queries, keys, values.
    pub(super) fn channels(&self) -> usize {
        2 * self.linear_num_key_heads * self.linear_key_head_dim + self.values()
    }

    /// Elements of all value heads.
    pub(super) fn values(&self) -> usize {
        self.linear_num_value_heads * self.linear_value_head_dim
    }
}

/// A list of flags, written as numbers or as truth values.
fn recurrent(m: &Metadata, key: &str) -> Result<Option<Vec<bool>>> {
    if let Ok(list) = m.get_array_bool(key) {
        return Ok(list.map(<[bool]>::to_vec));
    }
    let list = m.get_array_u32(key)?;
    Ok(list.map(|l| l.iter().map(|&n| n != 0).collect()))
}

/// True for each layer with full attention.
fn layer_types(value: &Value, layers: usize) -> Result<Vec<bool>> {
    let Some(types) = value.get("layer_types").filter(|v| !v.is_null()) else {
        let interval = Fields(value).maybe_size("full_attention_interval")?;
        return pattern(layers, interval.unwrap_or(4));
    };
    let list = types.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.len() != layers {
        let found = list.len();
        return Err(Error::malformed(
            "config.json",
            format!("`layer_types` has {found} entries for {layers} layers"),
        ));
    }
    let kinds = list.iter().map(|kind| match kind.as_str() {
        Some("full_attention") => Ok(true),
        Some("linear_attention") => Ok(false),
        _ => Err(Error::Unsupported(format!(
            "{kind} in `layer_types`; expected linear_attention or full_attention"
        ))),
    });
    kinds.collect()
}

/// Every `interval`-th layer has full attention.
fn pattern(n: usize, interval: usize) -> Result<Vec<bool>> {
    Ok((1..=layers(n)?)
        .map(|i| i.is_multiple_of(interval))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> Value {
        json!({"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 5, "vocab_size": 10, "head_dim": 32,
            "rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 0.5}})
    }

    #[test]
    fn defaults_are_upstreams() {
        let c = Config::from_json(&config()).expect("valid");
        assert_eq!(c.full_attention, [false, false, false, true, false]);
        assert_eq!((c.rope.dims, c.rope.theta), (16, 500.0));
        assert_eq!((c.linear_num_value_heads, c.linear_num_key_heads), (32, 16));
        assert!(c.check().is_ok());
        let mut plain = config();
        plain["rope_parameters"] = Value::Null;
        assert_eq!(Config::from_json(&plain).expect("valid").rope.dims, 8);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let cases = [
            ("linear_num_value_heads", json!(24), "linear_num_key_heads"),
            ("num_key_value_heads", json!(3), "num_key_value_heads"),
            ("linear_key_head_dim", json!(300), "linear_key_head_dim"),
            (
                "linear_conv_kernel_dim",
                json!(65),
                "linear_conv_kernel_dim",
            ),
            ("head_dim", json!(30), "head_dim"),
            ("hidden_act", json!("gelu"), "hidden_act"),
            ("attention_bias", json!(true), "attention_bias"),
            ("layer_types", json!(["full_attention"]), "layer_types"),
            (
                "layer_types",
                json!(["a", "a", "a", "a", "a"]),
                "layer_types",
            ),
            ("num_hidden_layers", json!(5000), "num_hidden_layers"),
            (
                "rope_parameters",
                json!({"partial_rotary_factor": 1.5}),
                "partial_rotary_factor",
            ),
        ];
        for (key, value, said) in cases {
            let mut bad = config();
            bad[key] = value.clone();
            let error = Config::from_json(&bad).and_then(|c| c.check());
            let error = error.expect_err(key).to_string();
            assert!(error.contains(said), "{key} = {value}: {error}");
        }
    }
}
