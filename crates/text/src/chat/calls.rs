//! Calls of tools, read back out of an answer.
//!
//! Models write calls as their templates taught them. Which form an answer has is seen in the answer itself:
//!
//! | form | models |
//! |---|---|
//! | `<tool_call>{"name": …, "arguments": {…}}</tool_call>` | Hermes, Qwen 2.5 and 3, SmolLM3, Granite 4 |
//! | `<tool_call><function=NAME><parameter=KEY>…</parameter></function></tool_call>` | Qwen3-Coder, Qwen 3.5, Nemotron 3 |
//! | `<tool_call>NAME<arg_key>…</arg_key><arg_value>…</arg_value></tool_call>` | GLM 4 |
//! | `[TOOL_CALLS][{…}]`, `[TOOL_CALLS]NAME[ARGS]{…}` | Mistral |
//! | `<\|python_tag\|>{…}`, or the whole answer is `{"name": …, "parameters": {…}}` | Llama 3 |
//! | `<\|tool_call>call:NAME{key:<\|"\|>…<\|"\|>}<tool_call\|>` | Gemma 4 |
//!
//! What is not wholly one of these stays text: a call that is cut off is no call.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A function a model wants to be called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Its name.
    pub name: String,
    /// Its arguments by name.
    pub arguments: Map<String, Value>,
}

/// Calls nest no deeper than this.
const MAX_DEPTH: usize = 64;

/// Splits an answer, decoded **with** its special tokens, into the text around the calls and the calls, in order. `tools` is the list
/// the template was given: it says which arguments are texts where the form does not.
///
/// ```
/// let answer = "I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";
/// let (text, calls) = firelight_text::tool_calls(answer, None);
/// assert_eq!((text.as_str(), calls[0].name.as_str()), ("I look.", "weather"));
/// assert_eq!(calls[0].arguments["city"], "Oslo");
/// ```
pub fn tool_calls(answer: &str, tools: Option<&Value>) -> (String, Vec<ToolCall>) {
    let forms: [(&str, &str, Form); 4] = [
        ("<tool_call>", "</tool_call>", |body, tools| {
            json_call(body)
                .or_else(|| xml_call(body, tools))
                .or_else(|| keyed_call(body, tools))
                .map(|call| vec![call])
        }),
        ("<|tool_call>", "<tool_call|>", |body, _| {
            gemma_call(body).map(|call| vec![call])
        }),
        ("<|python_tag|>", "", |body, _| json_calls(body)),
        ("[TOOL_CALLS]", "", |body, _| {
            json_calls(body).or_else(|| named_call(body).map(|call| vec![call]))
        }),
    ];
    let (mut text, mut calls) = (String::new(), Vec::new());
    let mut rest = answer;
    // The first mark, again and again.
    while let Some((at, (open, close, form))) = forms
        .iter()
        .filter_map(|form| Some((rest.find(form.0)?, form)))
        .min_by_key(|(at, _)| *at)
    {
        let (before, body) = rest.split_at(at);
        let body = body.get(open.len()..).unwrap_or_default();
        // A form without an end goes up to the next mark of its kind, or to the end of the answer.
        let mark = if close.is_empty() { open } else { close };
        let end = body.find(mark);
        let (inner, after) = body.split_at(end.unwrap_or(body.len()));
        let found = match (end, close.is_empty()) {
            (None, false) => None,
            _ => form(inner.trim(), tools),
        };
        text.push_str(before);
        rest = match found {
            Some(found) => {
                calls.extend(found);
                after.strip_prefix(close).unwrap_or(after)
            }
            None => {
                text.push_str(open);
                body
            }
        };
    }
    text.push_str(rest);
    if calls.is_empty()
        && let Some(found) =
            json_calls(answer.trim()).filter(|_| answer.trim_start().starts_with('{'))
    {
        return (String::new(), found);
    }
    if calls.is_empty() {
        return (answer.to_owned(), calls);
    }
    (text.trim().to_owned(), calls)
}

type Form = fn(&str, Option<&Value>) -> Option<Vec<ToolCall>>;

/// `{"name": …, "arguments": {…}}`, with the names other templates have for it.
fn json_call(body: &str) -> Option<ToolCall> {
    from_json(serde_json::from_str(body).ok()?)
}

/// One call, a list of calls, or several with `;` or white space between them.
fn json_calls(body: &str) -> Option<Vec<ToolCall>> {
    let body = body.trim();
    if let Ok(Value::Array(list)) = serde_json::from_str(body) {
        return list.into_iter().map(from_json).collect();
    }
    let mut calls = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        calls.push(from_json(values.next()?.ok()?)?);
        rest = rest
            .get(values.byte_offset()..)?
            .trim_start_matches([';', ' ', '\n', '\r', '\t']);
    }
    (!calls.is_empty()).then_some(calls)
}

fn from_json(value: Value) -> Option<ToolCall> {
    let mut fields = match value {
        Value::Object(mut fields) => match fields.remove("function") {
            Some(Value::Object(inner)) => inner,
            Some(name @ Value::String(_)) => {
                fields.insert("name".into(), name);
                fields
            }
            Some(_) => return None,
            None => fields,
        },
        _ => return None,
    };
    let name = fields.remove("name")?.as_str()?.to_owned();
    let arguments = fields
        .remove("arguments")
        .or_else(|| fields.remove("parameters"));
    let arguments = match arguments {
        Some(Value::Object(arguments)) => arguments,
        // Some write the arguments as JSON in a text.
        Some(Value::String(text)) => serde_json::from_str(&text).ok()?,
        Some(Value::Null) => Map::new(),
        _ => return None,
    };
    (!name.is_empty()).then_some(ToolCall { name, arguments })
}

/// `<function=NAME><parameter=KEY>VALUE</parameter>…</function>`.
fn xml_call(body: &str, tools: Option<&Value>) -> Option<ToolCall> {
    let body = body.strip_prefix("<function=")?;
    let (name, mut rest) = body.split_once('>')?;
    let name = name.trim();
    let mut arguments = Map::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix("</function>") {
            return (after.trim().is_empty() && !name.is_empty()).then(|| ToolCall {
                name: name.to_owned(),
                arguments,
            });
        }
        let (key, after) = rest.strip_prefix("<parameter=")?.split_once('>')?;
        let (value, after) = after.split_once("</parameter>")?;
        // The template puts the value on lines of its own.
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        arguments.insert(key.trim().to_owned(), typed(tools, name, key.trim(), value));
        rest = after;
    }
}

/// `NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>…`.
fn keyed_call(body: &str, tools: Option<&Value>) -> Option<ToolCall> {
    let end = body.find("<arg_key>").unwrap_or(body.len());
    let (name, mut rest) = (body.get(..end)?.trim(), body.get(end..)?);
    let is_name = |c: char| c.is_alphanumeric() || "_-./:".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return None;
    }
    let mut arguments = Map::new();
    while !rest.trim().is_empty() {
        let after = rest.trim_start().strip_prefix("<arg_key>")?;
        let (key, after) = after.split_once("</arg_key>")?;
        let after = after.trim_start().strip_prefix("<arg_value>")?;
        let (value, after) = after.split_once("</arg_value>")?;
        arguments.insert(key.trim().to_owned(), typed(tools, name, key.trim(), value));
        rest = after;
    }
    Some(ToolCall {
        name: name.to_owned(),
        arguments,
    })
}

/// `NAME[ARGS]{…}`, with an optional `[CALL_ID]…` between.
fn named_call(body: &str) -> Option<ToolCall> {
    let (name, arguments) = body.split_once("[ARGS]")?;
    let name = name.split("[CALL_ID]").next()?.trim();
    let arguments = serde_json::from_str(arguments.trim()).ok()?;
    (!name.is_empty()).then(|| ToolCall {
        name: name.to_owned(),
        arguments,
    })
}

/// A value written as bare text: JSON, unless its parameter is declared a text, or it is none.
fn typed(tools: Option<&Value>, function: &str, key: &str, text: &str) -> Value {
    let function_of = |tool: &'_ Value| -> Option<Value> {
        let f = tool.get("function").unwrap_or(tool);
        (f.get("name")?.as_str()? == function).then(|| f.clone())
    };
    let declared = tools
        .and_then(Value::as_array)
        .and_then(|list| list.iter().find_map(function_of))
        .and_then(|f| {
            f.pointer("/parameters/properties")?
                .get(key)?
                .get("type")
                .cloned()
        });
    let is_text = match &declared {
        Some(Value::String(kind)) => kind == "string",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
        _ => false,
    };
    if is_text {
        return text.into();
    }
    serde_json::from_str(text.trim()).unwrap_or_else(|_| text.into())
}

/// `call:NAME{key:value,…}` with texts between `<|"|>`.
fn gemma_call(body: &str) -> Option<ToolCall> {
    let body = body.strip_prefix("call:")?;
    let at = body.find('{')?;
    let (name, body) = body.split_at(at);
    let mut rest = body;
    let value = gemma_value(&mut rest, 0)?;
    match value {
        Value::Object(arguments) if rest.trim().is_empty() && !name.trim().is_empty() => {
            Some(ToolCall {
                name: name.trim().to_owned(),
                arguments,
            })
        }
        _ => None,
    }
}

const QUOTE: &str = "<|\"|>";

fn gemma_value(rest: &mut &str, depth: usize) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    let take = |rest: &mut &str, mark: &str| -> bool {
        match rest.strip_prefix(mark) {
            Some(after) => {
                *rest = after;
                true
            }
            None => false,
        }
    };
    *rest = rest.trim_start();
    if take(rest, QUOTE) {
        let (text, after) = rest.split_once(QUOTE)?;
        *rest = after;
        return Some(text.into());
    }
    if take(rest, "[") {
        let mut list = Vec::new();
        loop {
            *rest = rest.trim_start();
            if take(rest, "]") {
                return Some(Value::Array(list));
            }
            if !list.is_empty() && !take(rest, ",") {
                return None;
            }
            list.push(gemma_value(rest, depth + 1)?);
        }
    }
    if take(rest, "{") {
        let mut map = Map::new();
        loop {
            *rest = rest.trim_start();
            if take(rest, "}") {
                return Some(Value::Object(map));
            }
            if !map.is_empty() && !take(rest, ",") {
                return None;
            }
            *rest = rest.trim_start();
            let key = if take(rest, QUOTE) {
                let (key, after) = rest.split_once(QUOTE)?;
                *rest = after;
                key
            } else {
                let (key, _) = rest.split_once(':')?;
                *rest = rest.get(key.len()..)?;
                key.trim()
            };
            *rest = rest.trim_start();
            if !take(rest, ":") {
                return None;
            }
            let key = key.to_owned();
            map.insert(key, gemma_value(rest, depth + 1)?);
        }
    }
    let end = rest.find([',', '}', ']']).unwrap_or(rest.len());
    let (bare, after) = rest.split_at(end);
    *rest = after;
    match bare.trim() {
        "" => None,
        "None" => Some(Value::Null),
        bare => serde_json::from_str(bare).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn calls(answer: &str) -> (String, Vec<(String, Value)>) {
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"properties": {"zip": {"type": "string"}}}}}]);
        let (text, calls) = tool_calls(answer, Some(&tools));
        let calls = calls
            .into_iter()
            .map(|c| (c.name, Value::Object(c.arguments)));
        (text, calls.collect())
    }

    #[test]
    fn every_form() {
        let f = |arguments: Value| ("f".to_owned(), arguments);
        for (answer, text, expected) in [
            (
                "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, {\"b\": \"}\"}]}}\n</tool_call>\n<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 2}\"}</tool_call>",
                "",
                vec![f(json!({"a": [1, {"b": "}"}]})), f(json!({"a": 2}))],
            ),
            (
                "Let me see.\n<tool_call>\n<function=f>\n<parameter=zip>\n01234\n</parameter>\n<parameter=n>\n5\n</parameter>\n<parameter=s>\ntwo\nlines\n</parameter>\n</function>\n</tool_call>",
                "Let me see.",
                vec![f(json!({"zip": "01234", "n": 5, "s": "two\nlines"}))],
            ),
            (
                "<tool_call>f\n<arg_key>zip</arg_key>\n<arg_value>5</arg_value>\n<arg_key>on</arg_key><arg_value>true</arg_value>\n</tool_call> done",
                "done",
                vec![f(json!({"zip": "5", "on": true}))],
            ),
            (
                "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {\"x\": null}}]",
                "",
                vec![f(json!({})), ("g".to_owned(), json!({"x": null}))],
            ),
            (
                "Yes[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g[CALL_ID]12[ARGS]{}",
                "Yes",
                vec![f(json!({"a": 1})), ("g".to_owned(), json!({}))],
            ),
            (
                "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"q\": \"x\"}}; {\"name\": \"f\", \"parameters\": {}}",
                "",
                vec![f(json!({"q": "x"})), f(json!({}))],
            ),
            (
                " {\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"q\": \"x\"}}\n",
                "",
                vec![f(json!({"q": "x"}))],
            ),
            (
                "<|tool_call>call:f{city:<|\"|>São {Paulo}, \"x\"<|\"|>,days:[1,2.5],o:{<|\"|>k v<|\"|>:true,n:None}}<tool_call|><|tool_call>call:g{}<tool_call|>",
                "",
                vec![
                    f(
                        json!({"city": "São {Paulo}, \"x\"", "days": [1, 2.5], "o": {"k v": true, "n": null}}),
                    ),
                    ("g".to_owned(), json!({})),
                ],
            ),
        ] {
            assert_eq!(calls(answer), (text.to_owned(), expected), "{answer}");
        }
    }

    #[test]
    fn what_is_no_call_stays_text() {
        for answer in [
            "",
            "Plain.",
            "{\"name\": 1}",
            "{\"answer\": 42}",
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": ",
            "<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
            "<tool_call>what is this?</tool_call>",
            "<tool_call><function=f><parameter=a>1</tool_call>",
            "<|tool_call>call:f{a:<|\"|>x}<tool_call|>",
            "<|tool_call>call:{}<tool_call|>",
            "[TOOL_CALLS]",
            "[TOOL_CALLS]f[ARGS]nothing",
            "<|python_tag|>print(1)",
            "</tool_call><tool_call>",
        ] {
            assert_eq!(calls(answer), (answer.to_owned(), vec![]), "{answer}");
        }
        let deep = format!("<|tool_call>call:f{{a:{}<tool_call|>", "[".repeat(100_000));
        assert!(calls(&deep).1.is_empty());
        // One broken, one whole.
        let (text, found) = calls(
            "<tool_call>x y</tool_call><tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
        );
        assert_eq!(
            (text.as_str(), found.len()),
            ("<tool_call>x y</tool_call>", 1)
        );
    }
}
