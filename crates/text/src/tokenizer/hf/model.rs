//! The BPE model of a `tokenizer.json`, on this crate's own merges.
//!
//! `tokenizers` 1.0.0-rc.3 has one too, which takes a word of one byte without its end-of-word suffix and
//! refuses byte-level vocabularies that lack a byte; the semantics here are those of 0.23.

use serde_json::Value;

use super::super::bpe::Merges;
use super::super::bytes::byte_to_char;
use super::super::spm::byte_ids;
use super::super::vocab::{Token, Vocab};
use crate::{Error, Result};

const FORMAT: &str = "tokenizer.json";

#[derive(Debug)]
pub(super) struct Bpe {
    merges: Merges,
    unk: Option<u32>,
    fuse_unk: bool,
    ignore_merges: bool,
    byte_level: bool,
    /// The tokens `<0x00>` … `<0xFF>`, where the model falls back on them.
    bytes: Option<Box<[Option<u32>; 256]>>,
    /// What every piece but the first of a word begins with.
    prefix: String,
    /// What the last piece of a word ends with.
    suffix: String,
}

impl Bpe {
    /// `model` is in the spelling of format 2.0.
    pub(super) fn read(model: &Value, vocab: &Vocab) -> Result<Self> {
        let flag = |field: &str| model.get(field).and_then(Value::as_bool).unwrap_or(false);
        let text = |field: &str| model.get(field).and_then(Value::as_str).unwrap_or_default();
        if model
            .get("dropout")
            .and_then(Value::as_f64)
            .is_some_and(|p| p != 0.0)
        {
            return Err(Error::unsupported(
                "BPE dropout in tokenizer.json, which makes encoding random; set \"dropout\" to null",
            ));
        }
        let prefix = text("continuing_subword_prefix").to_owned();
        let merges = model
            .get("merges")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        let pairs = merges.iter().map(|pair| {
            let piece = |at| pair.get(at).and_then(Value::as_str);
            let (left, right) = piece(0).zip(piece(1))?;
            Some((left, right))
        });
        let unk = match text("unk_token") {
            "" => None,
            unk => Some(vocab.id(unk).ok_or_else(|| {
                Error::malformed(
                    FORMAT,
                    format!("unk_token {unk:?} is not in the vocabulary"),
                )
            })?),
        };
        Ok(Self {
            merges: Merges::from_pairs(vocab, pairs, &prefix, FORMAT)?,
            unk,
            fuse_unk: flag("fuse_unk"),
            ignore_merges: flag("ignore_merges"),
            byte_level: flag("byte_level"),
            bytes: flag("byte_fallback").then(|| Box::new(byte_ids(vocab))),
            prefix,
            suffix: text("end_of_word_suffix").to_owned(),
        })
    }

    /// Appends the ids of a word.
    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        word: &str,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let Scratch {
            spelled,
            piece,
            symbols,
        } = scratch;
        let word = if self.byte_level {
            spelled.clear();
            spelled.extend(word.bytes().map(byte_to_char));
            spelled.as_str()
        } else {
            word
        };
        if self.ignore_merges
            && let Some(id) = model_id(vocab, word)
        {
            out.push(id);
            return Ok(());
        }
        symbols.clear();
        let mut after_unk = false;
        let mut chars = word.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            piece.clear();
            if at > 0 {
                piece.push_str(&self.prefix);
            }
            piece.push(c);
            if chars.peek().is_none() {
                piece.push_str(&self.suffix);
            }
            if let Some(id) = model_id(vocab, piece) {
                symbols.push(id);
                after_unk = false;
                continue;
            }
            if let Some(bytes) = &self.bytes
                && piece.bytes().all(|b| bytes[b as usize].is_some())
            {
                symbols.extend(piece.bytes().filter_map(|b| bytes[b as usize]));
                after_unk = false;
                continue;
            }
            let Some(unk) = self.unk else {
                return Err(Error::invalid(format!(
                    "this text cannot be encoded: {piece:?} is not in the vocabulary, which has no unknown token"
                )));
            };
            if !(after_unk && self.fuse_unk) {
                symbols.push(unk);
            }
            after_unk = true;
        }
        self.merges.apply(symbols);
        out.extend_from_slice(symbols);
        Ok(())
    }
}

/// Buffers kept from word to word.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    spelled: String,
    piece: String,
    symbols: Vec<u32>,
}

/// The id of a piece that the model may produce: not of one that was only added.
fn model_id(vocab: &Vocab, piece: &str) -> Option<u32> {
    let id = vocab.id(piece)?;
    vocab.get(id).is_some_and(Token::of_model).then_some(id)
}
