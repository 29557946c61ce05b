//! Reading the `decoder` object of a `tokenizer.json`.

use serde_json::Value;

use super::steps::{Pattern, Step};
use crate::{Error, Result};

const FORMAT: &str = "tokenizer.json";

/// More steps than this are no tokenizer.
const MAX_STEPS: usize = 64;

/// The steps that `decoder` names; `null` joins tokens by spaces, as the reference does.
pub(crate) fn parse(decoder: Option<&Value>) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    match decoder {
        None | Some(Value::Null) => steps.push(Step::Join),
        Some(node) => push(node, &mut steps)?,
    }
    Ok(steps)
}

fn push(node: &Value, steps: &mut Vec<Step>) -> Result<()> {
    if steps.len() >= MAX_STEPS {
        return Err(Error::Limit {
            what: "decoder steps",
            max: MAX_STEPS as u64,
            got: steps.len() as u64 + 1,
        });
    }
    let kind = text(node, "type")?;
    steps.push(match kind {
        "Sequence" => {
            let members = node.get("decoders").and_then(Value::as_array);
            let members = members.ok_or_else(|| missing("Sequence", "decoders", "an array"))?;
            return members.iter().try_for_each(|member| push(member, steps));
        }
        "ByteLevel" => Step::ByteLevel,
        "ByteFallback" => Step::ByteFallback,
        "Fuse" => Step::Fuse,
        "Strip" => Step::Strip {
            content: one_char(node, "content")?,
            start: count(node, "start")?,
            stop: count(node, "stop")?,
        },
        "Replace" => Step::Replace {
            pattern: pattern(node)?,
            content: text(node, "content")?.to_owned(),
        },
        "Metaspace" => Step::Metaspace {
            replacement: one_char(node, "replacement")?,
            strip_first: metaspace_prepends(node)?,
        },
        "WordPiece" => Step::WordPiece {
            prefix: text(node, "prefix")?.to_owned(),
            cleanup: flag(node, "cleanup", true),
        },
        "BPEDecoder" => Step::Bpe { suffix: not_empty(text(node, "suffix")?, "suffix")? },
        "CTC" => Step::Ctc {
            pad: text(node, "pad_token")?.to_owned(),
            delimiter: text(node, "word_delimiter_token")?.to_owned(),
            cleanup: flag(node, "cleanup", true),
        },
        other => {
            return Err(Error::unsupported(format!(
                "decoder {other:?} in tokenizer.json; supported: BPEDecoder, ByteFallback, ByteLevel, CTC, \
                 Fuse, Metaspace, Replace, Sequence, Strip, WordPiece"
            )));
        }
    });
    Ok(())
}

/// `prepend_scheme` decides; files older than it say `add_prefix_space`.
fn metaspace_prepends(node: &Value) -> Result<bool> {
    match node.get("prepend_scheme").and_then(Value::as_str) {
        Some("always" | "first") => Ok(true),
        Some("never") => Ok(false),
        Some(other) => Err(Error::malformed(
            FORMAT,
            format!("prepend_scheme is always, first or never, found {other:?}"),
        )),
        None => Ok(flag(node, "add_prefix_space", true)),
    }
}

fn pattern(node: &Value) -> Result<Pattern> {
    let pattern = node.get("pattern");
    if let Some(text) = pattern
        .and_then(|p| p.get("String"))
        .and_then(Value::as_str)
    {
        return Ok(Pattern::Text(not_empty(text, "pattern")?));
    }
    let source = pattern
        .and_then(|p| p.get("Regex"))
        .and_then(Value::as_str)
        .ok_or_else(|| missing("Replace", "pattern", "{\"String\": …} or {\"Regex\": …}"))?;
    let regex = regex::RegexBuilder::new(source)
        .size_limit(1 << 20)
        .build()
        .map_err(|e| Error::unsupported(format!("decoder pattern {source:?}: {e}")))?;
    Ok(Pattern::Regex(Box::new(regex)))
}

fn not_empty(text: &str, field: &str) -> Result<String> {
    if text.is_empty() {
        return Err(Error::malformed(
            FORMAT,
            format!("decoder field {field:?} is empty text"),
        ));
    }
    Ok(text.to_owned())
}

fn text<'a>(node: &'a Value, field: &str) -> Result<&'a str> {
    node.get(field)
        .and_then(Value::as_str)
        .ok_or_else(|| missing("decoder", field, "text"))
}

fn flag(node: &Value, field: &str, default: bool) -> bool {
    node.get(field).and_then(Value::as_bool).unwrap_or(default)
}

fn count(node: &Value, field: &str) -> Result<usize> {
    let n = node.get(field).and_then(Value::as_u64).unwrap_or(0);
    match usize::try_from(n) {
        Ok(n) if n <= 1024 => Ok(n),
        _ => Err(Error::Limit {
            what: "characters a decoder strips",
            max: 1024,
            got: n,
        }),
    }
}

fn one_char(node: &Value, field: &str) -> Result<char> {
    let mut chars = text(node, field)?.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok(c),
        _ => Err(missing("decoder", field, "one character")),
    }
}

fn missing(of: &str, field: &str, expected: &str) -> Error {
    Error::malformed(FORMAT, format!("{of} field {field:?}: expected {expected}"))
}
