//! How Python prints values: `str`, `repr` and `json.dumps`.
//!
//! Every writer here counts what it writes and stops at a budget: a list that holds itself twice, forty
//! levels deep, is small in memory and endless in print.

use std::fmt::Write;

use minijinja::Value;
use minijinja::value::ValueKind;

/// Nesting beyond this is refused.
const MAX_DEPTH: usize = 100;

/// Text with a size it must not exceed.
pub(super) struct Bounded {
    text: String,
    max: usize,
}

/// Printing was stopped: too long, or too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl From<std::fmt::Error> for TooLarge {
    fn from(_: std::fmt::Error) -> Self {
        TooLarge
    }
}

impl Write for Bounded {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        if self.text.len() + s.len() > self.max {
            return Err(std::fmt::Error);
        }
        self.text.push_str(s);
        Ok(())
    }
}

impl Bounded {
    pub(super) fn new(max: usize) -> Self {
        Self {
            text: String::new(),
            max,
        }
    }

    pub(super) fn into_string(self) -> String {
        self.text
    }
}

/// `str(value)`.
pub(super) fn str(value: &Value, out: &mut Bounded) -> Result<(), TooLarge> {
    match value.as_str() {
        Some(text) => Ok(out.write_str(text)?),
        None if value.is_undefined() => Ok(()),
        None => repr(value, out, 0),
    }
}

/// `repr(value)`.
fn repr(value: &Value, out: &mut Bounded, depth: usize) -> Result<(), TooLarge> {
    if depth > MAX_DEPTH {
        return Err(TooLarge);
    }
    match value.kind() {
        ValueKind::Undefined => out.write_str("Undefined")?,
        ValueKind::None => out.write_str("None")?,
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" })?,
        ValueKind::String => repr_str(value.as_str().unwrap_or_default(), out)?,
        ValueKind::Number => number(value, out)?,
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.is_tuple();
            out.write_str(if tuple { "(" } else { "[" })?;
            let mut n = 0;
            for item in items(value)? {
                if n > 0 {
                    out.write_str(", ")?;
                }
                repr(&item, out, depth + 1)?;
                n += 1;
            }
            out.write_str(match (tuple, n) {
                (true, 1) => ",)",
                (true, _) => ")",
                (false, _) => "]",
            })?;
        }
        ValueKind::Map => {
            out.write_char('{')?;
            for (n, key) in items(value)?.enumerate() {
                if n > 0 {
                    out.write_str(", ")?;
                }
                repr(&key, out, depth + 1)?;
                out.write_str(": ")?;
                repr(&value.get_item(&key).unwrap_or_default(), out, depth + 1)?;
            }
            out.write_char('}')?;
        }
        _ => write!(out, "{value}")?,
    }
    Ok(())
}

fn items(value: &Value) -> Result<impl Iterator<Item = Value>, TooLarge> {
    value.try_iter().map_err(|_| TooLarge)
}

/// A string literal as Python chooses its quotes and escapes.
fn repr_str(text: &str, out: &mut Bounded) -> std::fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if (c as u32) < 0x20 || (0x7f..=0xa0).contains(&(c as u32)) || c == '\u{ad}' => {
                write!(out, "\\x{:02x}", c as u32)?;
            }
            c => out.write_char(c)?,
        }
    }
    out.write_char(quote)
}

/// A number: integers as they are, floats in Python's shortest form.
fn number(value: &Value, out: &mut Bounded) -> std::fmt::Result {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => out.write_str(&float_repr(float)),
        _ => write!(out, "{value}"),
    }
}

/// `repr(float)`: the shortest digits that read back the same; exponents from 1e16 and below 1e-4.
pub(super) fn float_repr(x: f64) -> String {
    if x.is_nan() {
        return "nan".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let magnitude = x.abs();
    if x != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{x:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    let text = format!("{x}");
    if text.contains('.') {
        text
    } else {
        text + ".0"
    }
}

/// What `json.dumps` is asked for.
#[derive(Clone, Debug)]
pub(super) struct Dumps {
    pub(super) indent: Option<String>,
    pub(super) item_separator: String,
    pub(super) key_separator: String,
    pub(super) sort_keys: bool,
    pub(super) ascii: bool,
}

impl Default for Dumps {
    fn default() -> Self {
        Self {
            indent: None,
            item_separator: ", ".to_owned(),
            key_separator: ": ".to_owned(),
            sort_keys: false,
            ascii: false,
        }
    }
}

/// Why a value is no JSON.
pub(super) enum DumpError {
    TooLarge,
    /// A value of this kind has no JSON form.
    Kind(String),
}

impl From<std::fmt::Error> for DumpError {
    fn from(_: std::fmt::Error) -> Self {
        DumpError::TooLarge
    }
}

impl From<TooLarge> for DumpError {
    fn from(_: TooLarge) -> Self {
        DumpError::TooLarge
    }
}

impl Dumps {
    /// `json.dumps(value)`.
    pub(super) fn dump(&self, value: &Value, out: &mut Bounded) -> Result<(), DumpError> {
        self.value(value, out, 0)
    }

    fn value(&self, value: &Value, out: &mut Bounded, depth: usize) -> Result<(), DumpError> {
        if depth > MAX_DEPTH {
            return Err(DumpError::TooLarge);
        }
        match value.kind() {
            ValueKind::None => out.write_str("null")?,
            ValueKind::Bool => out.write_str(if value.is_true() { "true" } else { "false" })?,
            ValueKind::Number => match f64::try_from(value.clone()) {
                Ok(x) if !value.is_integer() && x.is_nan() => out.write_str("NaN")?,
                Ok(x) if !value.is_integer() && x.is_infinite() => {
                    out.write_str(if x > 0.0 { "Infinity" } else { "-Infinity" })?;
                }
                _ => number(value, out)?,
            },
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out)?,
            ValueKind::Seq | ValueKind::Iterable => {
                let items = items(value)?;
                self.container(['[', ']'], items, out, depth, |item, out| {
                    self.value(&item, out, depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = items(value)?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.container(['{', '}'], keys.into_iter(), out, depth, |key, out| {
                    match key.as_str() {
                        Some(text) => self.string(text, out)?,
                        None => {
                            out.write_char('"')?;
                            self.value(&key, out, depth + 1)?;
                            out.write_char('"')?;
                        }
                    }
                    out.write_str(&self.key_separator)?;
                    self.value(&value.get_item(&key).unwrap_or_default(), out, depth + 1)
                })?;
            }
            kind => return Err(DumpError::Kind(kind.to_string())),
        }
        Ok(())
    }

    fn container(
        &self,
        [open, close]: [char; 2],
        items: impl Iterator<Item = Value>,
        out: &mut Bounded,
        depth: usize,
        mut write: impl FnMut(Value, &mut Bounded) -> Result<(), DumpError>,
    ) -> Result<(), DumpError> {
        out.write_char(open)?;
        let mut empty = true;
        for item in items {
            if !empty {
                out.write_str(&self.item_separator)?;
            }
            empty = false;
            self.new_line(out, depth + 1)?;
            write(item, out)?;
        }
        if !empty {
            self.new_line(out, depth)?;
        }
        Ok(out.write_char(close)?)
    }

    fn new_line(&self, out: &mut Bounded, depth: usize) -> std::fmt::Result {
        if let Some(indent) = &self.indent {
            out.write_char('\n')?;
            for _ in 0..depth {
                out.write_str(indent)?;
            }
        }
        Ok(())
    }

    fn string(&self, text: &str, out: &mut Bounded) -> std::fmt::Result {
        out.write_char('"')?;
        for c in text.chars() {
            match c {
                '"' => out.write_str("\\\"")?,
                '\\' => out.write_str("\\\\")?,
                '\n' => out.write_str("\\n")?,
                '\r' => out.write_str("\\r")?,
                '\t' => out.write_str("\\t")?,
                '\u{8}' => out.write_str("\\b")?,
                '\u{c}' => out.write_str("\\f")?,
                c if (c as u32) < 0x20 => write!(out, "\\u{:04x}", c as u32)?,
                c if self.ascii && !(' '..='~').contains(&c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}")?;
                    }
                }
                c => out.write_char(c)?,
            }
        }
        out.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn py(json: &str) -> (String, String) {
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        let value = crate::chat::env::value(&value, 0).unwrap();
        let (mut a, mut b) = (Bounded::new(1 << 16), Bounded::new(1 << 16));
        str(&value, &mut a).unwrap();
        Dumps::default().dump(&value, &mut b).ok().unwrap();
        (a.into_string(), b.into_string())
    }

    #[test]
    fn as_python_prints() {
        // Left: str(json.loads(x)); right: json.dumps(json.loads(x), ensure_ascii=False). CPython 3.11.
        for (json, str, dumps) in [
            ("null", "None", "null"),
            ("[true, false]", "[True, False]", "[true, false]"),
            ("[]", "[]", "[]"),
            ("{}", "{}", "{}"),
            (
                r#"{"b": 1, "a": [2.0, null]}"#,
                "{'b': 1, 'a': [2.0, None]}",
                r#"{"b": 1, "a": [2.0, null]}"#,
            ),
            (
                r#"["it's", "say \"hi\"", "both ' and \""]"#,
                r#"["it's", 'say "hi"', 'both \' and "']"#,
                r#"["it's", "say \"hi\"", "both ' and \""]"#,
            ),
            (
                "[\"a\\n\\t\\u0001\\u007f\\u00e9\\\\\"]",
                r"['a\n\t\x01\x7fé\\']",
                "[\"a\\n\\t\\u0001\u{7f}é\\\\\"]",
            ),
            (
                "[1e16, 1e15, 1e-5, 0.0001, 1.5, 1e300, -0.0]",
                "[1e+16, 1000000000000000.0, 1e-05, 0.0001, 1.5, 1e+300, -0.0]",
                "[1e+16, 1000000000000000.0, 1e-05, 0.0001, 1.5, 1e+300, -0.0]",
            ),
            (
                "[123456789012345678, -5]",
                "[123456789012345678, -5]",
                "[123456789012345678, -5]",
            ),
        ] {
            assert_eq!(py(json), (str.to_owned(), dumps.to_owned()), "{json}");
        }
    }

    #[test]
    fn indent_as_python() {
        let value =
            crate::chat::env::value(&serde_json::json!({"a": [1, {}], "b": {"c": []}}), 0).unwrap();
        let dumps = Dumps {
            indent: Some("  ".into()),
            item_separator: ",".into(),
            ..Dumps::default()
        };
        let mut out = Bounded::new(1000);
        dumps.dump(&value, &mut out).ok().unwrap();
        let expected = "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": {\n    \"c\": []\n  }\n}";
        assert_eq!(out.into_string(), expected);
    }

    #[test]
    fn what_has_no_end_is_stopped() {
        let mut value = Value::from("x");
        for _ in 0..60 {
            value = Value::from(vec![value.clone(), value]);
        }
        let mut out = Bounded::new(1 << 20);
        assert_eq!(str(&value, &mut out), Err(TooLarge));
        assert!(
            Dumps::default()
                .dump(&value, &mut Bounded::new(1 << 20))
                .is_err()
        );
        for _ in 0..10_000 {
            value = Value::from(vec![value]);
        }
        assert_eq!(str(&value, &mut Bounded::new(1 << 20)), Err(TooLarge));
        std::mem::forget(value); // dropping it recurses in the engine
    }
}
