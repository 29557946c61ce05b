//! Splitting text at tokens that are matched as they stand.

use aho_corasick::{AhoCorasick, MatchKind};
use regex::Regex;

use crate::{Error, Result};

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'t> {
    /// For the model to encode.
    Text {
        text: &'t str,
        /// Byte offset in the whole text.
        at: usize,
    },
    /// A token found as it stands.
    Token(u32),
}

/// A token to look for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) text: String,
    pub(crate) id: u32,
    /// A control token: not matched in untrusted text.
    pub(crate) special: bool,
    /// White space before it goes with it.
    pub(crate) lstrip: bool,
    /// White space after it goes with it.
    pub(crate) rstrip: bool,
    /// Not matched inside a word.
    pub(crate) single_word: bool,
}

/// Finds added and special tokens, at each place the longest.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    automaton: Option<AhoCorasick>,
    wanted: Vec<Wanted>,
    /// A word character, where a token must not be part of a word.
    word: Option<Regex>,
}

impl Splitter {
    pub(crate) fn new(wanted: Vec<Wanted>) -> Result<Self> {
        if wanted.is_empty() {
            return Ok(Self::default());
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(wanted.iter().map(|w| &w.text))
            .map_err(|e| Error::invalid(format!("added tokens: {e}")))?;
        let single_word = wanted.iter().any(|w| w.single_word);
        let word = single_word.then(|| Regex::new(r"^\w$")).transpose();
        let word = word.map_err(|e| Error::invalid(format!("added tokens: {e}")))?;
        Ok(Self {
            automaton: Some(automaton),
            wanted,
            word,
        })
    }

    /// The parts of `text` in order; no text part is empty.
    pub(crate) fn split<'t>(&self, text: &'t str, parse_special: bool) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        let mut from = 0;
        for found in self
            .automaton
            .iter()
            .flat_map(|automaton| automaton.find_iter(text))
        {
            let (mut start, mut end) = (found.start(), found.end());
            let Some(wanted) = self.wanted.get(found.pattern().as_usize()) else {
                continue;
            };
            let (Some(before), Some(after)) = (text.get(..start), text.get(end..)) else {
                continue;
            };
            if wanted.special && !parse_special {
                continue;
            }
            if let Some(word) = self.word.as_ref().filter(|_| wanted.single_word) {
                let is_word = |c: char| word.is_match(c.encode_utf8(&mut [0; 4]));
                if before.ends_with(is_word) || after.starts_with(is_word) {
                    continue;
                }
            }
            if wanted.lstrip {
                start = before.trim_end().len().max(from);
            }
            if wanted.rstrip {
                end += after.len() - after.trim_start().len();
            }
            push_text(&mut parts, text, from, start);
            parts.push(Part::Token(wanted.id));
            from = end;
        }
        push_text(&mut parts, text, from, text.len());
        parts
    }
}

fn push_text<'t>(parts: &mut Vec<Part<'t>>, text: &'t str, from: usize, to: usize) {
    if let Some(text) = text.get(from..to)
        && !text.is_empty()
    {
        parts.push(Part::Text { text, at: from });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, parse_special: bool) -> String {
        let token = |text: &str, id| Wanted {
            text: text.to_owned(),
            id,
            ..Wanted::default()
        };
        let splitter = Splitter::new(vec![
            Wanted {
                special: true,
                rstrip: true,
                ..token("<x>", 1)
            },
            Wanted {
                special: true,
                ..token("<x><y>", 2)
            },
            token("<t>", 3),
            Wanted {
                lstrip: true,
                ..token("<l>", 4)
            },
            Wanted {
                single_word: true,
                ..token("day", 5)
            },
        ]);
        let show = |part: Part<'_>| match part {
            Part::Text { text: part, at } => {
                assert_eq!(&text[at..at + part.len()], part);
                format!("[{part}]")
            }
            Part::Token(id) => id.to_string(),
        };
        splitter
            .unwrap()
            .split(text, parse_special)
            .into_iter()
            .map(show)
            .collect()
    }

    #[test]
    fn longest_first_and_untrusted() {
        assert_eq!(split("a<x> \n<x><y> b<t>", true), "[a]12[ b]3");
        assert_eq!(split("<x><t>é", false), "[<x>]3[é]");
        assert_eq!(split("", true), "");
    }

    #[test]
    fn white_space_and_words() {
        assert_eq!(split("a  <l> b", true), "[a]4[ b]");
        assert_eq!(split("<x>  <l>", true), "14");
        assert_eq!(split("day-day mayday, day", true), "5[-]5[ mayday, ]5");
        assert_eq!(split("½day day\u{301}", true), "[½]5[ day\u{301}]");
    }
}
