//! Equality with the reference (`tokenizers` 0.23.3 from Python) on small tokenizers of every kind, and streaming
//! equal to decoding. `make_tokenizer_goldens.py` makes the files; `FIRELIGHT_TOKENIZER_GOLDENS` names a folder
//! with more of them (another seed, more samples).

mod common;

use std::path::Path;

use firelight_text::Tokenizer;
use serde_json::Value;

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

fn stream(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut stream = tokenizer.stream(skip_special);
    let mut text = String::new();
    for &id in ids {
        let piece = stream.push(id);
        assert_ne!(piece.as_deref(), Some(""), "an empty piece is None");
        text.extend(piece);
    }
    text + &stream.finish()
}

/// Compares everything; returns how much that was and what differs.
fn check(dir: &Path, name: &str) -> (usize, Vec<String>) {
    let tokenizer = Tokenizer::from_json(&std::fs::read(dir.join(format!("{name}.json"))).unwrap())
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let golden = std::fs::read(dir.join(format!("{name}.golden.json"))).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let (mut n, mut wrong) = (0, Vec::new());
    let mut same = |what: &str, input: &dyn std::fmt::Debug, got: String, expected: String| {
        n += 1;
        if got != expected {
            wrong.push(format!(
                "{name}: {what} {input:?}\n  expected {expected}\n  got      {got}"
            ));
        }
    };
    let encode = |got: firelight_text::Result<Vec<u32>>| match got {
        Ok(ids) => format!("{ids:?}"),
        Err(e) => e.to_string(),
    };
    for sample in golden["encode"].as_array().unwrap() {
        let text = sample[0].as_str().unwrap();
        let expected = |at: usize| format!("{:?}", ids(&sample[at]));
        same(
            "encode",
            &text,
            encode(tokenizer.encode(text, true)),
            expected(1),
        );
        same(
            "encode without special",
            &text,
            encode(tokenizer.encode(text, false)),
            expected(2),
        );
    }
    for sample in golden["plain"].as_array().unwrap() {
        let text = sample[0].as_str().unwrap();
        let expected = format!("{:?}", ids(&sample[1]));
        same(
            "plain",
            &text,
            encode(tokenizer.encode_plain(text, false)),
            expected,
        );
    }
    for sample in golden["decode"].as_array().unwrap() {
        let ids = ids(&sample[0]);
        for (skip, at) in [(false, 1), (true, 2)] {
            let expected = sample[at].as_str().unwrap();
            same(
                "decode",
                &ids,
                tokenizer.decode(&ids, skip),
                expected.to_owned(),
            );
            same(
                "stream",
                &ids,
                stream(&tokenizer, &ids, skip),
                expected.to_owned(),
            );
        }
    }
    (n, wrong)
}

fn check_all(dir: &Path) -> usize {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".golden.json").map(str::to_owned))
        .collect();
    names.sort();
    let (mut total, mut wrong) = (0, Vec::new());
    for name in &names {
        let (n, differences) = check(dir, name);
        eprintln!("{name}: {} of {n}", n - differences.len());
        total += n;
        wrong.extend(differences.into_iter().take(6));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(total > 0);
    total
}

#[test]
fn kept_goldens() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers");
    assert!(check_all(&dir) > 3000);
}

#[test]
fn more_goldens() {
    let what = "a folder made by make_tokenizer_goldens.py with another seed or more samples";
    if let Some(dir) = common::folder("FIRELIGHT_TOKENIZER_GOLDENS", what) {
        check_all(&dir);
    }
}
