//! A Whisper model as whisper.cpp keeps it: `config.json` and `tokenizer.json` that upstream would have, and upstream's names.
//!
//! The file has its tokens by rank and neither merges nor special tokens. A token's merge is the last one when its own bytes are put
//! together by the tokens of lower rank; the special tokens follow from the size of the vocabulary.

use super::ct2::{self, Sizes};
use crate::{Error, Result};
use firelight_tensor::ggml::GgmlHead;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Codes of the languages, in the order of their tokens; large-v3 has the last one, too.
const LANGUAGES: &str = "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml \
    cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk \
    nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue";

/// The longest token, in bytes.
const LONGEST: usize = 256;

/// Configuration and tokenizer.
pub(super) fn whisper(head: &GgmlHead) -> Result<(Value, Value)> {
    let s = &head.sizes;
    let wide = |n: u32| n as usize;
    if !(51_864..=51_866).contains(&s.vocab) {
        return Err(Error::Unsupported(format!(
            "a GGML Whisper of {} tokens; 51864 (English), 51865 and 51866 are served",
            s.vocab
        )));
    }
    let (d, text) = (wide(s.audio_state), wide(s.text_state));
    if d != text || d > 1 << 14 {
        return Err(Error::malformed(
            "the GGML file",
            format!("an encoder of width {d} and a decoder of width {text}"),
        ));
    }
    let config = ct2::config(&Sizes {
        vocab: wide(s.vocab),
        d,
        layers: [wide(s.audio_layer), wide(s.text_layer)],
        heads: [wide(s.audio_head), wide(s.text_head)],
        ffn: [4 * d; 2],
        mels: wide(s.mels),
        positions: [wide(s.audio_ctx), wide(s.text_ctx)],
    });
    let end = ct2::end(wide(s.vocab));
    let Some(tokens) = head.tokens.get(..end) else {
        return Err(Error::malformed(
            "the GGML file",
            format!("{} tokens; {end} expected", head.tokens.len()),
        ));
    };
    if let Some(long) = tokens.iter().map(Vec::len).find(|&n| n > LONGEST) {
        return Err(Error::Limit {
            what: "bytes of a token",
            max: LONGEST as u64,
            got: long as u64,
        });
    }
    Ok((config, tokenizer(tokens, wide(s.vocab) - 51_765)))
}

/// A `tokenizer.json` of byte-level BPE. `others` are languages and a token that only the multilingual vocabularies have.
fn tokenizer(tokens: &[Vec<u8>], others: usize) -> Value {
    let multilingual = usize::from(tokens.len() > 50_256);
    let languages = LANGUAGES
        .split_whitespace()
        .take(others - multilingual.min(others));
    let special = ["endoftext", "startoftranscript"].into_iter();
    let special = special.chain(languages).chain([
        "translate",
        "transcribe",
        "startoflm",
        "startofprev",
        "nospeech",
        "notimestamps",
    ]);
    let added = (tokens.len()..).zip(special).map(|(id, name)| {
        json!({
            "id": id, "content": format!("<|{name}|>"), "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    });
    let pieces: Vec<String> = tokens.iter().map(|t| shown(t)).collect();
    let vocab = pieces.iter().zip(0..).map(|(p, id)| (p.clone(), json!(id)));
    let vocab: serde_json::Map<String, Value> = vocab.collect();
    let ranks: HashMap<&[u8], usize> = tokens.iter().map(Vec::as_slice).zip(0..).collect();
    let merges = tokens.iter().enumerate().filter_map(|(rank, token)| {
        let at = split(token, rank, &ranks)?;
        Some(format!("{} {}", shown(&token[..at]), shown(&token[at..])))
    });
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "pre_tokenizer": bytes,
        "decoder": bytes,
        "model": {
            "type": "BPE", "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "vocab": vocab, "merges": merges.collect::<Vec<_>>(),
        },
    })
}

/// Where the last merge of a token puts its two parts together; `None` for what is no merge.
fn split(token: &[u8], rank: usize, ranks: &HashMap<&[u8], usize>) -> Option<usize> {
    // The ends of the parts so far.
    let mut ends: Vec<usize> = (1..=token.len()).collect();
    while ends.len() > 2 {
        let start = |i: usize| if i == 0 { 0 } else { ends[i - 1] };
        let pairs = (0..ends.len() - 1).filter_map(|i| {
            let pair = token.get(start(i)..ends[i + 1])?;
            let found = ranks.get(pair).copied()?;
            (found < rank).then_some((found, i))
        });
        let (_, first) = pairs.min()?;
        ends.remove(first);
    }
    (ends.len() == 2).then(|| ends[0])
}

/// Bytes as the letters that byte-level BPE writes for them.
fn shown(bytes: &[u8]) -> String {
    let letter = |b: u8| match b {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(b),
        // The others follow from U+0100 on, in order.
        0..=0x20 => char::from_u32(0x100 + u32::from(b)).unwrap_or(' '),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(b - 0x7f)).unwrap_or(' '),
        0xad => '\u{143}',
    };
    bytes.iter().map(|&b| letter(b)).collect()
}

/// What a tensor of OpenAI's is called upstream.
pub(super) fn name(own: &str) -> Option<String> {
    let (side, rest) = own.split_once('.')?;
    if !matches!(side, "encoder" | "decoder") {
        return None;
    }
    let rest = match rest {
        "positional_embedding" => "embed_positions.weight".to_owned(),
        "token_embedding.weight" => "embed_tokens.weight".to_owned(),
        _ => match rest.strip_prefix("blocks.").and_then(|r| r.split_once('.')) {
            Some((layer, part)) => {
                let (place, kind) = part.rsplit_once('.')?;
                let place = match place {
                    "attn_ln" => "self_attn_layer_norm",
                    "attn.query" => "self_attn.q_proj",
                    "attn.key" => "self_attn.k_proj",
                    "attn.value" => "self_attn.v_proj",
                    "attn.out" => "self_attn.out_proj",
                    "cross_attn_ln" => "encoder_attn_layer_norm",
                    "cross_attn.query" => "encoder_attn.q_proj",
                    "cross_attn.key" => "encoder_attn.k_proj",
                    "cross_attn.value" => "encoder_attn.v_proj",
                    "cross_attn.out" => "encoder_attn.out_proj",
                    "mlp_ln" => "final_layer_norm",
                    "mlp.0" => "fc1",
                    "mlp.2" => "fc2",
                    _ => return None,
                };
                format!("layers.{layer}.{place}.{kind}")
            }
            None => {
                let (place, kind) = rest.rsplit_once('.')?;
                let place = match place {
                    "ln_post" | "ln" => "layer_norm",
                    "conv1" | "conv2" => place,
                    _ => return None,
                };
                format!("{place}.{kind}")
            }
        },
    };
    Some(format!("model.{side}.{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use firelight_text::Tokenizer;

    #[test]
    fn names_are_upstreams() {
        let is = |own: &str, upstream: &str| assert_eq!(name(own).as_deref(), Some(upstream));
        is("encoder.conv2.bias", "model.encoder.conv2.bias");
        is("encoder.ln_post.weight", "model.encoder.layer_norm.weight");
        is("decoder.ln.bias", "model.decoder.layer_norm.bias");
        is(
            "decoder.blocks.11.cross_attn.key.weight",
            "model.decoder.layers.11.encoder_attn.k_proj.weight",
        );
        is(
            "encoder.blocks.0.mlp.2.bias",
            "model.encoder.layers.0.fc2.bias",
        );
        is(
            "decoder.positional_embedding",
            "model.decoder.embed_positions.weight",
        );
        for other in [
            "",
            "encoder",
            "mask",
            "encoder.blocks.1",
            "encoder.blocks.1.x.weight",
        ] {
            assert_eq!(name(other), None);
        }
    }

    #[test]
    fn a_vocabulary_by_rank_becomes_a_tokenizer() {
        let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|b| vec![b]).collect();
        for more in [" t", "he", " the", "th", "the", "er", " there"] {
            tokens.push(more.as_bytes().to_vec());
        }
        let json = tokenizer(&tokens, 2);
        let merges = json["model"]["merges"].as_array().expect("merges");
        let merges: Vec<&str> = merges.iter().filter_map(Value::as_str).collect();
        // " there" is " the" and "r", "e" by rank before "er": no merge of two parts makes it.
        assert_eq!(merges, ["Ġ t", "h e", "Ġt he", "t h", "t he", "e r"]);
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).expect("a tokenizer");
        let ids = tokenizer.encode("the other é\u{a0}", false).expect("ids");
        assert_eq!(tokenizer.decode(&ids, true), "the other é\u{a0}");
        assert_eq!(ids[0], 260);
        let id = |name: &str| tokenizer.token_to_id(name);
        assert_eq!(id("<|endoftext|>"), Some(263));
        assert_eq!((id("<|en|>"), id("<|zh|>")), (Some(265), Some(266)));
        assert_eq!(id("<|notimestamps|>"), Some(272));
    }
}
