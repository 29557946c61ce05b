//! `tokenizer.json`, the format of the `tokenizers` library.
//!
//! | file | what it reads |
//! |---|---|
//! | `normalize.rs`, `charsmap.rs` | `normalizer` |
//! | `pre.rs`, `pattern.rs` | `pre_tokenizer` |
//! | `model.rs` (BPE), `unigram.rs`, `words.rs` (WordPiece, WordLevel) | `model` |
//! | `post.rs` | `post_processor` |
//!
//! The `decoder` is `crate::decode`. Encoding goes: tokens that stand in the raw text, normalizers, tokens that
//! stand in the normalized text, cutting into words, the model, the tokens around.
//!
//! Source of the semantics: `tokenizers` 0.23 (Rust and Python); checked against it on random texts. That crate
//! is not used itself: neither 0.23 nor 1.0.0-rc.3 builds for `wasm32-unknown-unknown` without compiler flags that
//! every user would have to set, and 1.0.0-rc.3 reads no regular expression that it does not know by heart.

mod charsmap;
mod json;
mod model;
mod normalize;
mod pattern;
mod post;
mod pre;
mod unigram;
mod words;

use json::{FORMAT, bad, flag, text};
use model::Bpe;
use normalize::Normalizer;
use post::{Around, Piece};
use pre::Cut;
use serde_json::Value;
use unigram::Unigram;
use words::{WordLevel, WordPiece};

use super::specials::{Part, Splitter, Wanted};
use super::vocab::{Kind, MAX_ID, Vocab};
use crate::decode::{self, Decoder};
use crate::{Error, Result};

/// Larger files are refused; the largest published ones have about 35 MB.
const MAX_BYTES: usize = 256 << 20;

/// Bytes a text may have when normalized.
const MAX_NORMAL: usize = 256 << 20;

pub(super) struct Parts {
    pub(super) vocab: Vocab,
    pub(super) encoder: HfEncoder,
    pub(super) decoder: Decoder,
}

/// Text → ids.
#[derive(Debug)]
pub(super) struct HfEncoder {
    /// Tokens to find in raw text, and in normalized text.
    raw: Splitter,
    normal: Splitter,
    normalizers: Vec<Normalizer>,
    cutters: Vec<Cut>,
    model: Model,
    around: Around,
}

#[derive(Debug)]
enum Model {
    Bpe(Box<Bpe>),
    Unigram(Unigram),
    WordPiece(WordPiece),
    WordLevel(WordLevel),
}

impl HfEncoder {
    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = Vec::with_capacity(text.len() / 3 + 4);
        if add_special {
            ids.extend(&self.around.before);
        }
        let mut scratch = model::Scratch::default();
        for part in self.raw.split(text, parse_special) {
            let (raw, at) = match part {
                Part::Token(id) => {
                    ids.push(id);
                    continue;
                }
                Part::Text { text, at } => (text, at),
            };
            let normal = normalize::run(&self.normalizers, raw, MAX_NORMAL)?;
            for part in self.normal.split(&normal.text, parse_special) {
                let (text, first) = match part {
                    Part::Token(id) => {
                        ids.push(id);
                        continue;
                    }
                    Part::Text { text, at: within } => {
                        (text, at == 0 && within == 0 && normal.leads)
                    }
                };
                let words = pre::cut(&self.cutters, text, first)?;
                for range in &words.ranges {
                    let word = words.text.get(range.clone()).unwrap_or_default();
                    match &self.model {
                        Model::Bpe(bpe) => bpe.encode(vocab, word, &mut scratch, &mut ids)?,
                        Model::Unigram(unigram) => unigram.encode(vocab, word, &mut ids)?,
                        Model::WordPiece(model) => model.encode(vocab, word, &mut ids)?,
                        Model::WordLevel(model) => model.encode(vocab, word, &mut ids)?,
                    }
                }
            }
        }
        if add_special {
            ids.extend(&self.around.after);
        }
        Ok(ids)
    }
}

impl HfEncoder {
    /// The tokens before and after a text.
    pub(super) fn around(&self) -> (&[u32], &[u32]) {
        (&self.around.before, &self.around.after)
    }

    /// Two encoded texts as one sequence of ids and segments; `None` if the file has no template for pairs.
    pub(super) fn join(&self, first: &[u32], second: &[u32]) -> Option<(Vec<u32>, Vec<u32>)> {
        let (mut ids, mut kinds) = (Vec::new(), Vec::new());
        for piece in self.around.pair.as_ref()? {
            let (part, kind) = match piece {
                Piece::Token(id, kind) => (std::slice::from_ref(id), *kind),
                Piece::First(kind) => (first, *kind),
                Piece::Second(kind) => (second, *kind),
            };
            ids.extend_from_slice(part);
            kinds.resize(ids.len(), kind);
        }
        Some((ids, kinds))
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
    let root: Value = serde_json::from_slice(bytes).map_err(|e| Error::json(FORMAT, bytes, &e))?;
    let model = root
        .get("model")
        .ok_or_else(|| bad("expected a \"model\""))?;
    let mut vocab = model_vocab(model)?;
    let normalizers = normalize::read(root.get("normalizer"))?;
    let (raw, normal) = add_tokens(&root, &mut vocab, &normalizers)?;
    let (cutters, byte_level) = pre::read(root.get("pre_tokenizer"))?;
    let byte_level = byte_level || flag(model, "byte_level", false);
    let kind = kind(model)?;
    let model = match kind {
        "BPE" => Model::Bpe(Box::new(Bpe::read(model, &vocab, byte_level)?)),
        _ if byte_level => {
            return Err(Error::unsupported(format!(
                "{FORMAT}: a ByteLevel pre-tokenizer with the model {kind}; it works with BPE"
            )));
        }
        "Unigram" => Model::Unigram(Unigram::read(model, &vocab)?),
        "WordPiece" => Model::WordPiece(WordPiece::read(model, &vocab)?),
        "WordLevel" => Model::WordLevel(WordLevel::read(model, &vocab)?),
        other => {
            return Err(json::unsupported(
                "model",
                other,
                "BPE, Unigram, WordPiece, WordLevel",
            ));
        }
    };
    let around = Around::read(root.get("post_processor"))?;
    let decoder = Decoder::new(decode::parse(root.get("decoder"))?);
    let encoder = HfEncoder {
        raw,
        normal,
        normalizers,
        cutters,
        model,
        around,
    };
    Ok(Parts {
        vocab,
        encoder,
        decoder,
    })
}

/// The model's type. Old files leave it out; then the fields tell.
fn kind(model: &Value) -> Result<&str> {
    let has = |field: &str| model.get(field).is_some();
    match model.get("type") {
        Some(_) => text(model, "type"),
        None if has("merges") => Ok("BPE"),
        None if has("continuing_subword_prefix") => Ok("WordPiece"),
        None if model.get("vocab").is_some_and(Value::is_array) => Ok("Unigram"),
        None => Ok("WordLevel"),
    }
}

fn model_vocab(model: &Value) -> Result<Vocab> {
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
        _ => return Err(bad("expected \"model\".\"vocab\" as an object or a list")),
    }
    Ok(vocab)
}

/// Adds the added tokens to the vocabulary. Returns what finds them in raw and in normalized text.
fn add_tokens(
    root: &Value,
    vocab: &mut Vocab,
    normalizers: &[Normalizer],
) -> Result<(Splitter, Splitter)> {
    let added = match root.get("added_tokens") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(added)) => added,
        Some(_) => return Err(bad("expected \"added_tokens\" as a list")),
    };
    let (mut raw, mut normal) = (Vec::new(), Vec::new());
    for token in added {
        let content = text(token, "content")?;
        if content.is_empty() {
            continue;
        }
        let id = read_id(token.get("id").unwrap_or(&Value::Null), content)?;
        // A token that the model has keeps the model's id, whatever is written here.
        let id = vocab.id(content).unwrap_or(id);
        let special = flag(token, "special", false);
        vocab.insert(
            id,
            content,
            if special { Kind::Special } else { Kind::Added },
        )?;
        let mut wanted = Wanted {
            text: content.to_owned(),
            id,
            special,
            lstrip: flag(token, "lstrip", false),
            rstrip: flag(token, "rstrip", false),
            single_word: flag(token, "single_word", false),
        };
        if flag(token, "normalized", !special) {
            wanted.text = normalize::run(normalizers, content, MAX_NORMAL)?
                .text
                .into_owned();
            // The normalized form is also what decoding starts from.
            vocab.set_spelled(id, &wanted.text);
            if !wanted.text.is_empty() {
                normal.push(wanted);
            }
        } else {
            raw.push(wanted);
        }
    }
    Ok((Splitter::new(raw)?, Splitter::new(normal)?))
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
