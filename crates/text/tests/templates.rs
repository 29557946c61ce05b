//! Chat templates: equality with Jinja2 in the reference's environment. `make_template_goldens.py` makes the goldens
//! of `data/templates`; `FIRELIGHT_TEMPLATE_GOLDENS` names a file it made of other templates (published models').

mod common;

use std::path::Path;

use firelight_text::{ChatInput, ChatTemplate, DateTime, Error, Message, tool_calls};
use serde_json::{Map, Value};

fn now(golden: &Value) -> DateTime {
    let parts: Vec<i32> = golden["now"]
        .as_str()
        .unwrap()
        .split(' ')
        .map(|n| n.parse().unwrap())
        .collect();
    let part = |at: usize| parts[at] as u8;
    DateTime {
        year: parts[0],
        month: part(1),
        day: part(2),
        hour: part(3),
        minute: part(4),
        second: part(5),
    }
}

/// Compares a template on every input: (equal, different).
fn check(name: &str, source: &str, results: &Value, golden: &Value) -> (usize, Vec<String>) {
    let (mut equal, mut wrong) = (0, Vec::new());
    let template = ChatTemplate::new(source);
    for (input, expected) in results.as_object().unwrap() {
        let given = golden["inputs"][input].as_object().unwrap();
        let messages: Vec<Message> = serde_json::from_value(given["messages"].clone()).unwrap();
        let mut extra: Map<String, Value> = given.clone();
        extra.remove("messages");
        let tools = extra.remove("tools");
        let add_generation_prompt = extra
            .remove("add_generation_prompt")
            .is_none_or(|v| v == true);
        let input_values = ChatInput {
            messages: &messages,
            tools,
            add_generation_prompt,
            bos_token: Some("<s>".into()),
            eos_token: Some("</s>".into()),
            extra,
            now: Some(now(golden)),
        };
        let got = match &template {
            Ok(template) => template.render(&input_values),
            Err(e) => Err(Error::Template(e.to_string())),
        };
        let same = match (&got, expected.get("text"), expected.get("raised")) {
            (Ok(got), Some(text), _) => got == text,
            (Err(Error::Template(message)), _, Some(raised)) => message == raised,
            (Err(_), None, None) => true,
            // Python's generators are no JSON; here they are lists.
            (Ok(_), None, None)
                if expected["failed"]
                    .as_str()
                    .is_some_and(|e| e.contains("generator")) =>
            {
                true
            }
            _ => false,
        };
        if same {
            equal += 1;
        } else {
            let (expected, got) = match (&got, expected["text"].as_str()) {
                (Ok(got), Some(text)) => {
                    let at = got
                        .bytes()
                        .zip(text.bytes())
                        .take_while(|(a, b)| a == b)
                        .count();
                    let show = |s: &str| {
                        let from = (0..=at.saturating_sub(60))
                            .rev()
                            .find(|&i| s.is_char_boundary(i));
                        s[from.unwrap_or(0)..].chars().take(160).collect::<String>()
                    };
                    (show(text), format!("Ok({:?})", show(got)))
                }
                _ => (expected.to_string(), format!("{got:?}")),
            };
            let cut = |s: String| s.chars().take(400).collect::<String>();
            wrong.push(format!(
                "{name} / {input}\n  expected {:?}\n  got      {}",
                cut(expected),
                cut(got)
            ));
        }
    }
    (equal, wrong)
}

#[test]
fn kept_templates() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/templates");
    let golden: Value =
        serde_json::from_slice(&std::fs::read(dir.join("golden.json")).unwrap()).unwrap();
    let (mut equal, mut wrong) = (0, Vec::new());
    for (name, entry) in golden["templates"].as_object().unwrap() {
        let source = std::fs::read_to_string(dir.join(format!("{name}.jinja"))).unwrap();
        let (n, differences) = check(name, &source, &entry["results"], &golden);
        equal += n;
        wrong.extend(differences);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(equal > 50);
}

#[test]
fn published_templates() {
    let what = "a golden file of make_template_goldens.py with other templates";
    let Some(file) = common::folder("FIRELIGHT_TEMPLATE_GOLDENS", what) else {
        return;
    };
    let golden: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let (mut whole, mut equal, mut wrong) = (0, 0, Vec::new());
    let templates = golden["templates"].as_object().unwrap();
    for (name, entry) in templates {
        let source = entry["source"].as_str().unwrap();
        let (n, differences) = check(name, source, &entry["results"], &golden);
        equal += n;
        whole += usize::from(differences.is_empty());
        wrong.extend(differences.into_iter().take(3));
    }
    eprintln!(
        "{whole} of {} templates equal in all their renderings, {equal} renderings",
        templates.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a template writes for a call of a tool is read back as that call.
#[test]
fn calls_of_published_templates() {
    let what = "a golden file of make_template_goldens.py with other templates";
    let Some(file) = common::folder("FIRELIGHT_TEMPLATE_GOLDENS", what) else {
        return;
    };
    let golden: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let tools = serde_json::json!([{"type": "function", "function": {"name": "get_weather", "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}}]);
    let arguments = serde_json::json!({"city": "São \"Paulo\", 7", "days": 3});
    let call = serde_json::json!({"role": "assistant", "content": "", "tool_calls": [
        {"id": "abc123def", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}]});
    let user = Message::user("What is the weather?");
    let both = [user.clone(), serde_json::from_value(call).unwrap()];
    let mut read = Vec::new();
    let mut not = Vec::new();
    for (name, entry) in golden["templates"].as_object().unwrap() {
        let template = ChatTemplate::new(entry["source"].as_str().unwrap()).unwrap();
        let render = |messages: &[Message], add_generation_prompt: bool| {
            template.render(&ChatInput {
                messages,
                add_generation_prompt,
                tools: Some(tools.clone()),
                bos_token: Some("<s>".into()),
                eos_token: Some("</s>".into()),
                ..ChatInput::default()
            })
        };
        let (Ok(before), Ok(after)) = (render(&both[..1], true), render(&both, false)) else {
            continue;
        };
        let same = before
            .char_indices()
            .zip(after.chars())
            .take_while(|((_, a), b)| a == b)
            .map(|((at, a), _)| at + a.len_utf8())
            .last();
        // Without what ends the turn, as a model's answer comes.
        let mut said = after
            .get(same.unwrap_or(0)..)
            .unwrap_or_default()
            .to_owned();
        for end in ["<|eot_id|>", "<|eom_id|>", "</s>", "<|im_end|>"] {
            said = said.replace(end, "");
        }
        let (_, calls) = tool_calls(&said, Some(&tools));
        let right = calls.len() == 1
            && calls[0].name == "get_weather"
            && Value::Object(calls[0].arguments.clone()) == arguments;
        if right {
            read.push(name.as_str());
        } else {
            not.push(format!(
                "{name}: {:?}",
                said.chars().take(150).collect::<String>()
            ));
        }
    }
    eprintln!("calls read back: {}: {}", read.len(), read.join(", "));
    eprintln!("not: {}\n{}", not.len(), not.join("\n"));
    assert!(read.len() >= 20);
}
