//! A Whisper model as CTranslate2 packs it: `model.bin` seen under upstream's names, and the `config.json` that upstream would have.
//!
//! CTranslate2 keeps queries, keys and values of a layer as one matrix, which is cut by rows here; nothing is read or copied. It
//! gives keys a bias of zeros, which upstream does not have. What upstream's `generation_config.json` says (tokens to suppress, heads
//! to align by) is in CTranslate2's own `config.json`.

use crate::{Error, Result};
use firelight_tensor::{TensorInfo, Weights};
use serde_json::{Value, json};
use std::ops::Range;

/// Weights, configuration and generation configuration as upstream has them.
pub(super) fn whisper(
    weights: &Weights,
    own: Option<&Value>,
) -> Result<(Weights, Value, Option<Value>)> {
    let spec = weights.ct2_spec().unwrap_or_default();
    if spec != "WhisperSpec" {
        return Err(Error::Unsupported(format!(
            "a CTranslate2 model of kind {spec}; WhisperSpec is read"
        )));
    }
    let packed = weights.names().any(|n| n.ends_with("weight_scale"));
    if packed {
        return Err(Error::Unsupported(
            "an int8 CTranslate2 model; convert it with --quantization float16, and choose a smaller type on load (--dtype q8_0)".into(),
        ));
    }
    let mapped = weights.map(pieces)?;
    let dims =
        |name: &str| -> Result<Vec<usize>> { Ok(mapped.require(name)?.shape.dims().to_vec()) };
    let pair = |name: &str| -> Result<(usize, usize)> {
        match dims(name)?[..] {
            [rows, cols] => Ok((rows, cols)),
            _ => Err(Error::malformed(
                "model.bin",
                format!("`{name}` is no matrix"),
            )),
        }
    };
    let (vocab, d) = pair("model.decoder.embed_tokens.weight")?;
    let (source, _) = pair("model.encoder.embed_positions.weight")?;
    let (target, _) = pair("model.decoder.embed_positions.weight")?;
    let mels = dims("model.encoder.conv1.weight")?
        .get(1)
        .copied()
        .unwrap_or(0);
    let layers = |side: &str| {
        let last = mapped.names().filter_map(|n| {
            let rest = n.strip_prefix(&format!("model.{side}.layers."))?;
            rest.split_once('.')?.0.parse::<usize>().ok()
        });
        last.max().map_or(0, |n| n + 1)
    };
    let (encoder_ffn, _) = pair("model.encoder.layers.0.fc1.weight")?;
    let (decoder_ffn, _) = pair("model.decoder.layers.0.fc1.weight")?;
    let config = config(&Sizes {
        vocab,
        d,
        layers: [layers("encoder"), layers("decoder")],
        // Heads of every Whisper have 64 elements; the file has their number in a type of two bytes that is read nowhere else.
        heads: [d / 64; 2],
        ffn: [encoder_ffn, decoder_ffn],
        mels,
        positions: [source, target],
    });
    let generation = own.map(|own| {
        let get = |key: &str| own.get(key).cloned().unwrap_or(Value::Null);
        json!({
            "suppress_tokens": get("suppress_ids"),
            "begin_suppress_tokens": get("suppress_ids_begin"),
            "alignment_heads": get("alignment_heads"),
        })
    });
    Ok((mapped, config, generation))
}

/// The sizes of a Whisper; pairs are of the encoder and the decoder.
pub(super) struct Sizes {
    pub(super) vocab: usize,
    pub(super) d: usize,
    pub(super) layers: [usize; 2],
    pub(super) heads: [usize; 2],
    pub(super) ffn: [usize; 2],
    pub(super) mels: usize,
    pub(super) positions: [usize; 2],
}

/// The `config.json` that upstream would have.
pub(super) fn config(s: &Sizes) -> Value {
    let end = end(s.vocab);
    json!({
        "model_type": "whisper", "d_model": s.d, "vocab_size": s.vocab,
        "encoder_layers": s.layers[0], "decoder_layers": s.layers[1],
        "encoder_attention_heads": s.heads[0], "decoder_attention_heads": s.heads[1],
        "encoder_ffn_dim": s.ffn[0], "decoder_ffn_dim": s.ffn[1],
        "num_mel_bins": s.mels, "max_source_positions": s.positions[0], "max_target_positions": s.positions[1],
        "activation_function": "gelu", "scale_embedding": false, "tie_word_embeddings": true,
        "bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": end + 1,
    })
}

/// The id of the end: the multilingual vocabularies have one token more before the special ones.
pub(super) fn end(vocab: usize) -> usize {
    if vocab >= 51_865 { 50_257 } else { 50_256 }
}

/// What a variable of CTranslate2's is called upstream, and which of its rows.
fn pieces(info: &TensorInfo) -> Vec<(String, Range<usize>)> {
    let rows = info.shape.dims().first().copied().unwrap_or(1);
    match names(&info.name) {
        Some((place, parts, kind)) => {
            let step = rows / parts.len().max(1);
            let piece = |(i, part): (usize, &&str)| {
                // Keys have no bias upstream.
                let none = kind == "bias" && *part == "k_proj";
                let dot = if part.is_empty() { "" } else { "." };
                (!none).then(|| {
                    let name = format!("{place}{dot}{part}.{kind}");
                    (name, i * step..(i + 1) * step)
                })
            };
            parts.iter().enumerate().filter_map(piece).collect()
        }
        None => Vec::new(),
    }
}

/// Upstream's place, the layers in a variable, and `weight` or `bias`; `None` for what upstream has no tensor for.
fn names(own: &str) -> Option<(String, &'static [&'static str], &'static str)> {
    let (path, last) = own.rsplit_once('/')?;
    let kind = match last {
        "weight" | "gamma" | "encodings" => "weight",
        "bias" | "beta" => "bias",
        _ => return None,
    };
    let (side, rest) = path.split_once('/')?;
    let side = match side {
        "encoder" | "decoder" => format!("model.{side}"),
        _ => return None,
    };
    let whole: &[&str] = &[""];
    let fixed = match rest {
        "conv1" | "conv2" | "layer_norm" => Some(rest),
        "embeddings" => Some("embed_tokens"),
        "position_encodings" => Some("embed_positions"),
        _ => None,
    };
    if let Some(fixed) = fixed {
        return Some((format!("{side}.{fixed}"), whole, kind));
    }
    let (layer, part) = rest.strip_prefix("layer_")?.split_once('/')?;
    let (part, parts): (&str, &[&str]) = match part {
        "self_attention/layer_norm" => ("self_attn_layer_norm", whole),
        "self_attention/linear_0" => ("self_attn", &["q_proj", "k_proj", "v_proj"]),
        "self_attention/linear_1" => ("self_attn.out_proj", whole),
        "attention/layer_norm" => ("encoder_attn_layer_norm", whole),
        "attention/linear_0" => ("encoder_attn.q_proj", whole),
        "attention/linear_1" => ("encoder_attn", &["k_proj", "v_proj"]),
        "attention/linear_2" => ("encoder_attn.out_proj", whole),
        "ffn/layer_norm" => ("final_layer_norm", whole),
        "ffn/linear_0" => ("fc1", whole),
        "ffn/linear_1" => ("fc2", whole),
        _ => return None,
    };
    Some((format!("{side}.layers.{layer}.{part}"), parts, kind))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn names_are_upstreams() {
        let name = |own: &str| names(own).map(|(place, parts, kind)| (place, parts.len(), kind));
        let is = |place: &str, n, kind| Some((place.to_owned(), n, kind));
        assert_eq!(
            name("encoder/conv1/weight"),
            is("model.encoder.conv1", 1, "weight")
        );
        assert_eq!(
            name("decoder/layer_11/attention/linear_1/bias"),
            is("model.decoder.layers.11.encoder_attn", 2, "bias")
        );
        assert_eq!(
            name("encoder/position_encodings/encodings"),
            is("model.encoder.embed_positions", 1, "weight")
        );
        assert_eq!(name("decoder/num_heads"), None);
        assert_eq!(name("decoder/layer_0/other/weight"), None);
        assert_eq!(name(""), None);
    }
}
