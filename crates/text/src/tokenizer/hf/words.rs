//! The models that look words up: WordPiece and WordLevel.

use serde_json::Value;

use super::super::vocab::{Token, Vocab};
use super::json::{bad, text};
use crate::{Error, Result};

/// Longest piece first, from the left; a word that does not come out even is unknown as a whole.
#[derive(Debug)]
pub(super) struct WordPiece {
    unk: String,
    unk_id: Option<u32>,
    prefix: String,
    max_chars: usize,
    /// Bytes of the longest piece: no longer one needs to be looked up.
    longest: usize,
}

impl WordPiece {
    pub(super) fn read(model: &Value, vocab: &Vocab) -> Result<Self> {
        let unk = text(model, "unk_token")?.to_owned();
        let max_chars = model
            .get("max_input_chars_per_word")
            .map_or(Some(100), Value::as_u64);
        let max_chars = max_chars.and_then(|n| usize::try_from(n).ok());
        Ok(Self {
            unk_id: vocab.id(&unk),
            unk,
            prefix: text(model, "continuing_subword_prefix")?.to_owned(),
            max_chars: max_chars.ok_or_else(|| bad("max_input_chars_per_word is not a number"))?,
            longest: vocab
                .iter()
                .map(|(_, token)| token.piece.len())
                .max()
                .unwrap_or(0),
        })
    }

    pub(super) fn encode(&self, vocab: &Vocab, word: &str, out: &mut Vec<u32>) -> Result<()> {
        let start = out.len();
        let fits = word.chars().count() <= self.max_chars && self.pieces(vocab, word, out);
        if !fits {
            out.truncate(start);
            out.push(unknown(self.unk_id, &self.unk)?);
        }
        Ok(())
    }

    fn pieces(&self, vocab: &Vocab, word: &str, out: &mut Vec<u32>) -> bool {
        let mut piece = String::with_capacity(self.longest + 4);
        let mut rest = word;
        while !rest.is_empty() {
            piece.clear();
            if rest.len() < word.len() {
                piece.push_str(&self.prefix);
            }
            let prefix = piece.len();
            let room = self.longest.saturating_sub(prefix);
            let mut end = rest.len().min(room);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            piece.push_str(&rest[..end]);
            let id = loop {
                if piece.len() <= prefix {
                    return false;
                }
                if let Some(id) = model_id(vocab, &piece) {
                    break id;
                }
                piece.pop();
            };
            out.push(id);
            rest = &rest[piece.len() - prefix..];
        }
        true
    }
}

/// One token a word.
#[derive(Debug)]
pub(super) struct WordLevel {
    unk: String,
    unk_id: Option<u32>,
}

impl WordLevel {
    pub(super) fn read(model: &Value, vocab: &Vocab) -> Result<Self> {
        let unk = text(model, "unk_token")?.to_owned();
        Ok(Self {
            unk_id: vocab.id(&unk),
            unk,
        })
    }

    pub(super) fn encode(&self, vocab: &Vocab, word: &str, out: &mut Vec<u32>) -> Result<()> {
        out.push(match model_id(vocab, word) {
            Some(id) => id,
            None => unknown(self.unk_id, &self.unk)?,
        });
        Ok(())
    }
}

fn unknown(id: Option<u32>, name: &str) -> Result<u32> {
    id.ok_or_else(|| {
        Error::invalid(format!(
            "this text cannot be encoded: a word is unknown, and so is the unknown token {name:?}"
        ))
    })
}

/// The id of a piece that the model may produce.
pub(super) fn model_id(vocab: &Vocab, piece: &str) -> Option<u32> {
    let id = vocab.id(piece)?;
    vocab.get(id).is_some_and(Token::of_model).then_some(id)
}
