//! `firelight chat` with a tiny model: the stream of events, reproducibility, standard input, interruptions.

use crate::common::{arg, firelight, fixture, ids, numbers, run, run_with_input};
use serde_json::Value;

const PROMPT: &str = "What is in this picture?";

fn args<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["chat", "--device", "cpu", "-m", model][..], more].concat()
}

#[test]
fn the_stream_is_well_formed() {
    let model = fixture("llama");
    let more = [PROMPT, "--json", "--temperature", "0", "--max-tokens", "8"];
    let ran = run(&args(arg(&model), &more)).ended(0);
    assert!(ran.err.is_empty(), "{}", ran.err);
    let events = ran.json();
    let kind = |v: &Value| v["type"].as_str().unwrap().to_owned();
    assert!(
        events
            .iter()
            .all(|e| ["load", "progress", "text", "done"].contains(&kind(e).as_str()))
    );
    assert_eq!(events.iter().filter(|e| kind(e) == "load").count(), 1);
    let done = events.last().unwrap();
    let keys: Vec<&str> = done
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut expected = vec![
        "type",
        "prompt_ids",
        "encoded",
        "drafted",
        "drafts_right",
        "ids",
        "text",
        "device",
        "rung",
        "ttft_ms",
        "prefill_tps",
        "decode_tps",
        "finish",
        "seed",
    ];
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(sorted, expected);
    let text: String = events
        .iter()
        .filter(|e| kind(e) == "text")
        .map(|e| e["text"].as_str().unwrap())
        .collect();
    assert_eq!(done["text"], text.as_str());
    assert!(
        (1..=8).contains(&done["ids"].as_array().unwrap().len()),
        "{done}"
    );
    assert!(["cpu", "cpu-simd", "cpu-scalar"].contains(&done["rung"].as_str().unwrap()));
    assert!(done["ttft_ms"].as_f64() > Some(0.0) && done["prefill_tps"].as_f64() > Some(0.0));
}

#[test]
fn greedy_gives_the_reference_s_tokens() {
    let model = fixture("llama");
    let golden = model.join("golden.safetensors");
    let json: Value =
        serde_json::from_slice(&std::fs::read(model.join("golden.json")).unwrap()).unwrap();
    let prompt = json["cases"]["text"]["prompt"].as_str().unwrap();
    let greedy = ["--json", "--greedy", "--ignore-eos", "-n", "16"];
    let raw = run(&args(
        arg(&model),
        &[&["--raw", prompt][..], &greedy].concat(),
    ))
    .ended(0)
    .last();
    assert_eq!(numbers(&raw["prompt_ids"]), ids(&golden, "text.input_ids"));
    assert_eq!(numbers(&raw["ids"]), ids(&golden, "text.greedy_ids"));
    assert_eq!(raw["finish"], "max_tokens");
    let chat = ["--system", "You are a helpful model.", PROMPT];
    let chat = run(&args(arg(&model), &[&chat[..], &greedy].concat()))
        .ended(0)
        .last();
    assert_eq!(numbers(&chat["prompt_ids"]), ids(&golden, "chat.input_ids"));
    assert_eq!(numbers(&chat["ids"]), ids(&golden, "chat.greedy_ids"));
}

#[test]
fn the_answer_alone_is_on_standard_output() {
    let model = fixture("llama");
    let base = [PROMPT, "--temperature", "0", "--max-tokens", "8"];
    let plain = run(&args(arg(&model), &base)).ended(0);
    let json = run(&args(arg(&model), &[&base[..], &["--json"]].concat()))
        .ended(0)
        .last();
    assert_eq!(
        plain.out.trim_end_matches('\n'),
        json["text"].as_str().unwrap().trim_end_matches('\n')
    );
    assert!(
        plain.err.contains("tok/s") && plain.err.contains("(rung cpu"),
        "{}",
        plain.err
    );
    let quiet = run(&args(arg(&model), &[&base[..], &["--quiet"]].concat())).ended(0);
    assert_eq!((quiet.out, quiet.err.as_str()), (plain.out, ""));
}

#[test]
fn a_seed_makes_chance_repeatable() {
    let model = fixture("llama");
    let answer = |seed: &str| {
        let more = [
            PROMPT,
            "--json",
            "--temperature",
            "1.5",
            "--ignore-eos",
            "-n",
            "16",
            "--seed",
            seed,
        ];
        let done = run(&args(arg(&model), &more)).ended(0).last();
        assert_eq!(done["seed"].to_string(), seed);
        numbers(&done["ids"])
    };
    assert_eq!(
        answer("18446744073709551615"),
        answer("18446744073709551615")
    );
    assert_ne!(answer("1"), answer("2"));
}

#[test]
fn questions_come_from_standard_input_too() {
    let model = fixture("llama");
    let base = ["--json", "--greedy", "-n", "2"];
    let ids = |ran: crate::common::Ran| numbers(&ran.ended(0).last()["prompt_ids"]);
    let asked = ids(run(&args(arg(&model), &[&base[..], &[PROMPT]].concat())));
    assert_eq!(
        ids(run_with_input(
            &args(arg(&model), &base),
            format!("{PROMPT}\n").as_bytes()
        )),
        asked
    );
    assert_eq!(
        ids(run_with_input(
            &args(arg(&model), &[&base[..], &["-"]].concat()),
            PROMPT.as_bytes()
        )),
        asked
    );
    let both = ids(run_with_input(
        &args(arg(&model), &[&base[..], &["What is"]].concat()),
        b"in this picture?",
    ));
    let joined = ids(run(&args(
        arg(&model),
        &[&base[..], &["What is\n\nin this picture?"]].concat(),
    )));
    assert_eq!(both, joined);
    run(&args(arg(&model), &base)).ended(2);
    assert!(
        run_with_input(&args(arg(&model), &base), &[0xff, 0xfe])
            .ended(1)
            .err
            .contains("UTF-8")
    );
}

#[test]
fn answers_end_where_they_should() {
    let model = fixture("llama");
    let full = [PROMPT, "--json", "--greedy", "--ignore-eos", "-n", "16"];
    let done = run(&args(arg(&model), &full)).ended(0).last();
    let text = done["text"].as_str().unwrap();
    let stop: String = text.chars().skip(4).take(3).collect();
    let cut = run(&args(
        arg(&model),
        &[&full[..], &["--stop", &stop]].concat(),
    ))
    .ended(0)
    .last();
    assert_eq!(cut["finish"], "stop");
    assert_eq!(cut["text"], &text[..text.find(&stop).unwrap()]);
    let tokens = done["prompt_ids"].as_array().unwrap().len();
    let small = (tokens + 4).to_string();
    let cut = run(&args(
        arg(&model),
        &[&full[..], &["--ctx", &small]].concat(),
    ))
    .ended(0)
    .last();
    assert_eq!(cut["finish"], "context");
    let short = tokens.to_string();
    let none = run(&args(
        arg(&model),
        &[&full[..], &["--ctx", &short]].concat(),
    ))
    .ended(1);
    assert!(none.err.contains("tokens of the prompt"), "{}", none.err);
}

#[test]
fn a_base_model_says_how_it_is_used() {
    let model = fixture("llama2");
    let ran = run(&args(arg(&model), &["hi"])).ended(1);
    assert!(ran.err.contains("--raw"), "{}", ran.err);
    run(&args(arg(&model), &["--raw", "hi", "-n", "2"])).ended(0);
}

/// A model that would talk for minutes.
fn endless() -> tempfile::TempDir {
    let dir = crate::common::copy_of("llama");
    let config = dir.path().join("config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    json["max_position_embeddings"] = 200_000.into();
    std::fs::write(config, json.to_string()).unwrap();
    dir
}

const ENDLESS: [&str; 7] = [
    "--json",
    "--temperature",
    "1",
    "--ignore-eos",
    "-n",
    "150000",
    PROMPT,
];

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_answer_and_not_with_a_crash() {
    use std::io::{BufRead, BufReader, Read};
    let dir = endless();
    let mut child = firelight(&args(arg(dir.path()), &ENDLESS)).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"text\"") || !line.starts_with("{\"type\":\"text\"") {
        line.clear();
        assert!(
            out.read_line(&mut line).unwrap() > 0,
            "the stream ended early"
        );
    }
    let sent = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let last: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["type"], &last["finish"]),
        (&"done".into(), &"cancelled".into())
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_while_measuring_ends_the_program() {
    use std::io::{BufRead, BufReader};
    let dir = endless();
    let more = [
        "bench",
        "--device",
        "cpu",
        "-m",
        arg(dir.path()),
        "-n",
        "100000",
    ];
    let mut child = firelight(&more).spawn().unwrap();
    let mut line = String::new();
    // The note after loading.
    BufReader::new(child.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains(" on "), "{line}");
    std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_reader_who_leaves_is_no_error() {
    let dir = endless();
    let plain: Vec<&str> = ENDLESS.into_iter().filter(|a| *a != "--json").collect();
    for more in [&ENDLESS[..], &plain] {
        let mut child = firelight(&args(arg(dir.path()), more)).spawn().unwrap();
        drop(child.stdout.take());
        let ran: crate::common::Ran = child.wait_with_output().unwrap().into();
        let ran = ran.ended(0);
        assert!(
            !ran.err.contains("error") && !ran.err.contains("panic"),
            "{}",
            ran.err
        );
    }
}

#[test]
fn an_answer_keeps_its_law_or_the_error_says_why_not() {
    let model = fixture("llama");
    let base = [PROMPT, "--temperature", "1", "--seed", "3", "--quiet"];
    let with = |more: &[&str]| run(&args(arg(&model), &[&base[..], more].concat()));
    let chosen = with(&["--choices", "ja,nein,vielleicht"]).ended(0);
    assert!(
        ["ja", "nein", "vielleicht"].contains(&chosen.out.trim()),
        "{:?}",
        chosen.out
    );
    let matched = with(&["--regex", "[0-9]{3}-[a-f]{2}"]).ended(0);
    assert_eq!(matched.out.trim().len(), 6, "{:?}", matched.out);

    let dir = tempfile::tempdir().unwrap();
    let schema = dir.path().join("s.json");
    std::fs::write(
        &schema,
        r#"{"type":"object","properties":{"n":{"type":"integer","minimum":5,"maximum":7}},"required":["n"],"additionalProperties":false}"#,
    )
    .unwrap();
    let json = with(&["--schema", arg(&schema), "-n", "60"]).ended(0);
    let value: Value =
        serde_json::from_str(&json.out).unwrap_or_else(|e| panic!("{e}: {}", json.out));
    assert!((5..=7).contains(&value["n"].as_i64().unwrap()), "{value}");

    let short = with(&["--schema", arg(&schema), "-n", "2"]).ended(1);
    assert!(short.err.contains("max_tokens 2"), "{}", short.err);
    std::fs::write(&schema, "{").unwrap();
    let broken = with(&["--schema", arg(&schema)]).ended(2);
    assert!(broken.err.contains("no JSON"), "{}", broken.err);
    let both = with(&["--choices", "a", "--regex", "b"]).ended(2);
    assert!(both.err.contains("--choices"), "{}", both.err);
}

#[test]
fn what_was_read_is_kept_for_the_next_run() {
    let (model, folder) = (fixture("llama"), tempfile::tempdir().unwrap());
    let file = folder.path().join("read.cache");
    let more = [
        "--temperature",
        "0",
        "-n",
        "8",
        "--prompt-cache",
        arg(&file),
    ];
    let ask = |question: &'static str| run(&args(arg(&model), &[&[question][..], &more].concat()));
    let plain = run(&args(arg(&model), &[&[PROMPT][..], &more[..4]].concat())).ended(0);
    let first = ask(PROMPT).ended(0);
    assert!(first.err.contains("tokens kept in"), "{}", first.err);
    let second = ask(PROMPT).ended(0);
    assert!(
        second.err.contains("tokens were read before"),
        "{}",
        second.err
    );
    assert_eq!((&first.out, &second.out), (&plain.out, &plain.out));
    // A file of another model is read past and replaced, anybody else's file is left alone.
    let other = fixture("qwen2");
    let others = run(&args(arg(&other), &[&[PROMPT][..], &more].concat())).ended(0);
    assert!(
        others.err.contains("made with another model"),
        "{}",
        others.err
    );
    std::fs::write(&file, "a letter").unwrap();
    let refused = ask(PROMPT).ended(1);
    assert!(refused.err.contains("another name"), "{}", refused.err);
    assert_eq!(std::fs::read(&file).unwrap(), b"a letter");
}
