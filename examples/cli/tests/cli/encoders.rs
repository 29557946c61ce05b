//! `firelight embed`, `similar`, `classify`, `rerank`, `ner` on the tiny checkpoints.

use crate::common::{arg, fixture, run, run_with_input};

fn cpu<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &["--device", "cpu"]].concat()
}

#[test]
fn embed_writes_json_and_npy() {
    let model = fixture("bert");
    let dir = tempfile::tempdir().unwrap();
    let lines = dir.path().join("lines.txt");
    std::fs::write(&lines, "the fox\n\nthe river\n").unwrap();
    let npy = dir.path().join("out.npy");
    let args = cpu(&[
        "embed",
        "one text",
        "--model",
        arg(&model),
        "--lines",
        arg(&lines),
        "--json",
        "--out",
        arg(&npy),
    ]);
    let json = run(&args).ended(0).last();
    assert_eq!(
        (json["dims"].as_u64(), json["max_tokens"].as_u64()),
        (Some(40), Some(48))
    );
    let rows = json["embeddings"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert!(rows[2]["origin"].as_str().unwrap().ends_with("lines.txt:3"));
    let vector: Vec<f64> = rows[0]["vector"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|v| v.as_f64())
        .collect();
    assert!((vector.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-4);
    let file = std::fs::read(&npy).unwrap();
    assert!(
        file.starts_with(b"\x93NUMPY") && String::from_utf8_lossy(&file[..80]).contains("(3, 40)")
    );
    let first = f32::from_le_bytes(file[file.len() - 3 * 40 * 4..][..4].try_into().unwrap());
    assert!((f64::from(first) - vector[0]).abs() < 1e-6);
    // Lines of standard input, when nothing else is named.
    let piped = run_with_input(
        &cpu(&["embed", "--model", arg(&model), "--json"]),
        b"a\nb\n",
    )
    .ended(0);
    assert_eq!(piped.last()["embeddings"].as_array().unwrap().len(), 2);
    let shown = run(&cpu(&["embed", "hello", "--model", arg(&model)])).ended(0);
    assert!(
        shown.out.contains("40 numbers") && shown.err.contains("--json"),
        "{}",
        shown.err
    );
}

#[test]
fn what_is_cut_is_said() {
    let model = fixture("bert");
    let long = "the quick brown fox ".repeat(30);
    let ran = run(&cpu(&["embed", &long, "--model", arg(&model)])).ended(0);
    assert!(
        ran.err.contains("longer than 48 tokens and were cut"),
        "{}",
        ran.err
    );
    let args = [
        "embed",
        &long,
        "--model",
        arg(&model),
        "--long",
        "chunks",
        "--overlap",
        "4",
        "--json",
    ];
    let chunks = run(&cpu(&args)).ended(0).last();
    let rows = chunks["embeddings"].as_array().unwrap();
    assert!(rows.len() > 2 && rows.iter().all(|r| r["truncated"] == 0 && r["text"] == 0));
    let refused = run(&cpu(&[
        "embed",
        &long,
        "--model",
        arg(&model),
        "--long",
        "refuse",
    ]))
    .ended(1);
    assert!(refused.err.contains("at most 48"), "{}", refused.err);
}

#[test]
fn the_closest_texts_come_first() {
    let model = fixture("bert");
    let args = [
        "similar",
        "the lazy dog",
        "Marie Curie",
        "the lazy dog",
        "3.14",
        "--model",
        arg(&model),
        "-k",
        "2",
        "--json",
    ];
    let json = run(&cpu(&args)).ended(0).last();
    let matches = json["matches"].as_array().unwrap();
    assert_eq!(matches.len(), 2);
    assert_eq!(
        (&matches[0]["text"], &matches[0]["index"]),
        (&"the lazy dog".into(), &1.into())
    );
    assert!(matches[0]["similarity"].as_f64() > Some(0.999));
    assert!(matches[0]["similarity"].as_f64() > matches[1]["similarity"].as_f64());
}

#[test]
fn classify_rerank_and_ner_answer_and_say_what_they_need() {
    let (head, embeds) = (fixture("distilbert"), fixture("bert"));
    let json = run(&cpu(&[
        "classify",
        "the fox",
        "--model",
        arg(&head),
        "--json",
    ]))
    .ended(0)
    .last();
    let labels = json["results"][0]["labels"].as_array().unwrap();
    let sum: f64 = labels.iter().filter_map(|l| l["score"].as_f64()).sum();
    assert!(labels.len() == 2 && (sum - 1.0).abs() < 1e-5);
    let args = [
        "classify",
        "the fox",
        "--labels",
        "the fox,Paris",
        "--model",
        arg(&embeds),
        "--json",
    ];
    let json = run(&cpu(&args)).ended(0).last();
    assert_eq!(json["results"][0]["labels"][0]["label"], "the fox");
    let needs = run(&cpu(&["classify", "the fox"])).ended(2);
    assert!(needs.err.contains("--labels"), "{}", needs.err);
    let needs = run(&cpu(&["classify", "the fox", "--model", arg(&embeds)])).ended(1);
    assert!(
        needs.err.contains("no head for whole texts"),
        "{}",
        needs.err
    );

    let rank = fixture("bert_rank");
    let args = [
        "rerank",
        "Who lived in London?",
        "the fox",
        "Ada Lovelace",
        "--model",
        arg(&rank),
        "--json",
    ];
    let json = run(&cpu(&args)).ended(0).last();
    let ranking = json["ranking"].as_array().unwrap();
    assert!(ranking.len() == 2 && ranking[0]["score"].as_f64() > ranking[1]["score"].as_f64());

    let tagger = fixture("bert_ner");
    let args = [
        "ner",
        "Ada Lovelace met Charles Babbage in London.",
        "--model",
        arg(&tagger),
        "--json",
    ];
    let json = run(&cpu(&args)).ended(0).last();
    let entities = json["results"][0]["entities"].as_array().unwrap();
    let golden = std::fs::read(tagger.join("golden.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let expected = &golden["cases"]["people"]["entities"][0][0];
    assert_eq!(entities[0]["label"], expected["label"]);
    assert_eq!(entities[0]["chars"]["start"], expected["start"]);
    assert_eq!(entities[0]["chars"]["end"], expected["end"]);
    let needs = run(&cpu(&["ner", "x", "--model", arg(&embeds)])).ended(1);
    assert!(needs.err.contains("no head for tokens"), "{}", needs.err);
}

#[test]
fn wrong_use_is_told() {
    let model = fixture("bert");
    let wrong: [&[&str]; 4] = [
        &["embed", "x", "--model", arg(&model), "--overlap", "3"],
        &["embed", "x", "--model", arg(&model), "--out", "vectors.txt"],
        &["embed", "x", "--model", arg(&model), "--pooling", "median"],
        &["rerank", "question", "passage"],
    ];
    for args in wrong {
        run(&cpu(args)).ended(2);
    }
    let missing = run(&cpu(&[
        "embed",
        "--lines",
        "no-such-file",
        "--model",
        arg(&model),
    ]))
    .ended(1);
    assert!(missing.err.contains("no-such-file"), "{}", missing.err);
    let chat = run(&cpu(&["chat", "hello", "--model", arg(&model)])).ended(1);
    assert!(chat.err.contains("encoder"), "{}", chat.err);
    for command in ["embed", "similar", "classify", "rerank", "ner"] {
        let help = run(&[command, "--help"]).ended(0);
        assert!(help.out.contains("Examples:"), "{command}");
    }
}
