//! Python's operators, with what they cost.

use std::cmp::Ordering;
use std::fmt::Write;
use std::sync::Arc;

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::meter::Meter;
use super::python::{Bounded, str};

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

fn mismatch(op: &str, a: &Value, b: &Value) -> Error {
    let kind = |v: &Value| {
        if v.is_undefined() {
            "undefined".to_owned()
        } else {
            v.kind().to_string()
        }
    };
    invalid(format!("{op} is not for {} and {}", kind(a), kind(b)))
}

/// A number as Python counts: integers and floats, `True` is 1.
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    fn of(value: &Value) -> Option<Self> {
        match value.kind() {
            ValueKind::Bool => Some(Number::Int(value.is_true().into())),
            ValueKind::Number if value.is_integer() => {
                i128::try_from(value.clone()).ok().map(Number::Int)
            }
            ValueKind::Number => f64::try_from(value.clone()).ok().map(Number::Float),
            _ => None,
        }
    }

    fn float(self) -> f64 {
        match self {
            Number::Int(n) => n as f64,
            Number::Float(x) => x,
        }
    }
}

fn integer(n: Option<i128>) -> Result<Value, Error> {
    let n = n.ok_or_else(|| invalid("an integer is too large"))?;
    Ok(i64::try_from(n).map_or_else(|_| Value::from(n), Value::from))
}

/// The items of a list or tuple.
fn items(value: &Value, meter: &Meter) -> Result<Vec<Value>, Error> {
    meter.charge_value(value)?;
    let mut items = Vec::new();
    for item in value.try_iter()? {
        if items.len() % 64 == 63 {
            meter.charge(64 * 16)?;
        }
        items.push(item);
    }
    Ok(items)
}

fn sequence(items: Vec<Value>, tuple: bool) -> Value {
    if tuple {
        Value::from(Tuple::from(items))
    } else {
        Value::from(items)
    }
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

/// Text that is paid for and not too long.
fn text(parts: &[&str], meter: &Meter) -> Result<Value, Error> {
    let len = parts.iter().map(|part| part.len()).sum();
    meter.charge(len)?;
    if len > meter.longest {
        return Err(meter.stop());
    }
    Ok(Value::from(parts.concat()))
}

pub(super) fn add(a: &Value, b: &Value, meter: &Meter) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        return match (a.is_safe(), b.is_safe()) {
            (false, false) => text(&[left, right], meter),
            // Text marked `safe` escapes what it is added to, as Markup does.
            (a, b) => {
                let (left, right) = (escape(left, a), escape(right, b));
                let joined = text(&[left.as_str(), right.as_str()], meter)?;
                Ok(Value::from_safe_string(joined.to_string()))
            }
        };
    }
    if is_list(a) && is_list(b) && a.is_tuple() == b.is_tuple() {
        let mut all = items(a, meter)?;
        all.extend(items(b, meter)?);
        return Ok(sequence(all, a.is_tuple()));
    }
    match (Number::of(a), Number::of(b)) {
        (Some(Number::Int(a)), Some(Number::Int(b))) => integer(a.checked_add(b)),
        (Some(a), Some(b)) => Ok(Value::from(a.float() + b.float())),
        _ => Err(mismatch("+", a, b)),
    }
}

/// Text as HTML, unless it is safe already.
fn escape(text: &str, safe: bool) -> String {
    if safe {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}

pub(super) fn mul(a: &Value, b: &Value, meter: &Meter) -> Result<Value, Error> {
    let (many, times) = if Number::of(a).is_some() {
        (b, a)
    } else {
        (a, b)
    };
    match (Number::of(many), Number::of(times)) {
        (Some(Number::Int(a)), Some(Number::Int(b))) => integer(a.checked_mul(b)),
        (Some(a), Some(b)) => Ok(Value::from(a.float() * b.float())),
        (None, Some(Number::Int(times))) => {
            let times = usize::try_from(times.max(0)).map_err(|_| meter.stop())?;
            if let Some(text) = many.as_str() {
                let len = text.len().checked_mul(times).ok_or_else(|| meter.stop())?;
                meter.charge(len)?;
                if len > meter.longest {
                    return Err(meter.stop());
                }
                return Ok(Value::from(text.repeat(times)));
            }
            if is_list(many) {
                let items = items(many, meter)?;
                let len = items.len().checked_mul(times).ok_or_else(|| meter.stop())?;
                meter.charge(len.saturating_mul(16))?;
                let repeated = std::iter::repeat_n(items, times).flatten();
                return Ok(sequence(repeated.collect(), many.is_tuple()));
            }
            Err(mismatch("*", a, b))
        }
        _ => Err(mismatch("*", a, b)),
    }
}

pub(super) fn rem(a: &Value, b: &Value, meter: &Meter) -> Result<Value, Error> {
    if let Some(pattern) = a.as_str() {
        let args = if b.is_tuple() {
            items(b, meter)?
        } else {
            vec![b.clone()]
        };
        return formatted(FormatStyle::Printf, pattern, &args, meter);
    }
    match (Number::of(a), Number::of(b)) {
        (Some(Number::Int(_)), Some(Number::Int(0))) => Err(invalid("modulo by zero")),
        (Some(Number::Int(a)), Some(Number::Int(b))) => {
            let rest = a.checked_rem_euclid(b);
            integer(rest.map(|r| if b < 0 && r != 0 { r + b } else { r }))
        }
        (Some(a), Some(b)) => {
            let (a, b) = (a.float(), b.float());
            if b == 0.0 {
                return Err(invalid("modulo by zero"));
            }
            Ok(Value::from(a - b * (a / b).floor()))
        }
        _ => Err(mismatch("%", a, b)),
    }
}

/// `%` and `str.format`, without widths that would fill the memory.
pub(super) fn formatted(
    style: FormatStyle,
    pattern: &str,
    args: &[Value],
    meter: &Meter,
) -> Result<Value, Error> {
    let wide = pattern
        .split(|c: char| !c.is_ascii_digit())
        .any(|digits| digits.len() > 3);
    if wide || pattern.contains('*') {
        return Err(invalid("a width or precision above 999 in a format"));
    }
    let mut longest = 0;
    for arg in args {
        let mut out = Bounded::new(meter.longest);
        str(arg, &mut out).map_err(|_| meter.stop())?;
        let len = out.into_string().len();
        meter.charge(len)?;
        longest = longest.max(len);
    }
    // Every directive may name the longest argument.
    let directives = pattern.matches(['%', '{']).count();
    let bound = directives
        .saturating_mul(longest + 1000)
        .saturating_add(pattern.len());
    if bound > meter.longest.saturating_mul(4) {
        return Err(meter.stop());
    }
    meter.charge(bound)?;
    let text = format(style, pattern, args)?;
    Ok(Value::from(text))
}

pub(super) fn concat(a: &Value, b: &Value, meter: &Meter) -> Result<Value, Error> {
    let mut out = Bounded::new(meter.longest);
    str(a, &mut out)
        .and_then(|()| str(b, &mut out))
        .map_err(|_| meter.stop())?;
    let text = out.into_string();
    meter.charge(text.len())?;
    Ok(Value::from(text))
}

/// `value[start:stop:step]`.
pub(super) fn slice(args: &[Value], meter: &Meter) -> Result<Value, Error> {
    let [value, start, stop, step] = args else {
        return Err(invalid("a slice has four parts"));
    };
    let bound = |v: &Value| match v.kind() {
        ValueKind::None => Ok(None),
        _ => match Number::of(v) {
            Some(Number::Int(n)) => Ok(Some(n)),
            _ => Err(invalid("the bounds of a slice are integers")),
        },
    };
    let step = bound(step)?.unwrap_or(1);
    if step == 0 {
        return Err(invalid("the step of a slice is not 0"));
    }
    let (start, stop) = (bound(start)?, bound(stop)?);
    let indices = |len: usize| {
        let len = len as i128;
        // As `slice.indices` of Python.
        let (lowest, highest) = if step > 0 { (0, len) } else { (-1, len - 1) };
        let clip = |n: i128| {
            let n = if n < 0 { n.saturating_add(len) } else { n };
            n.clamp(lowest, highest)
        };
        let start = start.map_or(if step > 0 { lowest } else { highest }, clip);
        let stop = stop.map_or(if step > 0 { highest } else { lowest }, clip);
        let mut at = start;
        std::iter::from_fn(move || {
            let inside = if step > 0 { at < stop } else { at > stop };
            let index = usize::try_from(at).ok().filter(|_| inside)?;
            at = at.saturating_add(step);
            Some(index)
        })
    };
    if let Some(text) = value.as_str() {
        meter.charge(text.len())?;
        if step == 1 && text.is_ascii() {
            let mut range = indices(text.len());
            let first = range.next();
            let (from, n) = (
                first.unwrap_or(0),
                range.count() + usize::from(first.is_some()),
            );
            return Ok(Value::from(text.get(from..from + n).unwrap_or_default()));
        }
        let chars: Vec<char> = text.chars().collect();
        let picked = indices(chars.len()).filter_map(|i| chars.get(i));
        return Ok(Value::from(picked.collect::<String>()));
    }
    if is_list(value) {
        let items = items(value, meter)?;
        let picked = indices(items.len()).filter_map(|i| items.get(i).cloned());
        return Ok(sequence(picked.collect(), value.is_tuple()));
    }
    Err(invalid(format!(
        "a value of kind {} cannot be sliced",
        value.kind()
    )))
}

pub(super) fn equal(a: &Value, b: &Value, meter: &Meter) -> Result<bool, Error> {
    meter.charge_deep(a)?;
    meter.charge_deep(b)?;
    Ok(a == b)
}

pub(super) fn compare(a: &Value, b: &Value, meter: &Meter) -> Result<Ordering, Error> {
    meter.charge_deep(a)?;
    meter.charge_deep(b)?;
    let ordered = match (Number::of(a), Number::of(b)) {
        (Some(_), Some(_)) => true,
        _ => a.kind() == b.kind() && matches!(a.kind(), ValueKind::String | ValueKind::Seq),
    };
    if ordered {
        Ok(a.cmp(b))
    } else {
        Err(mismatch("< or >", a, b))
    }
}

pub(super) fn contains(
    state: &mut State<'_, '_>,
    item: &Value,
    container: &Value,
    meter: &Meter,
) -> Result<bool, Error> {
    meter.charge_deep(item)?;
    match container.kind() {
        ValueKind::Map => meter.charge(64)?,
        _ => meter.charge_deep(container)?,
    }
    let has_items =
        container.is_undefined() || is_list(container) || container.kind() == ValueKind::Map;
    let both_text = container.as_str().is_some() && item.as_str().is_some();
    if !has_items && !both_text {
        return Err(mismatch("in", item, container));
    }
    state.perform_test("in", &[item.clone(), container.clone()])
}

/// `separator.join(values)`.
pub(super) fn join(separator: &str, values: &Value, meter: &Meter) -> Result<Value, Error> {
    let mut out = Bounded::new(meter.longest);
    for (n, value) in values.try_iter()?.enumerate() {
        let separated = if n > 0 {
            out.write_str(separator)
        } else {
            Ok(())
        };
        separated.map_err(|_| meter.stop())?;
        str(&value, &mut out).map_err(|_| meter.stop())?;
        meter.charge(16)?;
    }
    let text = out.into_string();
    meter.charge(text.len())?;
    Ok(Value::from(text))
}

/// `text.replace(old, new, count)`; a negative count is all.
pub(super) fn replace(
    text: &str,
    old: &str,
    new: &str,
    count: Option<i64>,
    meter: &Meter,
) -> Result<Value, Error> {
    let count = count
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(usize::MAX);
    meter.charge(text.len())?;
    let n = text.matches(old).take(count).count();
    let len = n.saturating_mul(new.len()).saturating_add(text.len());
    meter.charge(len)?;
    if len > meter.longest {
        return Err(meter.stop());
    }
    Ok(Value::from(text.replacen(old, new, n)))
}

/// A meter as closures hold it.
pub(super) type Shared = Arc<Meter>;
