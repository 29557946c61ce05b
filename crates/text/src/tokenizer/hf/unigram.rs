//! Unigram: the way through a word with the highest sum of scores (Viterbi).

use serde_json::Value;

use super::super::spm::byte_ids;
use super::super::vocab::Vocab;
use super::json::{bad, flag};
use super::words::model_id;
use crate::{Error, Result};

/// How much worse than the worst piece an unknown character is.
const UNKNOWN_PENALTY: f64 = 10.0;

#[derive(Debug)]
pub(super) struct Unigram {
    /// Pieces in order, with id and score.
    pieces: Vec<(Box<str>, u32, f64)>,
    unknown_score: f64,
    unk: Option<u32>,
    bytes: Option<Box<[Option<u32>; 256]>>,
}

impl Unigram {
    pub(super) fn read(model: &Value, vocab: &Vocab) -> Result<Self> {
        let entries = model
            .get("vocab")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        let mut pieces = Vec::with_capacity(entries.len());
        let mut lowest = f64::INFINITY;
        for (id, entry) in (0u32..).zip(entries) {
            let piece = entry.get(0).and_then(Value::as_str);
            let score = entry
                .get(1)
                .and_then(Value::as_f64)
                .filter(|score| score.is_finite());
            let (Some(piece), Some(score)) = (piece, score) else {
                return Err(bad("a vocabulary entry is [piece, score]"));
            };
            lowest = lowest.min(score);
            // A control token does not come out of text. (In the reference it can.)
            let control = vocab.get(id).is_some_and(|token| token.kind.is_special());
            if !piece.is_empty() && !control {
                pieces.push((piece.into(), id, score));
            }
        }
        // Of two entries with one piece, the last counts.
        pieces.sort_by(|a: &(Box<str>, u32, f64), b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        pieces.dedup_by(|a, b| a.0 == b.0);
        let unk = match model.get("unk_id") {
            None | Some(Value::Null) => None,
            Some(id) => {
                let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                let known = id.filter(|&id| (id as usize) < entries.len());
                Some(known.ok_or_else(|| bad("unk_id is no id of the vocabulary"))?)
            }
        };
        Ok(Self {
            pieces,
            unknown_score: lowest - UNKNOWN_PENALTY,
            unk,
            bytes: flag(model, "byte_fallback", false).then(|| Box::new(byte_ids(vocab))),
        })
    }

    pub(super) fn encode(&self, vocab: &Vocab, word: &str, out: &mut Vec<u32>) -> Result<()> {
        #[derive(Clone, Copy)]
        struct Best {
            score: f64,
            /// Where the last piece begins, and its id; `None` is unknown.
            last: Option<(usize, Option<u32>)>,
        }
        let mut best = vec![
            Best {
                score: 0.0,
                last: None
            };
            word.len() + 1
        ];
        let relax = |best: &mut [Best], from: usize, to: usize, score: f64, id| {
            let score = best[from].score + score;
            let target = &mut best[to];
            if target.last.is_none() || score > target.score {
                *target = Best {
                    score,
                    last: Some((from, id)),
                };
            }
        };
        for (at, c) in word.char_indices() {
            let mut single = false;
            self.prefixes(&word.as_bytes()[at..], |len, id, score| {
                single |= len == c.len_utf8();
                relax(
                    &mut best,
                    at,
                    at + len,
                    score,
                    Some(id).filter(|&id| Some(id) != self.unk),
                );
            });
            if !single {
                relax(&mut best, at, at + c.len_utf8(), self.unknown_score, None);
            }
        }
        let start = out.len();
        let mut to = word.len();
        // The end of the run of unknown characters that is being walked through.
        let mut unknown_to = None;
        while to > 0 {
            let Some((from, id)) = best[to].last else {
                return Err(Error::invalid(
                    "this text cannot be encoded: no way through a word",
                ));
            };
            match id {
                None => {
                    unknown_to.get_or_insert(to);
                }
                Some(id) => {
                    if let Some(end) = unknown_to.take() {
                        self.push_unknown(vocab, &word[to..end], out)?;
                    }
                    out.push(id);
                }
            }
            to = from;
        }
        if let Some(end) = unknown_to {
            self.push_unknown(vocab, &word[..end], out)?;
        }
        out[start..].reverse();
        Ok(())
    }

    /// Ids of unknown characters, in reverse.
    fn push_unknown(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) -> Result<()> {
        if let Some(id) = model_id(vocab, text) {
            out.push(id);
        } else if let Some(bytes) = &self.bytes
            && text.bytes().all(|b| bytes[b as usize].is_some())
        {
            out.extend(text.bytes().rev().filter_map(|b| bytes[b as usize]));
        } else {
            out.push(self.unk.ok_or_else(|| {
                Error::invalid(format!(
                    "this text cannot be encoded: {text:.40?} is not in the vocabulary, which has no unknown token"
                ))
            })?);
        }
        Ok(())
    }

    /// Every piece that `text` begins with, shortest first: (bytes, id, score).
    fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, u32, f64)) {
        let mut range = self.pieces.as_slice();
        for (n, &byte) in text.iter().enumerate() {
            // All in `range` share the first n bytes. One of exactly n bytes comes first; it was reported.
            let byte_at = |piece: &(Box<str>, u32, f64)| piece.0.as_bytes().get(n).copied();
            let from = range.partition_point(|piece| byte_at(piece) < Some(byte));
            let to = range.partition_point(|piece| byte_at(piece) <= Some(byte));
            range = &range[from..to];
            match range.first() {
                None => return,
                Some((piece, id, score)) if piece.len() == n + 1 => found(n + 1, *id, *score),
                Some(_) => {}
            }
        }
    }
}
