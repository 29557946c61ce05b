//! Splitting text at tokens that are matched as they stand.

use aho_corasick::{AhoCorasick, MatchKind};

use super::vocab::{Kind, Vocab};
use crate::{Error, Result};

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'t> {
    /// For the model to encode.
    Text(&'t str),
    /// A token found as it stands.
    Token(u32),
}

/// Finds added and special tokens, the longest at each place first.
#[derive(Debug)]
pub(crate) struct Splitter {
    /// Added and special tokens.
    all: Option<Matcher>,
    /// Added tokens only.
    plain: Option<Matcher>,
}

#[derive(Debug)]
struct Matcher {
    automaton: AhoCorasick,
    /// Per pattern: its id, and whether white space that follows goes with it.
    tokens: Vec<(u32, bool)>,
}

impl Splitter {
    /// `eats_space` says which tokens take the white space after them along.
    pub(crate) fn new(vocab: &Vocab, eats_space: impl Fn(&str) -> bool) -> Result<Self> {
        let build = |with_special: bool| {
            let wanted = vocab.iter().filter(|(_, token)| {
                !token.piece.is_empty()
                    && (token.kind == Kind::Added || (with_special && token.kind == Kind::Special))
            });
            let (pieces, tokens): (Vec<&str>, Vec<_>) = wanted
                .map(|(id, t)| (&*t.piece, (id, eats_space(&t.piece))))
                .unzip();
            if pieces.is_empty() {
                return Ok(None);
            }
            let automaton = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(pieces)
                .map_err(|e| Error::invalid(format!("special tokens: {e}")))?;
            Ok(Some(Matcher { automaton, tokens }))
        };
        Ok(Self {
            all: build(true)?,
            plain: build(false)?,
        })
    }

    /// The parts of `text` in order; no text part is empty.
    pub(crate) fn split<'t>(&self, text: &'t str, parse_special: bool) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        let matcher = if parse_special {
            &self.all
        } else {
            &self.plain
        };
        let mut from = 0;
        if let Some(matcher) = matcher {
            for found in matcher.automaton.find_iter(text) {
                let Some(&(id, eats_space)) = matcher.tokens.get(found.pattern().as_usize()) else {
                    continue;
                };
                push_text(&mut parts, text.get(from..found.start()));
                parts.push(Part::Token(id));
                from = found.end();
                if eats_space {
                    let rest = &text[from..];
                    from += rest.len() - rest.trim_start().len();
                }
            }
        }
        push_text(&mut parts, text.get(from..));
        parts
    }
}

fn push_text<'t>(parts: &mut Vec<Part<'t>>, text: Option<&'t str>) {
    if let Some(text) = text
        && !text.is_empty()
    {
        parts.push(Part::Text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_first_and_untrusted() {
        let mut vocab = Vocab::default();
        for (id, (piece, kind)) in [
            ("a", Kind::Normal),
            ("<x>", Kind::Special),
            ("<x><y>", Kind::Special),
            ("<t>", Kind::Added),
        ]
        .into_iter()
        .enumerate()
        {
            vocab.insert(id as u32, piece, kind).unwrap();
        }
        let splitter = Splitter::new(&vocab, |piece| piece == "<x>").unwrap();
        use Part::{Text, Token};
        assert_eq!(
            splitter.split("a<x> \n<x><y> b<t>", true),
            [Text("a"), Token(1), Token(2), Text(" b"), Token(3)]
        );
        assert_eq!(
            splitter.split("<x><t>é", false),
            [Text("<x>"), Token(3), Text("é")]
        );
        assert_eq!(splitter.split("", true), []);
    }
}
