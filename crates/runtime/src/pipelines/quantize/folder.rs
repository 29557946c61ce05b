//! A folder in the Hugging Face layout as GGUF: names, keys and orders of llama.cpp's converter (`convert_hf_to_gguf.py`).

use super::{Entry, Order, Parts, learned, vocabulary};
use crate::checkpoint::{Checkpoint, Fields};
use crate::models::gguf_names;
use crate::{Error, Result};
use firelight_tensor::gguf::Value;
use serde_json::Value as Json;

/// What an architecture has beside the common part.
struct Arch {
    model_type: &'static str,
    name: &'static str,
    /// Queries and keys have the two halves of each head interleaved.
    interleaved: bool,
    /// Norms hold what is added to 1.
    norm_offset: f32,
}

const ARCHS: [Arch; 5] = [
    Arch {
        model_type: "llama",
        name: "llama",
        interleaved: true,
        norm_offset: 0.0,
    },
    Arch {
        model_type: "qwen2",
        name: "qwen2",
        interleaved: false,
        norm_offset: 0.0,
    },
    Arch {
        model_type: "qwen3",
        name: "qwen3",
        interleaved: false,
        norm_offset: 0.0,
    },
    Arch {
        model_type: "phi3",
        name: "phi3",
        interleaved: false,
        norm_offset: 0.0,
    },
    Arch {
        model_type: "gemma3_text",
        name: "gemma3",
        interleaved: false,
        norm_offset: 1.0,
    },
];

/// Reads the folder's configuration, tokenizer and tensor names.
pub(super) fn parts<'a>(checkpoint: &'a Checkpoint, config: &Json) -> Result<Parts<'a>> {
    let model_type = checkpoint.model_type()?;
    match model_type.as_str() {
        "gpt2" => return learned::gpt2(checkpoint, config),
        "bert" => return learned::bert(checkpoint, config),
        _ => (),
    }
    let arch = ARCHS.iter().find(|a| a.model_type == model_type);
    let arch = arch.ok_or_else(|| {
        Error::Unsupported(format!(
            "a folder of model type `{model_type}` as GGUF; gpt2, bert, {} are written. `--dtype` converts any model while it is loaded",
            ARCHS.map(|a| a.model_type).join(", ")
        ))
    })?;
    let numbers = Numbers::read(arch, config)?;
    let mut metadata = vec![(
        "general.architecture".to_owned(),
        Value::from(arch.name.to_owned()),
    )];
    let name = checkpoint.root().file_name().and_then(|n| n.to_str());
    metadata.extend(name.map(|n| ("general.name".to_owned(), Value::from(n.to_owned()))));
    let keys = keys(arch, config, &numbers)?;
    metadata.extend(
        keys.into_iter()
            .map(|(key, value)| (format!("{}.{key}", arch.name), value)),
    );
    metadata.extend(vocabulary::metadata(checkpoint, numbers.vocab)?);

    let mut entries = Vec::new();
    for info in checkpoint.weights().tensors() {
        let upstream = ["model.language_model.", "language_model.model.", "model."]
            .iter()
            .find_map(|prefix| info.name.strip_prefix(prefix))
            .unwrap_or(&info.name);
        // Frequencies that old checkpoints carry follow from the configuration.
        if upstream.ends_with("rotary_emb.inv_freq") {
            continue;
        }
        let Some(name) = gguf_names(&model_type, upstream) else {
            return Err(Error::Unsupported(format!(
                "tensor `{}` has no name in a {} GGUF",
                info.name, arch.name
            )));
        };
        let turned = [
            "q_proj.weight",
            "k_proj.weight",
            "q_proj.bias",
            "k_proj.bias",
        ];
        let interleave = arch.interleaved && turned.iter().any(|end| upstream.ends_with(end));
        entries.push(Entry {
            name,
            info,
            order: match interleave {
                true => Order::Interleaved(numbers.head_dim),
                false => Order::Same,
            },
            offset: match upstream.ends_with("norm.weight") {
                true => arch.norm_offset,
                false => 0.0,
            },
            factor: match upstream.ends_with("q_norm.weight") {
                true => query_factor(arch, config, &numbers),
                false => 1.0,
            },
        });
    }
    Ok(Parts {
        metadata,
        entries,
        more: factors(arch, config, &numbers)?,
    })
}

/// Sizes that several places need.
struct Numbers {
    layers: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: usize,
    hidden: u32,
    vocab: usize,
    context: u32,
}

impl Numbers {
    fn read(arch: &Arch, config: &Json) -> Result<Self> {
        let c = Fields(config);
        let n = |key: &str| -> Result<u32> { narrow(key, c.size(key)?) };
        let (hidden, heads) = (n("hidden_size")?, n("num_attention_heads")?.max(1));
        // The values that upstream's configurations have where the file says nothing.
        let usual = match arch.model_type {
            "qwen3" => 128,
            "gemma3_text" => 256,
            _ => (hidden / heads) as usize,
        };
        Ok(Numbers {
            layers: n("num_hidden_layers")?,
            heads,
            kv_heads: match c.maybe_size("num_key_value_heads")? {
                Some(n) => narrow("num_key_value_heads", n)?,
                None => heads,
            },
            head_dim: c.maybe_size("head_dim")?.unwrap_or(usual),
            hidden,
            vocab: c.size("vocab_size")?,
            context: n("max_position_embeddings")?,
        })
    }
}

pub(super) fn narrow(key: &str, n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::malformed("config.json", format!("`{key}` is {n}")))
}

/// A number of the rotary embedding: of `rope_parameters` (for all layers, or for those of one type), `rope_scaling`, or the top.
fn rope<'a>(config: &'a Json, layer_type: Option<&str>, key: &str) -> Option<&'a Json> {
    let parameters = &config["rope_parameters"];
    let places = [
        layer_type.map_or(&Json::Null, |kind| &parameters[kind]),
        parameters,
        &config["rope_scaling"],
        config,
    ];
    places
        .into_iter()
        .find_map(|place| place.get(key).filter(|v| !v.is_null()))
}

fn keys(arch: &Arch, config: &Json, n: &Numbers) -> Result<Vec<(&'static str, Value)>> {
    let c = Fields(config);
    let number = |key: &str| config.get(key).and_then(Json::as_f64);
    let full = (arch.name == "gemma3").then_some("full_attention");
    let theta = rope(config, full, "rope_theta").and_then(Json::as_f64);
    let usual_theta = if arch.name == "gemma3" { 1e6 } else { 1e4 };
    let mut keys = vec![
        ("context_length", Value::U32(n.context)),
        ("embedding_length", Value::U32(n.hidden)),
        (
            "feed_forward_length",
            Value::U32(narrow("intermediate_size", c.size("intermediate_size")?)?),
        ),
        ("block_count", Value::U32(n.layers)),
        ("attention.head_count", Value::U32(n.heads)),
        ("attention.head_count_kv", Value::U32(n.kv_heads)),
        (
            "rope.freq_base",
            Value::F32(theta.unwrap_or(usual_theta) as f32),
        ),
        (
            "attention.layer_norm_rms_epsilon",
            Value::F32(number("rms_norm_eps").unwrap_or(1e-6) as f32),
        ),
    ];
    let head_dim = narrow("head_dim", n.head_dim)?;
    keys.push(("attention.key_length", Value::U32(head_dim)));
    keys.push(("attention.value_length", Value::U32(head_dim)));
    let partial = rope(config, None, "partial_rotary_factor").and_then(Json::as_f64);
    let turns = (f64::from(head_dim) * partial.unwrap_or(1.0)) as u32;
    keys.push(("rope.dimension_count", Value::U32(turns)));
    let window = c.maybe_size("sliding_window")?;
    match (arch.name, window) {
        ("qwen2" | "qwen3", Some(_)) if c.flag("use_sliding_window") == Some(true) => {
            return Err(Error::Unsupported(format!(
                "`use_sliding_window`: a {} GGUF has no windows",
                arch.name
            )));
        }
        ("phi3" | "gemma3", Some(window)) => keys.push((
            "attention.sliding_window",
            Value::U32(narrow("sliding_window", window)?),
        )),
        _ => (),
    }
    if arch.name == "gemma3" {
        gemma3_keys(config, &mut keys)?;
    }
    match rope(config, full, "rope_type")
        .or_else(|| rope(config, full, "type"))
        .and_then(Json::as_str)
    {
        None | Some("default" | "llama3") => (),
        Some("linear") => {
            let factor = rope(config, full, "factor").and_then(Json::as_f64);
            keys.push(("rope.scaling.type", Value::from("linear".to_owned())));
            keys.push((
                "rope.scaling.factor",
                Value::F32(factor.unwrap_or(1.0) as f32),
            ));
        }
        Some("longrope" | "su") if arch.name == "phi3" => {
            let original =
                rope(config, None, "original_max_position_embeddings").and_then(Json::as_u64);
            let original = original.and_then(|n| u32::try_from(n).ok());
            let original = original.ok_or_else(|| {
                Error::malformed(
                    "config.json",
                    "`original_max_position_embeddings` is missing",
                )
            })?;
            keys.push(("rope.scaling.original_context_length", Value::U32(original)));
        }
        Some(other) => {
            return Err(Error::Unsupported(format!(
                "rope scaling `{other}` in a {} GGUF",
                arch.name
            )));
        }
    }
    Ok(keys)
}

/// The order of layers has to be the one that llama.cpp takes it to be.
fn gemma3_keys(config: &Json, keys: &mut Vec<(&'static str, Value)>) -> Result<()> {
    let local = rope(config, Some("sliding_attention"), "rope_theta");
    let local = config
        .get("rope_local_base_freq")
        .or(local)
        .and_then(Json::as_f64);
    keys.push((
        "rope.freq_base_swa",
        Value::F32(local.unwrap_or(1e4) as f32),
    ));
    let regular = |i: usize| (i + 1).is_multiple_of(6);
    let types = config.get("layer_types").and_then(Json::as_array);
    let pattern = config.get("sliding_window_pattern").and_then(Json::as_u64);
    let same = match types {
        Some(types) => types
            .iter()
            .enumerate()
            .all(|(i, t)| (t == "full_attention") == regular(i)),
        None => pattern.is_none_or(|p| p == 6),
    };
    if !same {
        return Err(Error::Unsupported(
            "`layer_types` in a gemma3 GGUF, which means that each sixth layer is full".into(),
        ));
    }
    Ok(())
}

/// A gemma3 GGUF has no key for `query_pre_attn_scalar`; what it means by itself is put right in the norm of the queries.
fn query_factor(arch: &Arch, config: &Json, n: &Numbers) -> f32 {
    let scalar = config.get("query_pre_attn_scalar").and_then(Json::as_f64);
    let implied = match n.layers {
        62 => f64::from(n.hidden / n.heads),
        _ => n.head_dim as f64,
    };
    match (arch.name, scalar) {
        ("gemma3", Some(scalar)) if scalar > 0.0 => (implied / scalar).sqrt() as f32,
        ("gemma3", _) => (implied / 256.0).sqrt() as f32,
        _ => 1.0,
    }
}

/// Tensors that no checkpoint has: by what each frequency is divided.
fn factors(arch: &Arch, config: &Json, n: &Numbers) -> Result<Vec<(String, Vec<f32>)>> {
    let kind = rope(config, None, "rope_type").or_else(|| rope(config, None, "type"));
    let list = |key: &str| -> Result<Vec<f32>> {
        let list = rope(config, None, key).and_then(Json::as_array);
        let list = list.map(|l| l.iter().filter_map(|v| Some(v.as_f64()? as f32)).collect());
        list.ok_or_else(|| Error::malformed("config.json", format!("`{key}` is missing")))
    };
    match (arch.name, kind.and_then(Json::as_str)) {
        ("llama", Some("llama3")) => {
            let number = |key: &str| {
                let found = rope(config, None, key).and_then(Json::as_f64);
                found.ok_or_else(|| Error::malformed("config.json", format!("`{key}` is missing")))
            };
            let theta = number("rope_theta").unwrap_or(1e4);
            let old = number("original_max_position_embeddings")?;
            let (factor, low, high) = (
                number("factor")?,
                number("low_freq_factor")?,
                number("high_freq_factor")?,
            );
            let factors = (0..n.head_dim / 2).map(|i| {
                let wave = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / n.head_dim as f64);
                let factor = if wave < old / high {
                    1.0
                } else if wave > old / low {
                    factor
                } else {
                    let smooth = (old / wave - low) / (high - low);
                    1.0 / ((1.0 - smooth) / factor + smooth)
                };
                factor as f32
            });
            Ok(vec![("rope_freqs.weight".into(), factors.collect())])
        }
        ("phi3", Some("longrope" | "su")) => Ok(vec![
            ("rope_factors_long.weight".into(), list("long_factor")?),
            ("rope_factors_short.weight".into(), list("short_factor")?),
        ]),
        _ => Ok(Vec::new()),
    }
}
