//! The environment of the reference: what transformers gives a chat template.

use std::cmp::Ordering;
use std::sync::Arc;

use minijinja::formatting::FormatStyle;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Object, Rest};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

use super::meter::{self, Meter};
use super::python::{Bounded, DumpError, Dumps, str};
use super::time::DateTime;
use super::{methods, ops};

/// The name under which an error of a template's own making can be told from others.
pub(super) const RAISED: &str = "raise_exception: ";

/// JSON nested deeper than this is refused.
const MAX_DEPTH: usize = 96;

/// How tags are written and what white space goes.
pub(super) fn syntax() -> SyntaxConfig {
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    // The delimiters are the defaults, which cannot fail to build.
    syntax.unwrap_or_default()
}

/// The environment a template is compiled in.
pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_debug(false);
    env.set_recursion_limit(200);
    env.set_syntax(syntax());
    // Prints everything there is, whatever the size.
    env.remove_global("debug");
    env.remove_filter("pprint");
    env.add_function("raise_exception", raise_exception);
    env
}

/// Gives the environment everything that is counted by this meter, and a clock if there is one.
pub(super) fn prepare(env: &mut Environment<'_>, meter: &Arc<Meter>, now: Option<DateTime>) {
    if let Some(now) = now {
        env.add_function("strftime_now", move |format: &str| now.strftime(format));
    }
    let m = meter.clone();
    env.set_formatter(move |out, _, value| {
        let mut text = Bounded::new(m.longest);
        str(value, &mut text).map_err(|_| m.stop())?;
        let text = text.into_string();
        m.charge(text.len())?;
        out.write_str(&text).map_err(|_| m.stop())
    });
    env.set_unknown_method_callback(methods::callback(meter.clone()));
    operators(env, meter);
    filters(env, meter);
}

fn operators(env: &mut Environment<'_>, meter: &Arc<Meter>) {
    type Binary = fn(&Value, &Value, &Meter) -> Result<Value, Error>;
    let operators: [(&'static str, Binary); 10] = [
        (meter::ADD, ops::add),
        (meter::MUL, ops::mul),
        (meter::REM, ops::rem),
        (meter::CONCAT, ops::concat),
        (meter::EQ, |a, b, m| ops::equal(a, b, m).map(Value::from)),
        (meter::NE, |a, b, m| {
            ops::equal(a, b, m).map(|equal| Value::from(!equal))
        }),
        (meter::LT, |a, b, m| {
            Ok(Value::from(ops::compare(a, b, m)? == Ordering::Less))
        }),
        (meter::LE, |a, b, m| {
            Ok(Value::from(ops::compare(a, b, m)? != Ordering::Greater))
        }),
        (meter::GT, |a, b, m| {
            Ok(Value::from(ops::compare(a, b, m)? == Ordering::Greater))
        }),
        (meter::GE, |a, b, m| {
            Ok(Value::from(ops::compare(a, b, m)? != Ordering::Less))
        }),
    ];
    for (name, operator) in operators {
        let m = meter.clone();
        env.add_function(name, move |a: &Value, b: &Value| operator(a, b, &m));
    }
    let m = meter.clone();
    hook(env, meter::SLICE, move |_, args| ops::slice(args, &m));
    let m = meter.clone();
    env.add_function(meter::KEEP, move |value: Value| m.keep(value, false));
    let m = meter.clone();
    env.add_function(meter::KEEP_ATTR, move |value: Value| m.keep(value, true));
    let m = meter.clone();
    env.add_function(
        meter::IN,
        move |state: &mut State<'_, '_>, a: &Value, b: &Value| ops::contains(state, a, b, &m),
    );
    let m = meter.clone();
    env.add_function(meter::ITERATE, move |value: Value| {
        if value.is_none() {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "None is not iterable",
            ));
        }
        m.charge_value(&value)?;
        Ok(value)
    });
    for &(name, function) in meter::FILTERS {
        let m = meter.clone();
        let deep = matches!(
            name,
            "sort" | "unique" | "min" | "max" | "groupby" | "dictsort"
        );
        hook(env, function, move |state, args| {
            for arg in args {
                m.charge_value(arg)?;
            }
            if let Some(value) = args.first().filter(|_| deep) {
                m.charge_deep(value)?;
            }
            let result = state.apply_filter(name, args)?;
            m.charge_value(&result)?;
            Ok(result)
        });
    }
    for &(name, function) in meter::TESTS {
        let m = meter.clone();
        hook(env, function, move |state, args| {
            for arg in args {
                m.charge_deep(arg)?;
            }
            state.perform_test(name, args).map(Value::from)
        });
    }
    env.add_test("iterable", |value: &Value| {
        value.is_undefined() || value.as_str().is_some() || has_items(value)
    });
    env.add_test("sequence", |value: &Value| {
        value.is_undefined() || value.as_str().is_some() || has_items(value)
    });
}

/// A function that gets its arguments as they are, keyword arguments last.
struct Hook<F>(F);

impl<F> std::fmt::Debug for Hook<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("function")
    }
}

impl<F> Object for Hook<F>
where
    F: Fn(&mut State<'_, '_>, &[Value]) -> Result<Value, Error> + Send + Sync + 'static,
{
    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        (self.0)(state, args)
    }
}

fn hook<F>(env: &mut Environment<'_>, name: &'static str, function: F)
where
    F: Fn(&mut State<'_, '_>, &[Value]) -> Result<Value, Error> + Send + Sync + 'static,
{
    env.add_global(name, Value::from_object(Hook(function)));
}

/// Whether a value is a list, a tuple or a dict.
fn has_items(value: &Value) -> bool {
    use minijinja::value::ValueKind::{Iterable, Map, Seq};
    matches!(value.kind(), Seq | Iterable | Map)
}

/// An argument that may be left out.
type Positional = Option<Value>;

fn filters(env: &mut Environment<'_>, meter: &Arc<Meter>) {
    let m = meter.clone();
    env.add_filter(
        "tojson",
        move |value: &Value, a: Positional, b: Positional, c: Positional, kwargs: Kwargs| {
            tojson(value, [a, b, c], &kwargs, &m)
        },
    );
    let m = meter.clone();
    env.add_filter("string", move |value: &Value| {
        ops::concat(value, &Value::from(""), &m)
    });
    let m = meter.clone();
    env.add_filter(
        "join",
        move |value: &Value, separator: Positional, attribute: Positional, kwargs: Kwargs| {
            let separator = separator
                .or(kwargs.get("d")?)
                .unwrap_or_else(|| Value::from(""));
            let attribute = attribute.or(kwargs.get("attribute")?);
            kwargs.assert_all_used()?;
            let separator = ops::concat(&separator, &Value::from(""), &m)?;
            let separator = separator.as_str().unwrap_or_default();
            match attribute {
                None => ops::join(separator, value, &m),
                Some(attribute) => {
                    let items = value.try_iter()?.map(|item| item.get_item(&attribute));
                    let items = items.collect::<Result<Vec<_>, _>>()?;
                    ops::join(separator, &Value::from(items), &m)
                }
            }
        },
    );
    let m = meter.clone();
    env.add_filter(
        "replace",
        move |value: &Value, old: &Value, new: &Value, count: Option<i64>| {
            let text = |value: &Value| ops::concat(value, &Value::from(""), &m);
            let (value, old, new) = (text(value)?, text(old)?, text(new)?);
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            ops::replace(&text(&value), &text(&old), &text(&new), count, &m)
        },
    );
    let m = meter.clone();
    env.add_filter(
        "indent",
        move |value: &Value, a: Positional, b: Positional, c: Positional, kwargs: Kwargs| {
            indent(value, [a, b, c], &kwargs, &m)
        },
    );
    let m = meter.clone();
    env.add_filter("format", move |pattern: &str, args: Rest<Value>| {
        ops::formatted(FormatStyle::Printf, pattern, &args, &m)
    });
    let m = meter.clone();
    env.add_filter("title", move |value: &Value| {
        let text = ops::concat(value, &Value::from(""), &m)?;
        Ok::<_, Error>(Value::from(methods::title(
            text.as_str().unwrap_or_default(),
        )))
    });
    let m = meter.clone();
    env.add_filter("reverse", move |value: &Value| {
        let step = [
            value.clone(),
            Value::from(()),
            Value::from(()),
            Value::from(-1),
        ];
        ops::slice(&step, &m)
    });
    for (name, filter) in [
        (
            "batch",
            minijinja::filters::batch as fn(&State<'_, '_>, Value, usize, Option<Value>) -> _,
        ),
        ("slice", minijinja::filters::slice),
    ] {
        let m = meter.clone();
        env.add_filter(
            name,
            move |state: &State<'_, '_>, value: Value, count: usize, fill: Option<Value>| {
                if count > 100_000 {
                    return Err(m.stop());
                }
                m.charge(16 * count)?;
                filter(state, value, count, fill)
            },
        );
    }
}

/// A JSON value as the engine's value: integers stay integers, keys stay in order.
pub(super) fn value(json: &serde_json::Value, depth: usize) -> Result<Value, crate::Error> {
    use serde_json::Value as Json;
    if depth > MAX_DEPTH {
        let (max, got) = (MAX_DEPTH as u64, depth as u64);
        return Err(crate::Error::Limit {
            what: "nesting of a message",
            max,
            got,
        });
    }
    Ok(match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::from(n),
            (None, Some(n)) => Value::from(n),
            (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => {
            let items = items.iter().map(|item| value(item, depth + 1));
            Value::from(items.collect::<Result<Vec<_>, _>>()?)
        }
        Json::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(k, v)| Ok((Value::from(k.as_str()), value(v, depth + 1)?)));
            Value::from_pairs(fields.collect::<Result<Vec<_>, crate::Error>>()?)
        }
    })
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let mut text = Bounded::new(1 << 16);
    let _ = str(message, &mut text);
    Err(Error::new(
        ErrorKind::InvalidOperation,
        format!("{RAISED}{}", text.into_string()),
    ))
}

/// `tojson` of the reference: `json.dumps` with `ensure_ascii=False`.
fn tojson(
    value: &Value,
    [ascii, indent, separators]: [Positional; 3],
    kwargs: &Kwargs,
    meter: &Meter,
) -> Result<Value, Error> {
    let given: Option<Value> = kwargs.get("indent")?;
    let indent = indent
        .or(given)
        .filter(|i| !i.is_none() && !i.is_undefined());
    let indent = indent.map(|indent| match indent.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => match indent.as_usize() {
            Some(n) if n <= 64 => Ok(" ".repeat(n)),
            _ => Err(Error::new(
                ErrorKind::InvalidOperation,
                "tojson: indent is text or 0 to 64",
            )),
        },
    });
    let mut dumps = Dumps {
        indent: indent.transpose()?,
        ..Dumps::default()
    };
    if dumps.indent.is_some() {
        dumps.item_separator = ",".to_owned();
    }
    let separators = separators
        .or(kwargs.get("separators")?)
        .filter(|s| !s.is_none());
    if let Some(separators) = separators {
        let part = |at| Ok::<_, Error>(separators.get_item_by_index(at)?.to_string());
        (dumps.item_separator, dumps.key_separator) = (part(0)?, part(1)?);
    }
    let flag = |positional: Positional, name| -> Result<bool, Error> {
        Ok(positional
            .or(kwargs.get(name)?)
            .is_some_and(|value| value.is_true()))
    };
    dumps.sort_keys = flag(None, "sort_keys")?;
    dumps.ascii = flag(ascii, "ensure_ascii")?;
    kwargs.assert_all_used()?;
    let mut out = Bounded::new(meter.longest);
    match dumps.dump(value, &mut out) {
        Ok(()) => {
            let text = out.into_string();
            meter.charge(text.len())?;
            Ok(Value::from(text))
        }
        Err(DumpError::TooLarge) => Err(meter.stop()),
        Err(DumpError::Kind(kind)) => Err(Error::new(
            ErrorKind::BadSerialization,
            format!("tojson: a value of kind {kind} has no JSON form"),
        )),
    }
}

/// `indent` of Jinja2: the lines of a text, all but the first, moved right.
fn indent(
    value: &Value,
    [width, first, blank]: [Positional; 3],
    kwargs: &Kwargs,
    meter: &Meter,
) -> Result<Value, Error> {
    let width = width
        .or(kwargs.get("width")?)
        .unwrap_or_else(|| Value::from(4));
    let flag = |positional: Positional, name| -> Result<bool, Error> {
        Ok(positional
            .or(kwargs.get(name)?)
            .is_some_and(|value| value.is_true()))
    };
    let (first, blank) = (flag(first, "first")?, flag(blank, "blank")?);
    kwargs.assert_all_used()?;
    let indention = match width.as_str() {
        Some(text) => text.to_owned(),
        None => ops::mul(&Value::from(" "), &width, meter)?
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    };
    let text = ops::concat(value, &Value::from("\n"), meter)?;
    let lines = methods::lines(text.as_str().unwrap_or_default(), false);
    let len = text
        .len()
        .unwrap_or(0)
        .saturating_add(lines.len().saturating_mul(indention.len()));
    if len > meter.longest {
        return Err(meter.stop());
    }
    meter.charge(len)?;
    let mut out = String::with_capacity(len);
    for (n, line) in lines.iter().enumerate() {
        if n > 0 {
            out.push('\n');
        }
        let moved = if n == 0 {
            first
        } else {
            blank || !line.is_empty()
        };
        if moved {
            out.push_str(&indention);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}
