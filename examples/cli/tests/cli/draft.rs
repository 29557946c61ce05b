//! `chat --draft`: the same answer in fewer steps; `bench --profile`: where its time goes.

use crate::common::{arg, fixture, run};

#[test]
fn an_answer_with_guesses_is_the_answer() {
    let model = fixture("llama");
    let base = [
        "chat",
        "--device",
        "cpu",
        "-m",
        arg(&model),
        "--raw",
        "--json",
        "--temperature",
        "0",
        "-n",
        "40",
        "--ignore-eos",
        "one two three one two three one two",
    ];
    let done = |more: &[&str]| run(&[&base[..], more].concat()).ended(0).last();
    let plain = done(&[]);
    assert_eq!(plain["drafted"], 0);
    // The model guesses for itself: all of it is right.
    let guessed = done(&["--draft", arg(&model)]);
    assert_eq!(guessed["ids"], plain["ids"]);
    assert_eq!(guessed["text"], plain["text"]);
    assert!(guessed["drafted"].as_u64() > Some(20), "{guessed}");
    assert_eq!(guessed["drafted"], guessed["drafts_right"]);
    let looked_up = done(&["--draft", "lookup"]);
    assert_eq!(looked_up["ids"], plain["ids"]);
}

#[test]
fn a_draft_model_of_another_family_is_refused() {
    let (model, other) = (fixture("llama"), fixture("gemma3_text"));
    let ran = run(&[
        "chat",
        "--device",
        "cpu",
        "-m",
        arg(&model),
        "--draft",
        arg(&other),
        "Hello",
    ]);
    let said = ran.ended(1).err;
    assert!(said.contains("another vocabulary"), "{said}");
}

#[test]
fn bench_says_where_the_time_goes() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, trace) = (fixture("llama"), dir.path().join("trace.json"));
    let base = [
        "bench",
        "--device",
        "cpu",
        "-m",
        arg(&model),
        "-p",
        "16",
        "-n",
        "4",
        "-r",
        "1",
        "--profile",
    ];
    let told = run(&[&base[..], &["--json", "--trace", arg(&trace)]].concat())
        .ended(0)
        .last();
    let steps = told["profile"]["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), 2, "{told}");
    let file = std::fs::read(&trace).expect("the trace was written");
    let file: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
    assert!(file["traceEvents"].as_array().is_some_and(|e| e.len() > 10));
    let table = run(&base).ended(0).out;
    assert!(
        table.contains("linear/cpu") && table.contains("of the nearer ceiling"),
        "{table}"
    );
}
