//! What `Replace` and `Split` look for: literal text or a regular expression.

use serde_json::Value;

use super::json::bad;
use crate::{Error, Result};

#[derive(Debug)]
pub(super) enum Pattern {
    Text(String),
    /// A regular expression without look-around: linear time.
    Regex(Box<regex::Regex>),
    /// One with look-around, in bounded steps.
    Fancy(Box<fancy_regex::Regex>),
}

impl Pattern {
    /// Reads `pattern`: `{"String": …}` or `{"Regex": …}`.
    pub(super) fn read(node: &Value) -> Result<Self> {
        let pattern = node.get("pattern");
        let field = |name| pattern.and_then(|p| p.get(name)).and_then(Value::as_str);
        match (field("String"), field("Regex")) {
            (Some(""), _) | (_, Some("")) => Err(bad("a pattern is empty")),
            (Some(text), _) => Ok(Pattern::Text(text.to_owned())),
            (None, Some(source)) => Self::regex(source),
            (None, None) => Err(bad("expected a \"pattern\" of \"String\" or \"Regex\"")),
        }
    }

    pub(super) fn regex(source: &str) -> Result<Self> {
        if let Ok(regex) = regex::RegexBuilder::new(source).size_limit(4 << 20).build() {
            return Ok(Pattern::Regex(Box::new(regex)));
        }
        let regex = fancy_regex::RegexBuilder::new(source)
            .delegate_size_limit(4 << 20)
            .backtrack_limit(4_000_000)
            .build()
            .map_err(|e| {
                Error::unsupported(format!("tokenizer.json: pattern {source:.200?}: {e}"))
            })?;
        Ok(Pattern::Fancy(Box::new(regex)))
    }

    /// The byte ranges of all matches, in order.
    pub(super) fn matches(&self, text: &str) -> Result<Vec<(usize, usize)>> {
        Ok(match self {
            Pattern::Text(wanted) => text
                .match_indices(wanted.as_str())
                .map(|(at, m)| (at, at + m.len()))
                .collect(),
            Pattern::Regex(regex) => regex
                .find_iter(text)
                .map(|m| (m.start(), m.end()))
                .collect(),
            Pattern::Fancy(regex) => {
                let found = regex
                    .find_iter(text)
                    .map(|m| m.map(|m| (m.start(), m.end())));
                found.collect::<std::result::Result<_, _>>().map_err(|e| {
                    Error::invalid(format!(
                        "this text takes the tokenizer's pattern too many steps: {e}"
                    ))
                })?
            }
        })
    }
}
