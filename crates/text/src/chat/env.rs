//! The environment of the reference: what transformers gives a chat template.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, from_args};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

use super::python::{Bounded, DumpError, Dumps, str};
use super::time::DateTime;

/// The name under which an error of a template's own making can be told from others.
pub(super) const RAISED: &str = "raise_exception: ";

/// The text of an error that stands for the output limit.
pub(super) const OUTPUT_LIMIT: &str = "output limit reached";

/// An environment with everything the reference has. `max` bounds every single printed value.
pub(super) fn environment(max: usize) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    // The delimiters are the defaults, which cannot fail to build.
    if let Ok(syntax) = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
    {
        env.set_syntax(syntax);
    }
    env.set_formatter(move |out, _, value| {
        let mut text = Bounded::new(max);
        str(value, &mut text).map_err(|_| limit())?;
        out.write_str(&text.into_string()).map_err(|_| limit())
    });
    env.set_unknown_method_callback(method);
    env.add_filter("tojson", move |value: &Value, args: Rest<Value>| {
        tojson(value, &args, max)
    });
    env.add_function("raise_exception", raise_exception);
    env
}

/// Makes `strftime_now` answer with this time.
pub(super) fn set_now(env: &mut Environment<'_>, now: DateTime) {
    env.add_function("strftime_now", move |format: &str| now.strftime(format));
}

/// A JSON value as the engine's value: integers stay integers, keys stay in order.
pub(super) fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::from(n),
            (None, Some(n)) => Value::from(n),
            (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(value).collect::<Vec<_>>()),
        Json::Object(fields) => Value::from_pairs(
            fields
                .iter()
                .map(|(k, v)| (Value::from(k.as_str()), value(v))),
        ),
    }
}

fn limit() -> Error {
    Error::new(ErrorKind::InvalidOperation, OUTPUT_LIMIT)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(
        ErrorKind::InvalidOperation,
        format!("{RAISED}{message}"),
    ))
}

/// `tojson` of the reference: `json.dumps` with `ensure_ascii=False`.
fn tojson(value: &Value, args: &[Value], max: usize) -> Result<Value, Error> {
    let (indent, kwargs): (Option<Value>, Kwargs) = from_args(args)?;
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
    if let Some(separators) = kwargs.get::<Option<Vec<String>>>("separators")?
        && let [item, key] = separators.as_slice()
    {
        (dumps.item_separator, dumps.key_separator) = (item.clone(), key.clone());
    }
    dumps.sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    dumps.ascii = kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let mut out = Bounded::new(max);
    match dumps.dump(value, &mut out) {
        Ok(()) => Ok(Value::from(out.into_string())),
        Err(DumpError::TooLarge) => Err(limit()),
        Err(DumpError::Kind(kind)) => Err(Error::new(
            ErrorKind::BadSerialization,
            format!("tojson: a value of kind {kind} has no JSON form"),
        )),
    }
}

/// Methods of Python's `str`, `dict` and `list`.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}
