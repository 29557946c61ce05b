//! The `normalizer` of a `tokenizer.json`: text → the form the vocabulary was made for.

use std::borrow::Cow;

use regex::Regex;
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::super::bytes::byte_to_char;
use super::charsmap::CharsMap;
use super::json::{bad, flag, members, text, unsupported};
use super::pattern::Pattern;
use crate::{Error, Result};

/// More members than this are no normalizer.
const MAX: usize = 64;

/// One step.
#[derive(Debug)]
pub(super) enum Normalizer {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    Lowercase,
    /// Marks go; the text should be decomposed.
    StripAccents,
    Strip {
        left: bool,
        right: bool,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    Prepend(String),
    Bert(Bert),
    Nmt,
    Precompiled(CharsMap),
    ByteLevel,
}

/// The cleaning of BERT's tokenizer.
#[derive(Debug)]
pub(super) struct Bert {
    clean: Option<Regex>,
    chinese: bool,
    accents: Option<Regex>,
    lowercase: bool,
}

/// The steps that `node` names.
pub(super) fn read(node: Option<&Value>) -> Result<Vec<Normalizer>> {
    let mut steps = Vec::new();
    if let Some(node) = node.filter(|node| !node.is_null()) {
        push(node, &mut steps)?;
    }
    Ok(steps)
}

fn push(node: &Value, steps: &mut Vec<Normalizer>) -> Result<()> {
    if steps.len() >= MAX {
        return Err(Error::Limit {
            what: "normalizers",
            max: MAX as u64,
            got: MAX as u64 + 1,
        });
    }
    steps.push(match text(node, "type")? {
        "Sequence" => {
            return members(node, "normalizers")?.iter().try_for_each(|member| push(member, steps));
        }
        "NFC" => Normalizer::Nfc,
        "NFD" => Normalizer::Nfd,
        "NFKC" => Normalizer::Nfkc,
        "NFKD" => Normalizer::Nfkd,
        "Lowercase" => Normalizer::Lowercase,
        "StripAccents" => Normalizer::StripAccents,
        "Strip" => Normalizer::Strip {
            left: flag(node, "strip_left", true),
            right: flag(node, "strip_right", true),
        },
        "Replace" => Normalizer::Replace {
            pattern: Pattern::read(node)?,
            content: text(node, "content")?.to_owned(),
        },
        "Prepend" => Normalizer::Prepend(text(node, "prepend")?.to_owned()),
        "BertNormalizer" => Normalizer::Bert(Bert::read(node)?),
        "Nmt" => Normalizer::Nmt,
        "Precompiled" => {
            Normalizer::Precompiled(CharsMap::from_base64(text(node, "precompiled_charsmap")?)?)
        }
        "ByteLevel" => Normalizer::ByteLevel,
        other => {
            return Err(unsupported(
                "normalizer",
                other,
                "BertNormalizer, ByteLevel, Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Prepend, Replace, \
                 Sequence, Strip, StripAccents",
            ));
        }
    });
    Ok(())
}

/// A text in its normal form.
#[derive(Debug)]
pub(super) struct Normal<'t> {
    pub(super) text: Cow<'t, str>,
    /// Whether it still begins with what the raw text begins with.
    pub(super) leads: bool,
}

/// Runs the steps in order. `max` bounds the length of every intermediate text in bytes.
pub(super) fn run<'t>(steps: &[Normalizer], text: &'t str, max: usize) -> Result<Normal<'t>> {
    let mut normal = Normal {
        text: Cow::Borrowed(text),
        leads: true,
    };
    for step in steps {
        normal.leads &= step.keeps_first(&normal.text)?;
        if let Some(next) = step.apply(&normal.text, max)? {
            normal.text = Cow::Owned(next);
        }
        if normal.text.len() > max {
            return Err(too_long(max, normal.text.len()));
        }
    }
    Ok(normal)
}

fn too_long(max: usize, got: usize) -> Error {
    let what = "bytes of normalized text";
    Error::Limit {
        what,
        max: max as u64,
        got: got as u64,
    }
}

impl Normalizer {
    /// Whether the first character is still there after this step, in some form.
    fn keeps_first(&self, text: &str) -> Result<bool> {
        let first = |gone: &dyn Fn(char) -> bool| !text.starts_with(gone);
        Ok(match self {
            Normalizer::Strip { left, .. } => !left || first(&char::is_whitespace),
            Normalizer::StripAccents => first(&is_combining_mark),
            Normalizer::Nmt => first(&|c| nmt(c).is_none()),
            Normalizer::Bert(bert) => text
                .chars()
                .next()
                .is_none_or(|c| !bert.apply(c.encode_utf8(&mut [0; 4])).is_empty()),
            Normalizer::Replace { pattern, content } if content.is_empty() => pattern
                .matches(text)?
                .first()
                .is_none_or(|&(start, end)| start > 0 || end == 0),
            _ => true,
        })
    }

    /// The text after this step, or `None` if it is the same.
    fn apply(&self, text: &str, max: usize) -> Result<Option<String>> {
        Ok(match self {
            Normalizer::Nfc => (!unicode_normalization::is_nfc(text)).then(|| text.nfc().collect()),
            Normalizer::Nfd => (!text.is_ascii()).then(|| text.nfd().collect()),
            Normalizer::Nfkc => (!text.is_ascii()).then(|| text.nfkc().collect()),
            Normalizer::Nfkd => (!text.is_ascii()).then(|| text.nfkd().collect()),
            Normalizer::Lowercase => Some(text.chars().flat_map(char::to_lowercase).collect()),
            Normalizer::StripAccents => (!text.is_ascii())
                .then(|| text.chars().filter(|&c| !is_combining_mark(c)).collect()),
            Normalizer::Strip { left, right } => {
                let text = if *left { text.trim_start() } else { text };
                Some(if *right { text.trim_end() } else { text }.to_owned())
            }
            Normalizer::Replace { pattern, content } => {
                let mut out = String::with_capacity(text.len());
                let mut from = 0;
                for (start, end) in pattern.matches(text)? {
                    out.push_str(text.get(from..start).unwrap_or_default());
                    out.push_str(content);
                    from = end;
                    if out.len() > max {
                        return Err(too_long(max, out.len()));
                    }
                }
                if from == 0 && out.is_empty() {
                    return Ok(None);
                }
                out.push_str(text.get(from..).unwrap_or_default());
                Some(out)
            }
            Normalizer::Prepend(prefix) => (!text.is_empty()).then(|| format!("{prefix}{text}")),
            Normalizer::Bert(bert) => Some(bert.apply(text)),
            Normalizer::Nmt => Some(text.chars().filter_map(nmt).collect()),
            Normalizer::Precompiled(map) => {
                Some(map.apply(text, max).ok_or_else(|| too_long(max, max + 1))?)
            }
            Normalizer::ByteLevel => Some(text.bytes().map(byte_to_char).collect()),
        })
    }
}

impl Bert {
    fn read(node: &Value) -> Result<Self> {
        let lowercase = flag(node, "lowercase", true);
        let accents = flag(node, "strip_accents", lowercase);
        let regex = |source: &str| Regex::new(source).map_err(|e| bad(e.to_string()));
        let clean =
            flag(node, "clean_text", true).then(|| regex(r"[\x00\x{FFFD}[\p{C}--[\t\n\r]]]"));
        let accents = accents.then(|| regex(r"\p{Mn}"));
        Ok(Self {
            clean: clean.transpose()?,
            chinese: flag(node, "handle_chinese_chars", true),
            accents: accents.transpose()?,
            lowercase,
        })
    }

    fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if let Some(control) = &self.clean {
            let kept = control.replace_all(&text, "");
            text = kept
                .chars()
                .map(|c| if c.is_whitespace() { ' ' } else { c })
                .collect();
        }
        if self.chinese && !text.is_ascii() {
            let mut spaced = String::with_capacity(text.len() * 2);
            for c in text.chars() {
                if is_chinese(c) {
                    spaced.extend([' ', c, ' ']);
                } else {
                    spaced.push(c);
                }
            }
            text = spaced;
        }
        if let Some(accents) = &self.accents
            && !text.is_ascii()
        {
            let decomposed: String = text.nfd().collect();
            text = accents.replace_all(&decomposed, "").into_owned();
        }
        if self.lowercase {
            text = text.chars().flat_map(char::to_lowercase).collect();
        }
        text
    }
}

/// The CJK blocks that BERT's tokenizer takes apart.
fn is_chinese(c: char) -> bool {
    matches!(
        c as u32,
        0x4E00..=0x9FFF
            | 0x3400..=0x4DBF
            | 0x20000..=0x2A6DF
            | 0x2A700..=0x2B73F
            | 0x2B740..=0x2B81F
            | 0x2B920..=0x2CEAF
            | 0xF900..=0xFAFF
            | 0x2F800..=0x2FA1F
    )
}

/// The normalization of the NMT models: control characters go, odd spaces become spaces.
fn nmt(c: char) -> Option<char> {
    match c as u32 {
        0x1..=0x8 | 0xB | 0xE..=0x1F | 0x7F | 0x8F | 0x9F => None,
        0x9
        | 0xA
        | 0xC
        | 0xD
        | 0x1680
        | 0x200B..=0x200F
        | 0x2028
        | 0x2029
        | 0x2581
        | 0xFEFF
        | 0xFFFD => Some(' '),
        _ => Some(c),
    }
}
