//! Reading fields of a `tokenizer.json`.

use serde_json::Value;

use crate::{Error, Result};

pub(super) const FORMAT: &str = "tokenizer.json";

pub(super) fn bad(what: impl Into<String>) -> Error {
    Error::malformed(FORMAT, what)
}

pub(super) fn unsupported(what: &str, found: &str, supported: &str) -> Error {
    Error::unsupported(format!(
        "{what} {found:?} in tokenizer.json; supported: {supported}"
    ))
}

/// A field that must be text.
pub(super) fn text<'v>(node: &'v Value, field: &str) -> Result<&'v str> {
    let text = node.get(field).and_then(Value::as_str);
    text.ok_or_else(|| {
        bad(format!(
            "field {field:?}: expected text, found {:.60}",
            show(node, field)
        ))
    })
}

/// A field that is `true` or `false`, or is not there.
pub(super) fn flag(node: &Value, field: &str, default: bool) -> bool {
    node.get(field).and_then(Value::as_bool).unwrap_or(default)
}

/// A field that must be a list.
pub(super) fn members<'v>(node: &'v Value, field: &str) -> Result<&'v [Value]> {
    let list = node.get(field).and_then(Value::as_array).map(Vec::as_slice);
    list.ok_or_else(|| {
        bad(format!(
            "field {field:?}: expected a list, found {:.60}",
            show(node, field)
        ))
    })
}

fn show(node: &Value, field: &str) -> String {
    match node.get(field) {
        None => "nothing".to_owned(),
        Some(Value::Object(_)) => "an object".to_owned(),
        Some(Value::Array(_)) => "a list".to_owned(),
        Some(value) => value.to_string(),
    }
}
