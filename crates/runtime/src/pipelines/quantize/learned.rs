//! GPT-2 and BERT folders as GGUF: learned positions and layer norms, no rotary embedding. Names and keys are those of llama.cpp's
//! converter; its GPT-2 turns the projections the right way round, its BERT has no pooler and takes all texts to be of segment 0.

use super::folder::narrow;
use super::{Entry, Order, Parts, vocabulary};
use crate::checkpoint::{Checkpoint, Fields};
use crate::models::gguf_names;
use crate::sentence::{Pooling, SentenceConfig};
use crate::{Error, Result};
use firelight_tensor::TensorInfo;
use firelight_tensor::gguf::Value;
use serde_json::Value as Json;

/// What an architecture computes in one way only.
fn fixed(field: &str, value: impl std::fmt::Display, arch: &str) -> Error {
    Error::Unsupported(format!(
        "`{field}` {value} in a {arch} GGUF, which has no key for it"
    ))
}

fn entry(name: String, info: &TensorInfo, order: Order) -> Entry<'_> {
    Entry {
        name,
        info,
        order,
        offset: 0.0,
        factor: 1.0,
    }
}

/// The keys that both have, under the configuration's names for them.
fn sizes(
    arch: &str,
    config: &Json,
    names: [(&'static str, &str); 5],
    eps: (&str, f64),
) -> Result<Vec<(String, Value)>> {
    let c = Fields(config);
    let mut keys = vec![(
        "general.architecture".to_owned(),
        Value::from(arch.to_owned()),
    )];
    for (key, name) in names {
        let size = narrow(name, c.size(name)?)?;
        keys.push((format!("{arch}.{key}"), Value::U32(size)));
    }
    let eps = c.number(eps.0)?.unwrap_or(eps.1);
    keys.push((
        format!("{arch}.attention.layer_norm_epsilon"),
        Value::F32(eps as f32),
    ));
    Ok(keys)
}

/// See the module's head.
pub(super) fn gpt2<'a>(checkpoint: &'a Checkpoint, config: &Json) -> Result<Parts<'a>> {
    let c = Fields(config);
    match c.text("activation_function").unwrap_or("gelu_new") {
        "gelu_new" | "gelu_pytorch_tanh" => (),
        other => return Err(fixed("activation_function", other, "gpt2")),
    }
    for (field, usual) in [
        ("scale_attn_weights", true),
        ("scale_attn_by_inverse_layer_idx", false),
    ] {
        if c.flag(field).is_some_and(|set| set != usual) {
            return Err(fixed(field, !usual, "gpt2"));
        }
    }
    let mut config = config.clone();
    // Where the file says nothing, upstream's configuration class does.
    if config.get("n_inner").is_none_or(Json::is_null) {
        config["n_inner"] = Json::from(4 * c.size("n_embd")?);
    }
    let names = [
        ("context_length", "n_positions"),
        ("embedding_length", "n_embd"),
        ("feed_forward_length", "n_inner"),
        ("block_count", "n_layer"),
        ("attention.head_count", "n_head"),
    ];
    let mut metadata = sizes("gpt2", &config, names, ("layer_norm_epsilon", 1e-5))?;
    metadata.extend(vocabulary::metadata(checkpoint, c.size("vocab_size")?)?);
    let mut entries = Vec::new();
    for info in checkpoint.weights().tensors() {
        let name = info.name.strip_prefix("transformer.").unwrap_or(&info.name);
        // Masks that old checkpoints carry.
        if name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") {
            continue;
        }
        let own = gguf_names("gpt2", name).ok_or_else(|| unnamed(info, "gpt2"))?;
        let turned = [".c_attn.weight", ".c_proj.weight", ".c_fc.weight"];
        let order = match turned.iter().any(|end| name.ends_with(end)) {
            true => Order::Transposed,
            false => Order::Same,
        };
        entries.push(entry(own, info, order));
    }
    Ok(Parts {
        metadata,
        entries,
        more: Vec::new(),
    })
}

fn unnamed(info: &TensorInfo, arch: &str) -> Error {
    Error::Unsupported(format!(
        "tensor `{}` has no name in a {arch} GGUF",
        info.name
    ))
}

/// See the module's head.
pub(super) fn bert<'a>(checkpoint: &'a Checkpoint, config: &Json) -> Result<Parts<'a>> {
    let c = Fields(config);
    match c.text("hidden_act").unwrap_or("gelu") {
        // llama.cpp computes the form with tanh for both.
        "gelu" | "gelu_new" | "gelu_pytorch_tanh" => (),
        other => return Err(fixed("hidden_act", other, "bert")),
    }
    match c.text("position_embedding_type") {
        None | Some("absolute") => (),
        Some(other) => return Err(fixed("position_embedding_type", other, "bert")),
    }
    let names = [
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("block_count", "num_hidden_layers"),
        ("attention.head_count", "num_attention_heads"),
    ];
    let mut metadata = sizes("bert", config, names, ("layer_norm_eps", 1e-12))?;
    metadata.push(("bert.attention.causal".to_owned(), Value::Bool(false)));
    let pooling = match SentenceConfig::read(checkpoint)?.pooling {
        // What sentence-transformers makes of a model without a word on it.
        None | Some(Pooling::Mean) => 1,
        Some(Pooling::Cls) => 2,
        Some(Pooling::Last) => 3,
        Some(other) => return Err(fixed("pooling", other.name(), "bert")),
    };
    metadata.push(("bert.pooling_type".to_owned(), Value::U32(pooling)));
    let segments = c.maybe_size("type_vocab_size")?.unwrap_or(2);
    metadata.push((
        "tokenizer.ggml.token_type_count".to_owned(),
        Value::U32(narrow("type_vocab_size", segments)?),
    ));
    metadata.extend(vocabulary::word_pieces(checkpoint, c.size("vocab_size")?)?);
    let mut entries = Vec::new();
    for info in checkpoint.weights().tensors() {
        let name = info.name.strip_prefix("bert.").unwrap_or(&info.name);
        if name == "embeddings.position_ids" || name.starts_with("pooler.") {
            continue;
        }
        let own = bert_name(name).ok_or_else(|| unnamed(info, "bert"))?;
        entries.push(entry(own, info, Order::Same));
    }
    Ok(Parts {
        metadata,
        entries,
        more: Vec::new(),
    })
}

fn bert_name(name: &str) -> Option<String> {
    let (part, kind) = name.rsplit_once('.')?;
    let layer = part
        .strip_prefix("encoder.layer.")
        .and_then(|p| p.split_once('.'));
    let own = match layer {
        None => match part {
            "embeddings.word_embeddings" => "token_embd",
            "embeddings.token_type_embeddings" => "token_types",
            "embeddings.position_embeddings" => "position_embd",
            "embeddings.LayerNorm" => "token_embd_norm",
            _ => return None,
        },
        Some((_, part)) => match part {
            "attention.self.query" => "attn_q",
            "attention.self.key" => "attn_k",
            "attention.self.value" => "attn_v",
            "attention.output.dense" => "attn_output",
            "attention.output.LayerNorm" => "attn_output_norm",
            "intermediate.dense" => "ffn_up",
            "output.dense" => "ffn_down",
            "output.LayerNorm" => "layer_output_norm",
            _ => return None,
        },
    };
    Some(match layer {
        None => format!("{own}.{kind}"),
        Some((i, _)) => format!("blk.{i}.{own}.{kind}"),
    })
}
