//! SentencePiece BPE: neighbours are merged by the score of the piece they make.
//!
//! The neighbours that make the piece with the highest score are merged, the leftmost of equals first.
//! What is left and is no token is spelled in bytes (`<0x0A>`). Control tokens never come out of text.
//! Source: `bpe_model.cc` of SentencePiece 0.2; equal to llama.cpp's vectors.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::vocab::{Kind, Vocab};
use crate::{Error, Result};

#[derive(Debug)]
pub(crate) struct Spm {
    /// Score by id.
    scores: Vec<f32>,
    /// The token of each byte.
    bytes: [Option<u32>; 256],
    unk: Option<u32>,
}

/// A possible merge of the symbols that begin at `left` and `right` (byte offsets).
#[derive(Clone, Copy, Debug)]
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Length of both in bytes: tells stale entries.
    len: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then(other.left.cmp(&self.left))
    }
}
impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Pair {}

impl Spm {
    pub(crate) fn new(vocab: &Vocab, scores: Vec<f32>, unk: Option<u32>) -> Self {
        Self {
            scores,
            bytes: byte_ids(vocab),
            unk,
        }
    }

    /// Appends the ids of `text`, in which spaces are already `▁`.
    pub(crate) fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) -> Result<()> {
        // A symbol is the text from its start to `end[start]`; 0 marks one that was merged away.
        let n = text.len();
        let mut end = vec![0usize; n];
        let mut prev = vec![usize::MAX; n];
        let mut queue = BinaryHeap::new();
        let mut last = usize::MAX;
        for (start, c) in text.char_indices() {
            end[start] = start + c.len_utf8();
            prev[start] = last;
            if last != usize::MAX {
                self.propose(vocab, text, last, start, end[start], &mut queue);
            }
            last = start;
        }
        while let Some(Pair {
            left, right, len, ..
        }) = queue.pop()
        {
            let (middle, to) = (end[left], end[right]);
            if middle != right || to == 0 || to - left != len {
                continue;
            }
            end[left] = to;
            end[right] = 0;
            if to < n {
                prev[to] = left;
                self.propose(vocab, text, left, to, end[to], &mut queue);
            }
            if prev[left] != usize::MAX {
                self.propose(vocab, text, prev[left], left, to, &mut queue);
            }
        }
        let mut at = 0;
        while at < n {
            let piece = &text[at..end[at]];
            at = end[at];
            match lookup(vocab, piece) {
                Some(id) => out.push(id),
                None => push_bytes(&self.bytes, self.unk, piece, out)?,
            }
        }
        Ok(())
    }

    fn propose(
        &self,
        vocab: &Vocab,
        text: &str,
        left: usize,
        right: usize,
        to: usize,
        queue: &mut BinaryHeap<Pair>,
    ) {
        if let Some(id) = lookup(vocab, &text[left..to])
            && let Some(&score) = self.scores.get(id as usize)
        {
            queue.push(Pair {
                score,
                left,
                right,
                len: to - left,
            });
        }
    }
}

/// A token that text can become.
fn lookup(vocab: &Vocab, piece: &str) -> Option<u32> {
    let id = vocab.id(piece)?;
    matches!(vocab.get(id)?.kind, Kind::Normal | Kind::Added).then_some(id)
}

/// The tokens `<0x00>` … `<0xFF>`, where the vocabulary has them.
pub(crate) fn byte_ids(vocab: &Vocab) -> [Option<u32>; 256] {
    std::array::from_fn(|b| vocab.id(&format!("<0x{b:02X}>")))
}

/// Spells `piece` in byte tokens, or as the unknown token where the vocabulary has none.
pub(crate) fn push_bytes(
    bytes: &[Option<u32>; 256],
    unk: Option<u32>,
    piece: &str,
    out: &mut Vec<u32>,
) -> Result<()> {
    let start = out.len();
    for b in piece.bytes() {
        match bytes[b as usize] {
            Some(id) => out.push(id),
            None => {
                out.truncate(start);
                let unk = unk.ok_or_else(|| {
                    Error::invalid(format!(
                        "{piece:?} is not in the vocabulary, which has neither byte tokens nor an unknown token"
                    ))
                })?;
                out.push(unk);
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &str, unk: Option<u32>) -> Result<Vec<u32>> {
        let mut vocab = Vocab::default();
        let pieces = [
            ("<unk>", Kind::Special, 0.0),
            ("<s>", Kind::Special, 0.0),
            ("<0xC3>", Kind::Byte, 0.0),
            ("<0xA9>", Kind::Byte, 0.0),
            ("a", Kind::Normal, -9.0),
            ("b", Kind::Normal, -9.0),
            ("ab", Kind::Normal, -2.0),
            ("bb", Kind::Normal, -1.0),
            ("aabb", Kind::Normal, -3.0),
            ("<", Kind::Normal, -9.0),
            ("s", Kind::Normal, -9.0),
            ("<s", Kind::Normal, -1.0),
            (">", Kind::Normal, -9.0),
        ];
        for (id, (piece, kind, _)) in pieces.iter().enumerate() {
            vocab.insert(id as u32, piece, *kind).unwrap();
        }
        let spm = Spm::new(&vocab, pieces.iter().map(|p| p.2).collect(), unk);
        let mut out = Vec::new();
        spm.encode(&vocab, text, &mut out).map(|()| out)
    }

    #[test]
    fn by_score_then_leftmost() {
        assert_eq!(encode("abb", None).unwrap(), [4, 7]); // bb scores above ab
        assert_eq!(encode("bbb", None).unwrap(), [7, 5]);
        assert_eq!(encode("abab", None).unwrap(), [6, 6]);
        assert!(encode("", None).unwrap().is_empty());
    }

    #[test]
    fn control_tokens_do_not_come_out_of_text() {
        assert_eq!(encode("<s>", None).unwrap(), [11, 12]);
    }

    #[test]
    fn bytes_then_unknown_then_error() {
        assert_eq!(encode("aé", Some(0)).unwrap(), [4, 2, 3]);
        assert_eq!(encode("aü", Some(0)).unwrap(), [4, 0]);
        assert!(matches!(encode("aü", None), Err(Error::InvalidInput(_))));
    }
}
