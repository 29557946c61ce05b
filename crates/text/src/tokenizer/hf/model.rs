//! The BPE model of a `tokenizer.json`.

use serde_json::Value;

use super::super::bpe::Merges;
use super::super::bytes::byte_to_char;
use super::super::spm::byte_ids;
use super::super::vocab::Vocab;
use super::json::{FORMAT, bad, flag};
use super::words::model_id;
use crate::{Error, Result};

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
    pub(super) fn read(model: &Value, vocab: &Vocab, byte_level: bool) -> Result<Self> {
        let flag = |field: &str| flag(model, field, false);
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
        let merges = match model.get("merges") {
            None | Some(Value::Null) => &[][..],
            Some(Value::Array(merges)) => merges,
            Some(_) => return Err(bad("expected \"merges\" as a list")),
        };
        // Old files begin with the version of merges.txt.
        let version = |merge: &Value| merge.as_str().is_some_and(|m| m.starts_with("#version"));
        let merges = match merges.first() {
            Some(first) if version(first) => merges.get(1..).unwrap_or_default(),
            _ => merges,
        };
        let merges = Merges::from_pairs(vocab, merges.iter().map(pair), &prefix, FORMAT)?;
        Ok(Self {
            merges,
            unk: model_id(vocab, text("unk_token")).or_else(|| vocab.id(text("unk_token"))),
            fuse_unk: flag("fuse_unk"),
            ignore_merges: flag("ignore_merges"),
            byte_level,
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

/// A merge: `["left", "right"]`, in older files `"left right"`.
fn pair(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(merge) => merge
            .split_once(' ')
            .filter(|(_, right)| !right.contains(' ')),
        merge => merge
            .get(0)
            .and_then(Value::as_str)
            .zip(merge.get(1).and_then(Value::as_str)),
    }
}
