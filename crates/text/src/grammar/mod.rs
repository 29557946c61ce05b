//! Grammars as the law of an answer: which tokens may come next.
//!
//! A [`Vocabulary`] is made once per tokenizer: the bytes of every token, as a tree. A [`Matcher`] follows one answer through one
//! [`Grammar`]: [`Matcher::mask`] gives a bit per token, [`Matcher::accept`] takes the token that was chosen. Tokens
//! are bytes here, not texts: a character may be spread over several, and a word has many spellings in tokens.
//!
//! Numbers in JSON stay within what a 64-bit float can hold, and white space between its parts is bounded.
//! What the JSON Schema compiler does not know (`not`, `if`, `uniqueItems`, …) is refused by name, not ignored.
//!
//! Source: the crate `llguidance` (derivatives of regular expressions and an Earley parser over the tree of tokens).

// The law is data; what follows it needs the feature `grammar`.
#[cfg(not(feature = "grammar"))]
mod absent;
#[cfg(feature = "grammar")]
mod closing;
#[cfg(feature = "grammar")]
mod matcher;
#[cfg(feature = "grammar")]
mod schema;

#[cfg(not(feature = "grammar"))]
pub use absent::{Matcher, Vocabulary};
#[cfg(feature = "grammar")]
pub use matcher::{Matcher, Vocabulary};

/// The law of an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Grammar {
    /// A JSON value that is valid under this JSON Schema (draft 2020-12 and older; an object or a boolean).
    JsonSchema(serde_json::Value),
    /// A text that this regular expression matches as a whole, in the syntax of the crate `regex` (no look-around).
    Regex(String),
    /// One of these texts.
    Choices(Vec<String>),
}

impl Grammar {
    /// Any JSON value.
    pub fn json() -> Self {
        Grammar::JsonSchema(serde_json::Value::Bool(true))
    }

    /// Whether the answer is JSON.
    pub fn is_json(&self) -> bool {
        matches!(self, Grammar::JsonSchema(_))
    }
}
