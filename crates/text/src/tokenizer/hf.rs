//! `tokenizer.json` through the crate `tokenizers`.
//!
//! That crate encodes. The vocabulary and the decoder are read here as well: decoding is ours, and what
//! it could not bear (an id of 2³²−1, a vocabulary that is no object) is refused before it sees it.

use serde_json::Value;
use tokenizers::canonicalize_value;
use tokenizers::pipeline::{EncodeOptions, Override, PipelineToken, PipelineTokenizer};

use super::vocab::{Kind, MAX_ID, Vocab};
use crate::decode::{self, Decoder};
use crate::{Error, Result};

const FORMAT: &str = "tokenizer.json";

/// Larger files are refused; the largest published ones have about 35 MB.
const MAX_BYTES: usize = 256 << 20;

pub(super) struct Parts {
    pub(super) vocab: Vocab,
    pub(super) encoder: HfEncoder,
    pub(super) decoder: Decoder,
}

pub(super) struct HfEncoder(PipelineTokenizer);

impl std::fmt::Debug for HfEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HfEncoder")
    }
}

impl HfEncoder {
    pub(super) fn encode(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>> {
        let options = EncodeOptions {
            add_special_tokens: add_special,
            encode_special_tokens: !parse_special,
            padding: Override::Off,
            truncation: Override::Off,
        };
        let mut ids: Vec<PipelineToken> = Vec::new();
        self.0
            .encode_into(text, &options, &mut ids)
            .map_err(|e| Error::invalid(format!("this text cannot be encoded: {e}")))?;
        Ok(ids.into_iter().map(PipelineToken::id).collect())
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<Parts> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::Limit {
            what: "bytes of tokenizer.json",
            max: MAX_BYTES as u64,
            got: bytes.len() as u64,
        });
    }
    let mut root: Value =
        serde_json::from_slice(bytes).map_err(|e| Error::json(FORMAT, bytes, &e))?;
    let vocab = read_vocab(&root)?;
    let decoder = Decoder::new(decode::parse(root.get("decoder"))?);
    canonicalize_value(&mut root).map_err(|e| Error::unsupported(format!("{FORMAT}: {e}")))?;
    let canonical = root.to_string();
    drop(root);
    let encoder = tokenizers::from_json(&canonical)
        .map_err(|e| Error::unsupported(format!("{FORMAT}: {e}")))?;
    Ok(Parts {
        vocab,
        encoder: HfEncoder(encoder),
        decoder,
    })
}

fn read_vocab(root: &Value) -> Result<Vocab> {
    let model = root
        .get("model")
        .ok_or_else(|| bad("expected a \"model\""))?;
    let mut vocab;
    match model.get("vocab") {
        Some(Value::Object(pieces)) => {
            vocab = Vocab::with_capacity(pieces.len());
            for (piece, id) in pieces {
                vocab.insert(read_id(id, piece)?, piece, Kind::Normal)?;
            }
        }
        // Unigram: [[piece, score], …] by id.
        Some(Value::Array(pieces)) => {
            vocab = Vocab::with_capacity(pieces.len());
            for (id, entry) in pieces.iter().enumerate() {
                let piece = entry.get(0).and_then(Value::as_str);
                let piece = piece.ok_or_else(|| bad("a vocabulary entry is [piece, score]"))?;
                let id = u32::try_from(id).unwrap_or(u32::MAX);
                vocab.insert(id, piece, Kind::Normal)?;
            }
        }
        _ => return Err(bad("expected \"model\".\"vocab\" as an object or an array")),
    }
    let added = match root.get("added_tokens") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(added)) => added,
        Some(_) => return Err(bad("expected \"added_tokens\" as an array")),
    };
    for token in added {
        let content = token.get("content").and_then(Value::as_str);
        let content = content.ok_or_else(|| bad("an added token has no \"content\""))?;
        let id = read_id(token.get("id").unwrap_or(&Value::Null), content)?;
        // A token that the model has keeps the model's id, whatever is written here.
        let id = vocab.id(content).unwrap_or(id);
        let special = token
            .get("special")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        vocab.insert(
            id,
            content,
            if special { Kind::Special } else { Kind::Added },
        )?;
    }
    Ok(vocab)
}

fn read_id(value: &Value, piece: &str) -> Result<u32> {
    let id = value
        .as_u64()
        .ok_or_else(|| bad(format!("token {piece:.40?}: expected an id, found {value}")))?;
    match u32::try_from(id) {
        Ok(id) if id <= MAX_ID => Ok(id),
        _ => Err(Error::Limit {
            what: "token id",
            max: MAX_ID.into(),
            got: id,
        }),
    }
}

fn bad(what: impl Into<String>) -> Error {
    Error::malformed(FORMAT, what)
}
