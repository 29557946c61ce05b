//! Methods of Python's `str`, `dict` and `list` that templates call. What changes a value in place is not here:
//! the reference's sandbox forbids it too.

use minijinja::formatting::FormatStyle;
use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::meter::Meter;
use super::ops;

/// Calls the method `name` of `value`.
pub(super) fn call(
    value: &Value,
    name: &str,
    args: &[Value],
    meter: &Meter,
) -> Result<Value, Error> {
    meter.charge_value(value)?;
    for arg in args {
        meter.charge_value(arg)?;
    }
    match (value.as_str(), value.kind()) {
        (Some(text), _) => string(text, name, args, meter),
        (None, ValueKind::Map) => dict(value, name, args),
        (None, ValueKind::Seq | ValueKind::Iterable) => list(value, name, args, meter),
        _ => Err(unknown()),
    }
}

fn unknown() -> Error {
    Error::from(ErrorKind::UnknownMethod)
}

/// White space as Python has it: what Unicode says, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn string(text: &str, name: &str, args: &[Value], meter: &Meter) -> Result<Value, Error> {
    let flag = |test: fn(char) -> bool| -> Result<Value, Error> {
        let () = from_args(args)?;
        Ok(Value::from(!text.is_empty() && text.chars().all(test)))
    };
    // Upper and lower case: some letter has a case, and all that have one have this one.
    let cased = |wanted: fn(char) -> bool, other: fn(char) -> bool| -> Result<Value, Error> {
        let () = from_args(args)?;
        Ok(Value::from(
            text.chars().any(wanted) && !text.chars().any(other),
        ))
    };
    Ok(match name {
        "upper" => made(args, text.to_uppercase(), meter)?,
        "lower" => made(args, text.to_lowercase(), meter)?,
        "casefold" => made(args, text.to_lowercase(), meter)?,
        "capitalize" => {
            let mut chars = text.chars();
            let first: String = chars
                .next()
                .into_iter()
                .flat_map(char::to_uppercase)
                .collect();
            made(args, first + &chars.as_str().to_lowercase(), meter)?
        }
        "title" => made(args, title(text), meter)?,
        "swapcase" => {
            let swap = |c: char| -> String {
                if c.is_lowercase() {
                    c.to_uppercase().collect()
                } else {
                    c.to_lowercase().collect()
                }
            };
            made(args, text.chars().map(swap).collect(), meter)?
        }
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            let matches = |c: char| chars.map_or_else(|| is_space(c), |set| set.contains(c));
            let left = if name == "rstrip" {
                text
            } else {
                text.trim_start_matches(matches)
            };
            Value::from(if name == "lstrip" {
                left
            } else {
                left.trim_end_matches(matches)
            })
        }
        "split" | "rsplit" => split(text, name == "rsplit", args, meter)?,
        "splitlines" => {
            let (keep, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(kwargs.get("keepends")?).unwrap_or(false);
            kwargs.assert_all_used()?;
            meter.charge(16 * text.len())?;
            Value::from(
                lines(text, keep)
                    .into_iter()
                    .map(Value::from)
                    .collect::<Vec<_>>(),
            )
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            if separator.is_empty() {
                return Err(invalid("empty separator"));
            }
            let found = match name {
                "partition" => text.split_once(separator),
                _ => text.rsplit_once(separator),
            };
            let parts = match found {
                Some((before, after)) => [before, separator, after],
                None if name == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from).to_vec()))
        }
        "replace" => {
            let (old, new, count, kwargs): (&str, &str, Option<i64>, Kwargs) = from_args(args)?;
            let count = count.or(kwargs.get("count")?);
            kwargs.assert_all_used()?;
            ops::replace(text, old, new, count, meter)?
        }
        "join" => {
            let (values,): (&Value,) = from_args(args)?;
            ops::join(text, values, meter)?
        }
        "format" => ops::formatted(FormatStyle::StrFormat, text, args, meter)?,
        "startswith" | "endswith" => {
            let (wanted,): (&Value,) = from_args(args)?;
            let test = |wanted: &Value| match (wanted.as_str(), name) {
                (Some(wanted), "startswith") => Ok(text.starts_with(wanted)),
                (Some(wanted), _) => Ok(text.ends_with(wanted)),
                (None, _) => Err(invalid(format!("{name} takes text or a tuple of texts"))),
            };
            if wanted.is_tuple() {
                for wanted in wanted.try_iter()? {
                    if test(&wanted)? {
                        return Ok(Value::from(true));
                    }
                }
                Value::from(false)
            } else {
                Value::from(test(wanted)?)
            }
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (wanted,): (&str,) = from_args(args)?;
            let at = if name.starts_with('r') {
                text.rfind(wanted)
            } else {
                text.find(wanted)
            };
            match at.and_then(|at| text.get(..at)) {
                Some(before) => Value::from(before.chars().count()),
                None if name.ends_with("find") => Value::from(-1),
                None => return Err(invalid("substring not found")),
            }
        }
        "count" => {
            let (wanted,): (&str,) = from_args(args)?;
            Value::from(text.matches(wanted).count())
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "ljust" | "rjust" | "center" | "zfill" => pad(text, name, args, meter)?,
        "isspace" => flag(is_space)?,
        "isdigit" | "isdecimal" | "isnumeric" => flag(char::is_numeric)?,
        "isalpha" => flag(char::is_alphabetic)?,
        "isalnum" => flag(char::is_alphanumeric)?,
        "isascii" => {
            let () = from_args(args)?;
            Value::from(text.is_ascii())
        }
        "isupper" => cased(char::is_uppercase, char::is_lowercase)?,
        "islower" => cased(char::is_lowercase, char::is_uppercase)?,
        _ => return Err(unknown()),
    })
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

fn made(args: &[Value], text: String, meter: &Meter) -> Result<Value, Error> {
    let () = from_args(args)?;
    meter.charge(text.len())?;
    Ok(Value::from(text))
}

/// Every run of letters with its first one in upper case.
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

/// `split(sep=None, maxsplit=-1)` and `rsplit`.
fn split(text: &str, right: bool, args: &[Value], meter: &Meter) -> Result<Value, Error> {
    let (separator, limit, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = separator.or(kwargs.get("sep")?).filter(|s| !s.is_none());
    let limit = limit.or(kwargs.get("maxsplit")?).unwrap_or(-1);
    kwargs.assert_all_used()?;
    meter.charge(16 * text.len())?;
    let most = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    let parts: Vec<Value> = match separator {
        Some(separator) => {
            let separator = separator
                .as_str()
                .ok_or_else(|| invalid("the separator is text"))?;
            if separator.is_empty() {
                return Err(invalid("empty separator"));
            }
            if right {
                let parts = text.rsplitn(most, separator).map(Value::from);
                parts.collect::<Vec<_>>().into_iter().rev().collect()
            } else {
                text.splitn(most, separator).map(Value::from).collect()
            }
        }
        None if right => {
            let mut parts = Vec::new();
            let mut rest = text.trim_end_matches(is_space);
            while !rest.is_empty() {
                let cut = if parts.len() + 1 == most {
                    None
                } else {
                    rest.rfind(is_space)
                };
                let at = cut.map_or(0, |at| {
                    at + rest
                        .get(at..)
                        .and_then(|r| r.chars().next())
                        .map_or(0, char::len_utf8)
                });
                let (before, part) = rest.split_at(at);
                parts.push(Value::from(part));
                rest = before.trim_end_matches(is_space);
            }
            parts.reverse();
            parts
        }
        None => {
            let mut parts = Vec::new();
            let mut rest = text.trim_start_matches(is_space);
            while !rest.is_empty() {
                let cut = if parts.len() + 1 == most {
                    None
                } else {
                    rest.find(is_space)
                };
                let (part, after) = rest.split_at(cut.unwrap_or(rest.len()));
                parts.push(Value::from(part));
                rest = after.trim_start_matches(is_space);
            }
            parts
        }
    };
    Ok(Value::from(parts))
}

/// The lines of a text, cut where Python's `splitlines` cuts.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let ends = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ends) {
        let (line, tail) = rest.split_at(at);
        let end = if tail.starts_with("\r\n") {
            2
        } else {
            tail.chars().next().map_or(0, char::len_utf8)
        };
        lines.push(if keep {
            rest.get(..at + end).unwrap_or(line)
        } else {
            line
        });
        rest = tail.get(end..).unwrap_or_default();
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn pad(text: &str, name: &str, args: &[Value], meter: &Meter) -> Result<Value, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(args)?;
    let fill = match (name, fill.map(|f| (f.chars().next(), f.chars().count()))) {
        ("zfill", _) => '0',
        (_, None) => ' ',
        (_, Some((Some(fill), 1))) => fill,
        _ => return Err(invalid("the fill is one character")),
    };
    let missing = usize::try_from(width)
        .unwrap_or(0)
        .saturating_sub(text.chars().count());
    if missing > meter.longest / 4 {
        return Err(meter.stop());
    }
    meter.charge(4 * missing)?;
    let fill = |n: usize| std::iter::repeat_n(fill, n).collect::<String>();
    Ok(Value::from(match name {
        "ljust" => format!("{text}{}", fill(missing)),
        "center" => {
            let left = missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1);
            format!("{}{text}{}", fill(left), fill(missing - left))
        }
        "zfill" if text.starts_with(['+', '-']) => {
            format!("{}{}{}", &text[..1], fill(missing), &text[1..])
        }
        _ => format!("{}{text}", fill(missing)),
    }))
}

fn dict(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let object = value.as_object().ok_or_else(unknown)?;
    Ok(match name {
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            object
                .get_value(key)
                .unwrap_or_else(|| default.unwrap_or_else(|| Value::from(())))
        }
        "keys" | "values" | "items" => {
            let () = from_args(args)?;
            let pairs = object.try_iter_pairs().into_iter().flatten();
            Value::from(match name {
                "keys" => pairs.map(|(key, _)| key).collect::<Vec<_>>(),
                "values" => pairs.map(|(_, value)| value).collect(),
                _ => pairs
                    .map(|(key, value)| Value::from(Tuple::from([key, value])))
                    .collect(),
            })
        }
        "copy" => {
            let () = from_args(args)?;
            value.clone()
        }
        _ => return Err(unknown()),
    })
}

fn list(value: &Value, name: &str, args: &[Value], meter: &Meter) -> Result<Value, Error> {
    if !matches!(name, "count" | "index") {
        return Err(unknown());
    }
    let (wanted, _rest): (&Value, Rest<Value>) = from_args(args)?;
    meter.charge_deep(value)?;
    meter.charge_deep(wanted)?;
    let mut items = value.try_iter()?;
    if name == "count" {
        return Ok(Value::from(items.filter(|item| item == wanted).count()));
    }
    let at = items.position(|item| item == *wanted);
    at.map(Value::from)
        .ok_or_else(|| invalid("the value is not in the list"))
}

/// The callback of the environment for what the engine has no method for.
pub(super) fn callback(
    meter: ops::Shared,
) -> impl Fn(&mut State<'_, '_>, &Value, &str, &[Value]) -> Result<Value, Error> + Send + Sync + 'static
{
    move |_, value, name, args| call(value, name, args, &meter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, name: &str, args: &[Value]) -> String {
        let meter = Meter::new(1 << 20, 1 << 16);
        match call(&Value::from(text), name, args, &meter) {
            Ok(value) => format!("{value:?}"),
            Err(e) => format!("error: {}", e.kind()),
        }
    }

    #[test]
    fn as_cpython_does() {
        // Every line is what CPython 3.11 prints with `repr`.
        let s = |t: &str| Value::from(t);
        let n = |n: i64| Value::from(n);
        for (text, name, args, expected) in [
            ("  a b\u{1f}", "strip", vec![], "'a b'"),
            ("xxaxx", "lstrip", vec![s("x")], "'axx'"),
            ("xxaxx", "rstrip", vec![s("xa")], "''"),
            (" a  b c ", "split", vec![], "['a', 'b', 'c']"),
            (
                " a  b c ",
                "split",
                vec![Value::from(()), n(1)],
                "['a', 'b c ']",
            ),
            (
                " a  b c ",
                "rsplit",
                vec![Value::from(()), n(1)],
                "[' a  b', 'c']",
            ),
            ("a,b,,c", "split", vec![s(",")], "['a', 'b', '', 'c']"),
            ("a,b,,c", "split", vec![s(","), n(1)], "['a', 'b,,c']"),
            ("a,b,,c", "rsplit", vec![s(","), n(2)], "['a,b', '', 'c']"),
            ("", "split", vec![s(",")], "['']"),
            ("", "split", vec![], "[]"),
            ("a\r\nb\u{2028}c\n", "splitlines", vec![], "['a', 'b', 'c']"),
            ("aXbX", "replace", vec![s("X"), s("--"), n(1)], "'a--bX'"),
            ("ab", "replace", vec![s(""), s("-")], "'-a-b-'"),
            ("héllo", "find", vec![s("l")], "2"),
            ("héllo", "rfind", vec![s("z")], "-1"),
            ("héllo wörld's", "title", vec![], "\"Héllo Wörld'S\""),
            ("ÀB cd", "capitalize", vec![], "'Àb cd'"),
            ("-5", "zfill", vec![n(4)], "'-005'"),
            ("ab", "center", vec![n(5), s("*")], "'**ab*'"),
            ("abc", "center", vec![n(6), s("*")], "'*abc**'"),
            ("a.b.c", "rpartition", vec![s(".")], "('a.b', '.', 'c')"),
            ("abc", "removeprefix", vec![s("ab")], "'c'"),
            ("Ab", "isupper", vec![], "False"),
            ("1a", "isalnum", vec![], "True"),
            ("", "isdigit", vec![], "False"),
            ("{} {}", "format", vec![n(1), s("x")], "'1 x'"),
        ] {
            assert_eq!(
                run(text, name, &args),
                expected,
                "{text:?}.{name}({args:?})"
            );
        }
        assert!(run("a", "append", &[]).contains("error"));
        assert!(run("a", "split", &[s("")]).contains("error"));
    }

    #[test]
    fn what_would_fill_the_memory_is_stopped() {
        let long = "x".repeat(1 << 12);
        let s = |t: &str| Value::from(t);
        assert!(run(&long, "replace", &[s("x"), s(&long)]).contains("error"));
        assert!(run(&long, "ljust", &[Value::from(i64::MAX)]).contains("error"));
        assert!(run("{:>99999999}", "format", &[s("x")]).contains("error"));
        assert!(run("{0}".repeat(100).as_str(), "format", &[s(&long)]).contains("error"));
    }
}
