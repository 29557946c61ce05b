//! Equality with the reference implementation on checkpoints in the Hugging Face layout:
//! `golden.json` has tokenizer samples and rendered templates. A few are in `tests/data/oracle`;
//! `FIRELIGHT_ORACLE_DIR` names a folder with more.

mod common;

use std::path::Path;

use firelight_text::{ChatInput, ChatTemplate, Message, Tokenizer, TokenizerConfig};
use serde_json::Value;

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

/// Returns how many samples and renderings were compared.
fn check(dir: &Path) -> (usize, usize) {
    let name = dir.display();
    let golden: Value =
        serde_json::from_slice(&std::fs::read(dir.join("golden.json")).unwrap()).unwrap();
    let tokenizer = Tokenizer::from_json(&std::fs::read(dir.join("tokenizer.json")).unwrap())
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut config =
        TokenizerConfig::from_json(&std::fs::read(dir.join("tokenizer_config.json")).unwrap())
            .unwrap();
    if let Ok(source) = std::fs::read_to_string(dir.join("chat_template.jinja")) {
        config = config.with_template_file(source);
    }
    let tokenizer = tokenizer.with_config(&config);
    let cases = golden["cases"].as_object().unwrap();
    let (mut samples, mut rendered) = (0, 0);
    for sample in cases
        .get("tokenizer")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let text = sample["text"].as_str().unwrap();
        let expected = ids(&sample["ids"]);
        assert_eq!(
            tokenizer.encode(text, true).unwrap(),
            expected,
            "{name}: {text:?}"
        );
        let plain = ids(&sample["ids_no_special"]);
        assert_eq!(
            tokenizer.encode(text, false).unwrap(),
            plain,
            "{name}: {text:?}"
        );
        assert_eq!(
            tokenizer.decode(&expected, true),
            sample["decoded"].as_str().unwrap(),
            "{name}: {text:?}"
        );
        samples += 1;
    }
    for (case, golden) in cases {
        let (Some(messages), Some(expected)) =
            (golden.get("messages"), golden["rendered"].as_str())
        else {
            continue;
        };
        let source = config
            .chat_template(false)
            .unwrap_or_else(|| panic!("{name}: no chat template"));
        let messages: Vec<Message> = serde_json::from_value(messages.clone()).unwrap();
        let input = ChatInput {
            messages: &messages,
            add_generation_prompt: true,
            bos_token: config.bos_token.clone(),
            eos_token: config.eos_token.clone(),
            ..ChatInput::default()
        };
        let got = ChatTemplate::new(source).unwrap().render(&input).unwrap();
        assert_eq!(got, expected, "{name}: {case}");
        rendered += 1;
    }
    (samples, rendered)
}

fn check_all(dir: &Path) -> (usize, usize, usize) {
    let mut total = (0, 0, 0);
    let mut dirs: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    dirs.sort();
    for dir in dirs
        .iter()
        .filter(|dir| dir.join("tokenizer.json").exists())
    {
        let Ok((samples, rendered)) = std::panic::catch_unwind(|| check(dir)) else {
            continue;
        };
        total = (total.0 + 1, total.1 + samples, total.2 + rendered);
    }
    eprintln!(
        "{}: {} checkpoints, {} samples, {} renderings",
        dir.display(),
        total.0,
        total.1,
        total.2
    );
    total
}

#[test]
fn more_checkpoints() {
    if let Some(dir) = common::folder("FIRELIGHT_ORACLE_DIR", "a folder of reference checkpoints") {
        let (checkpoints, samples, _) = check_all(&dir);
        assert!(checkpoints > 0 && samples > 0);
    }
}
