//! Pictures on the command line, with the model that is in the program.

use crate::common::{arg, numbers, run};
use std::path::{Path, PathBuf};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../assets/spark/samples")
        .join(name)
}

#[test]
fn a_bare_machine_describes_pictures() {
    let (two, one) = (sample("shape-two.png"), sample("shape-one.png"));
    let ran = run(&["describe", arg(&two), arg(&one), "--device", "cpu"]).ended(0);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.out);
    assert!(
        lines[0].contains("orange cross") && lines[0].contains("red heart"),
        "{}",
        ran.out
    );
    assert!(
        lines[1].ends_with(": A large purple ring at the top right."),
        "{}",
        ran.out
    );
    assert!(
        ran.err.contains("drawn shapes"),
        "what it cannot do is told: {}",
        ran.err
    );
}

#[test]
fn samples_give_the_reference_tokens_through_describe() {
    let text = std::fs::read(sample("samples.json")).expect("the list");
    let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let all = json["samples"].as_array().expect("samples");
    let mut seen = 0;
    // One run per question: pictures together, as describe takes them.
    let mut questions: Vec<&str> = all.iter().filter_map(|s| s["question"].as_str()).collect();
    questions.sort_unstable();
    questions.dedup();
    for question in questions {
        let own: Vec<_> = all.iter().filter(|s| s["question"] == question).collect();
        let files: Vec<PathBuf> = own
            .iter()
            .map(|s| sample(s["file"].as_str().expect("a file")))
            .collect();
        let mut args = vec![
            "describe",
            "--json",
            "--device",
            "cpu",
            "--question",
            question,
        ];
        args.extend(files.iter().map(|f| arg(f)));
        let ran = run(&args).ended(0);
        let lines = ran.json();
        assert_eq!(lines.len(), own.len(), "{}", ran.out);
        let answers = lines
            .iter()
            .filter(|l| l["path"].is_string() && l["ids"].is_array());
        for (sample, line) in own.iter().zip(answers) {
            let mut expected = numbers(&sample["greedy_ids"]);
            expected.pop();
            assert_eq!(numbers(&line["ids"]), expected, "{line}");
            seen += 1;
        }
    }
    assert_eq!(seen, all.len());
}

#[test]
fn chat_takes_a_picture() {
    let two = sample("shape-two.png");
    let ran = run(&[
        "chat",
        "--image",
        arg(&two),
        "--greedy",
        "--device",
        "cpu",
        "--json",
        "Describe what you see.",
    ])
    .ended(0);
    let done = ran.last();
    assert_eq!(done["encoded"], 1);
    assert!(
        done["text"]
            .as_str()
            .is_some_and(|t| t.contains("red heart")),
        "{done}"
    );
}

#[test]
fn what_is_no_picture_is_told_and_the_others_are_described() {
    let dir = tempfile::tempdir().expect("a folder");
    let (broken, empty) = (dir.path().join("broken.png"), dir.path().join("empty.jpg"));
    std::fs::write(&broken, b"\x89PNG\r\n\x1a\nnot really").expect("written");
    std::fs::write(&empty, b"").expect("written");
    let good = sample("shape-one.png");
    let args = [
        "describe",
        arg(&broken),
        arg(&empty),
        arg(&good),
        "--device",
        "cpu",
    ];
    let ran = run(&args).ended(1);
    assert!(
        ran.out.contains("purple ring") && ran.out.lines().count() == 1,
        "{}",
        ran.out
    );
    assert!(
        ran.err.contains("broken.png") && ran.err.contains("empty.jpg"),
        "{}",
        ran.err
    );
    run(&["chat", "--image", arg(&dir.path().join("none.png")), "?"]).ended(1);
    assert!(
        run(&["describe", arg(dir.path()), "--device", "cpu"])
            .ended(1)
            .err
            .contains("broken.png")
    );
}
