//! The `pre_tokenizer` of a `tokenizer.json`: cutting normalized text into words.

use std::borrow::Cow;
use std::ops::Range;

use regex::Regex;
use serde_json::Value;

use super::super::pretok::{Cutter, PreTokenizer};
use super::json::{bad, flag, members, text, unsupported};
use super::pattern::Pattern;
use crate::{Error, Result};

/// More members than this are no pre-tokenizer.
const MAX: usize = 64;

/// One member of a pre-tokenizer.
#[derive(Debug)]
pub(super) enum Cut {
    /// A pattern whose matches, and what lies between, are words; in linear time.
    Linear(Cutter),
    /// GPT-2's pattern.
    Gpt2(PreTokenizer),
    Split {
        pattern: Pattern,
        behavior: Behavior,
        invert: bool,
    },
    /// Characters of a class, each cut off, or in runs.
    Class {
        class: Class,
        behavior: Behavior,
    },
    FixedLength(usize),
    /// A space before a word that does not begin with one.
    PrefixSpace,
    Metaspace {
        replacement: char,
        prepend: Prepend,
        split: bool,
    },
}

/// What becomes of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behavior {
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    /// As `Isolated`, but neighbouring matches are one.
    Contiguous,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prepend {
    Always,
    First,
    Never,
}

/// A class of characters.
#[derive(Debug)]
pub(super) enum Class {
    Space,
    Numeric,
    Punctuation(Regex),
    One(char),
}

/// Text and the words it is cut into.
#[derive(Debug)]
pub(super) struct Words<'t> {
    pub(super) text: Cow<'t, str>,
    pub(super) ranges: Vec<Range<usize>>,
}

impl<'t> Words<'t> {
    fn new(text: &'t str) -> Self {
        let whole = (!text.is_empty()).then_some(0..text.len());
        Self {
            text: Cow::Borrowed(text),
            ranges: whole.into_iter().collect(),
        }
    }

    fn word(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// Every word rewritten.
    fn rewrite(&mut self, mut each: impl FnMut(&str, bool, &mut String)) {
        let mut text = String::with_capacity(self.text.len() + self.text.len() / 4 + 4);
        let mut ranges = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            let start = text.len();
            each(self.word(range), range.start == 0, &mut text);
            ranges.push(start..text.len());
        }
        *self = Self {
            text: Cow::Owned(text),
            ranges,
        };
    }
}

/// Cuts `text` by each member in turn, each within the words of the one before. `first`: whether the
/// text begins the whole input.
pub(super) fn cut<'t>(cutters: &[Cut], text: &'t str, first: bool) -> Result<Words<'t>> {
    let mut words = Words::new(text);
    for cutter in cutters {
        cutter.apply(&mut words, first)?;
    }
    Ok(words)
}

impl Cut {
    fn apply(&self, words: &mut Words<'_>, first: bool) -> Result<()> {
        match self {
            Cut::PrefixSpace => {
                words.rewrite(|word, _, out| {
                    if !word.starts_with(' ') {
                        out.push(' ');
                    }
                    out.push_str(word);
                });
                return Ok(());
            }
            Cut::Metaspace {
                replacement,
                prepend,
                split,
            } => {
                words.rewrite(|word, leads, out| {
                    let wanted = match prepend {
                        Prepend::Always => true,
                        Prepend::First => first && leads,
                        Prepend::Never => false,
                    };
                    if wanted && !word.starts_with([' ', *replacement]) {
                        out.push(*replacement);
                    }
                    out.extend(
                        word.chars()
                            .map(|c| if c == ' ' { *replacement } else { c }),
                    );
                });
                if !split {
                    return Ok(());
                }
            }
            _ => {}
        }
        let mut cut = Vec::with_capacity(words.ranges.len());
        for range in &words.ranges {
            let word = words.word(range);
            match self {
                Cut::Linear(cutter) => cutter.cut(word, range.start, &mut cut),
                Cut::Gpt2(pre) => {
                    let shift = |w: Range<usize>| range.start + w.start..range.start + w.end;
                    cut.extend(pre.words(word).into_iter().map(shift));
                }
                Cut::Split {
                    pattern,
                    behavior,
                    invert,
                } => {
                    let matches = pattern.matches(word)?;
                    behavior.cut(&matches, *invert, word.len(), range.start, &mut cut);
                }
                Cut::Class { class, behavior } => {
                    behavior.cut(
                        &class.matches(word),
                        false,
                        word.len(),
                        range.start,
                        &mut cut,
                    );
                }
                Cut::FixedLength(n) => {
                    let mut starts: Vec<usize> =
                        word.char_indices().step_by(*n).map(|(at, _)| at).collect();
                    starts.push(word.len());
                    cut.extend(
                        starts
                            .windows(2)
                            .map(|w| range.start + w[0]..range.start + w[1]),
                    );
                }
                Cut::Metaspace { replacement, .. } => {
                    let matches: Vec<_> = word
                        .match_indices(*replacement)
                        .map(|(at, m)| (at, at + m.len()))
                        .collect();
                    Behavior::MergedWithNext.cut(
                        &matches,
                        false,
                        word.len(),
                        range.start,
                        &mut cut,
                    );
                }
                Cut::PrefixSpace => {}
            }
        }
        words.ranges = cut;
        Ok(())
    }
}

impl Behavior {
    fn read(node: &Value) -> Result<Self> {
        Ok(match node.get("behavior").and_then(Value::as_str) {
            None | Some("Isolated") => Behavior::Isolated,
            Some("Removed") => Behavior::Removed,
            Some("MergedWithPrevious") => Behavior::MergedWithPrevious,
            Some("MergedWithNext") => Behavior::MergedWithNext,
            Some("Contiguous") => Behavior::Contiguous,
            Some(other) => return Err(bad(format!("split behavior {other:?}"))),
        })
    }

    /// Cuts a text of `len` bytes at its matches, or, inverted, at what lies between them.
    fn cut(
        self,
        matches: &[(usize, usize)],
        invert: bool,
        len: usize,
        base: usize,
        out: &mut Vec<Range<usize>>,
    ) {
        // (start, end, is a match)
        let mut pieces = Vec::with_capacity(matches.len() * 2 + 1);
        let mut from = 0;
        for &(start, end) in matches {
            if from < start {
                pieces.push((from, start, invert));
            }
            if start < end {
                pieces.push((start, end, !invert));
            }
            from = end;
        }
        if from < len {
            pieces.push((from, len, invert));
        }
        let mut push = |start: usize, end: usize| out.push(base + start..base + end);
        match self {
            Behavior::Isolated => pieces.iter().for_each(|&(start, end, _)| push(start, end)),
            Behavior::Removed => {
                pieces
                    .iter()
                    .filter(|p| !p.2)
                    .for_each(|&(start, end, _)| push(start, end));
            }
            Behavior::Contiguous => {
                for run in pieces.chunk_by(|a, b| a.2 == b.2) {
                    if let (Some(first), Some(last)) = (run.first(), run.last()) {
                        push(first.0, last.1);
                    }
                }
            }
            Behavior::MergedWithPrevious => {
                // A match joins the gap before it, but not a match before it.
                let mut merged: Vec<(usize, usize, bool)> = Vec::with_capacity(pieces.len());
                let mut previous_match = false;
                for (start, end, is_match) in pieces {
                    match merged.last_mut() {
                        Some(last) if is_match && !previous_match => last.1 = end,
                        _ => merged.push((start, end, is_match)),
                    }
                    previous_match = is_match;
                }
                merged.iter().for_each(|&(start, end, _)| push(start, end));
            }
            Behavior::MergedWithNext => {
                let mut merged: Vec<(usize, usize)> = Vec::with_capacity(pieces.len());
                let mut previous_match = false;
                for (start, end, is_match) in pieces.into_iter().rev() {
                    match merged.last_mut() {
                        Some(last) if is_match && !previous_match => last.0 = start,
                        _ => merged.push((start, end)),
                    }
                    previous_match = is_match;
                }
                merged
                    .iter()
                    .rev()
                    .for_each(|&(start, end)| push(start, end));
            }
        }
    }
}

impl Class {
    fn matches(&self, word: &str) -> Vec<(usize, usize)> {
        let each = |is: &dyn Fn(char) -> bool| {
            word.char_indices()
                .filter(|&(_, c)| is(c))
                .map(|(at, c)| (at, at + c.len_utf8()))
                .collect()
        };
        match self {
            Class::Space => each(&char::is_whitespace),
            Class::Numeric => each(&char::is_numeric),
            Class::One(wanted) => each(&|c| c == *wanted),
            Class::Punctuation(regex) => regex
                .find_iter(word)
                .map(|m| (m.start(), m.end()))
                .collect(),
        }
    }

    fn punctuation() -> Result<Self> {
        let regex = Regex::new(r"[\p{P}[:punct:]]").map_err(|e| bad(e.to_string()))?;
        Ok(Class::Punctuation(regex))
    }
}

/// Reads the pre-tokenizer, and whether it says that words are spelled in GPT-2's byte alphabet.
pub(super) fn read(node: Option<&Value>) -> Result<(Vec<Cut>, bool)> {
    let (mut cutters, mut byte_level) = (Vec::new(), false);
    if let Some(node) = node.filter(|node| !node.is_null()) {
        push(node, &mut cutters, &mut byte_level)?;
    }
    Ok((cutters, byte_level))
}

fn push(node: &Value, cutters: &mut Vec<Cut>, byte_level: &mut bool) -> Result<()> {
    if cutters.len() >= MAX {
        return Err(Error::Limit {
            what: "pre-tokenizers",
            max: MAX as u64,
            got: MAX as u64 + 1,
        });
    }
    let kind = text(node, "type")?;
    if *byte_level && kind != "Sequence" {
        return Err(Error::unsupported(format!(
            "pre-tokenizer {kind:?} after ByteLevel in tokenizer.json; ByteLevel must come last"
        )));
    }
    let cut = match kind {
        "Sequence" => {
            let members = members(node, "pretokenizers")?;
            return members
                .iter()
                .try_for_each(|member| push(member, cutters, byte_level));
        }
        "ByteLevel" => {
            *byte_level = true;
            if flag(node, "add_prefix_space", true) {
                cutters.push(Cut::PrefixSpace);
            }
            if !flag(node, "use_regex", true) {
                return Ok(());
            }
            Cut::Gpt2(PreTokenizer::of_kind("gpt-2")?.0)
        }
        "Split" => split(node)?,
        "Whitespace" => Cut::Split {
            pattern: Pattern::regex(r"\w+|[^\w\s]+")?,
            behavior: Behavior::Removed,
            invert: true,
        },
        "WhitespaceSplit" => Cut::Class {
            class: Class::Space,
            behavior: Behavior::Removed,
        },
        "BertPreTokenizer" => {
            cutters.push(Cut::Class {
                class: Class::Space,
                behavior: Behavior::Removed,
            });
            Cut::Class {
                class: Class::punctuation()?,
                behavior: Behavior::Isolated,
            }
        }
        "Digits" => Cut::Class {
            class: Class::Numeric,
            behavior: match flag(node, "individual_digits", false) {
                true => Behavior::Isolated,
                false => Behavior::Contiguous,
            },
        },
        "Punctuation" => Cut::Class {
            class: Class::punctuation()?,
            behavior: Behavior::read(node)?,
        },
        "CharDelimiterSplit" => Cut::Class {
            class: Class::One(one_char(node, "delimiter")?),
            behavior: Behavior::Removed,
        },
        "FixedLength" => {
            let length = node.get("length").map_or(Some(5), Value::as_u64);
            match length.and_then(|n| usize::try_from(n).ok()) {
                Some(n) if n > 0 => Cut::FixedLength(n),
                _ => return Err(bad("FixedLength: \"length\" is a number above 0")),
            }
        }
        "Metaspace" => Cut::Metaspace {
            replacement: one_char(node, "replacement")?,
            prepend: prepend(node)?,
            split: flag(node, "split", true),
        },
        other => {
            return Err(unsupported(
                "pre-tokenizer",
                other,
                "BertPreTokenizer, ByteLevel, CharDelimiterSplit, Digits, FixedLength, Metaspace, Punctuation, \
                 Sequence, Split, Whitespace, WhitespaceSplit",
            ));
        }
    };
    cutters.push(cut);
    Ok(())
}

fn split(node: &Value) -> Result<Cut> {
    let (behavior, invert) = (Behavior::read(node)?, flag(node, "invert", false));
    let source = node
        .get("pattern")
        .and_then(|p| p.get("Regex"))
        .and_then(Value::as_str);
    let linear = source.and_then(|source| match (behavior, invert) {
        (Behavior::Isolated, _) => Cutter::linear(source, true),
        (Behavior::Removed, true) => Cutter::linear(source, false),
        _ => None,
    });
    Ok(match linear {
        Some(cutter) => Cut::Linear(cutter),
        None => Cut::Split {
            pattern: Pattern::read(node)?,
            behavior,
            invert,
        },
    })
}

/// `prepend_scheme` decides; files older than it say `add_prefix_space`.
fn prepend(node: &Value) -> Result<Prepend> {
    match node.get("prepend_scheme").and_then(Value::as_str) {
        Some("always") => Ok(Prepend::Always),
        Some("first") => Ok(Prepend::First),
        Some("never") => Ok(Prepend::Never),
        Some(other) => Err(bad(format!(
            "prepend_scheme is always, first or never, found {other:?}"
        ))),
        None if flag(node, "add_prefix_space", true) => Ok(Prepend::Always),
        None => Ok(Prepend::Never),
    }
}

fn one_char(node: &Value, field: &str) -> Result<char> {
    let mut chars = text(node, field)?.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok(c),
        _ => Err(bad(format!("field {field:?}: expected one character"))),
    }
}
