//! `transcribe`, `listen`, `scribe` and `features` with the tiny models, which invent what they hear: what is tested is everything
//! around them.

use crate::common::{arg, fixture, run, run_with_input};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A WAV file: format tag, channels, rate, bits, bytes of the samples.
fn wav(tag: u16, channels: u16, rate: u32, bits: u16, body: &[u8]) -> Vec<u8> {
    let align = channels * (bits / 8);
    let fields = [
        &b"RIFF"[..],
        &(36 + body.len() as u32).to_le_bytes(),
        b"WAVEfmt ",
        &16u32.to_le_bytes(),
        &tag.to_le_bytes(),
        &channels.to_le_bytes(),
        &rate.to_le_bytes(),
        &(rate * u32::from(align)).to_le_bytes(),
        &align.to_le_bytes(),
        &bits.to_le_bytes(),
        b"data",
        &(body.len() as u32).to_le_bytes(),
        body,
    ];
    fields.concat()
}

/// 16 bits mono at 16 kHz.
fn mono(samples: impl IntoIterator<Item = i16>) -> Vec<u8> {
    let body: Vec<u8> = samples.into_iter().flat_map(i16::to_le_bytes).collect();
    wav(1, 1, 16_000, 16, &body)
}

/// Something loud.
fn loud(samples: usize) -> impl Iterator<Item = i16> {
    (0..samples).map(|i| (((i * i) % 251) as i16 - 125) * 100)
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).expect("written");
    path
}

/// `transcribe` as JSON with the tiny Whisper.
fn transcript(file: &Path) -> Value {
    let model = fixture("whisper");
    let args = ["transcribe", arg(file), "--model", arg(&model)];
    let more = ["--device", "cpu", "--format", "json", "--temperature", "0"];
    let ran = run(&[&args[..], &more].concat()).ended(0);
    serde_json::from_str(&ran.out).expect("JSON")
}

#[test]
fn recordings_of_every_kind() {
    let dir = tempfile::tempdir().expect("a folder");
    let heard = transcript(&fixture("whisper").join("input.wav"));
    assert!((heard["duration"].as_f64().expect("a length") - 0.7).abs() < 1e-6);
    let segments = heard["segments"].as_array().expect("segments");
    assert!(!segments.is_empty());
    for s in segments {
        let time = |key: &str| s[key].as_f64().expect("a time");
        assert!(
            0.0 <= time("start") && time("start") < time("end") && time("end") <= 0.71,
            "{s}"
        );
    }
    // Silence, and what is shorter than a frame, say nothing.
    for (name, n) in [
        ("silence.wav", 40_000),
        ("short.wav", 100),
        ("empty.wav", 0),
    ] {
        let file = put(dir.path(), name, &mono(vec![0; n]));
        let heard = transcript(&file);
        assert_eq!(heard["segments"], Value::Array(Vec::new()), "{name}");
        assert!((heard["duration"].as_f64().expect("a length") - n as f64 / 16e3).abs() < 1e-3);
    }
    // 10 ms, the shortest that is decoded.
    transcript(&put(dir.path(), "frame.wav", &mono(loud(160))));
    // µ-law at 8 kHz; seven channels.
    let bytes: Vec<u8> = (0..8000u32).map(|i| (i * 7 % 256) as u8).collect();
    let heard = transcript(&put(dir.path(), "ulaw.wav", &wav(7, 1, 8000, 8, &bytes)));
    assert!((heard["duration"].as_f64().expect("a length") - 1.0).abs() < 1e-3);
    let body: Vec<u8> = loud(7 * 8000).flat_map(i16::to_le_bytes).collect();
    let heard = transcript(&put(dir.path(), "seven.wav", &wav(1, 7, 16_000, 16, &body)));
    assert!((heard["duration"].as_f64().expect("a length") - 0.5).abs() < 1e-3);
}

#[test]
fn damaged_recordings_are_errors_that_say_why() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = fixture("whisper");
    let numbers = [0.1f32, f32::NAN, 0.2].into_iter().cycle().take(3000);
    let nan: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
    let whole = mono(loud(16_000));
    // An MP3 frame's head, and nothing of a frame.
    let mp3 = [&[0xff, 0xfb, 0x90, 0x00][..], &[0; 60]].concat();
    let files = [
        ("nan.wav", wav(3, 1, 16_000, 32, &nan), "sample 1 is NaN"),
        ("cut.wav", whole[..9000].to_vec(), "truncated"),
        ("cut.mp3", mp3, ""),
        (
            "text.txt",
            b"This is no sound at all, but a text.".to_vec(),
            "no audio file",
        ),
        ("nothing.wav", Vec::new(), "empty"),
    ];
    for (name, bytes, why) in files {
        let file = put(dir.path(), name, &bytes);
        let args = [
            "transcribe",
            arg(&file),
            "--model",
            arg(&model),
            "--device",
            "cpu",
        ];
        let ran = run(&args);
        assert!(ran.code == Some(1), "{name}: {:?} {}", ran.code, ran.err);
        assert!(
            ran.err.contains(why) && ran.err.contains(name),
            "{name}: {}",
            ran.err
        );
        assert!(ran.out.is_empty(), "{name}: {}", ran.out);
    }
    // What is there of a file that lies about its length.
    let file = put(dir.path(), "cut.wav", &whole[..9000]);
    let args = [
        "transcribe",
        arg(&file),
        "--model",
        arg(&model),
        "--device",
        "cpu",
    ];
    run(&[&args[..], &["--truncated"]].concat()).ended(0);
    run(&["transcribe", "no such file", "--model", arg(&model)]).ended(1);
    // A model that does not hear.
    let llama = fixture("llama");
    let ran = run(&[
        "transcribe",
        arg(&file),
        "--model",
        arg(&llama),
        "--device",
        "cpu",
    ])
    .ended(1);
    assert!(ran.err.contains("whisper"), "{}", ran.err);
}

#[test]
fn an_english_model_is_told_no_other_language() {
    let dir = tempfile::tempdir().expect("a folder");
    for file in std::fs::read_dir(fixture("whisper")).expect("a model") {
        let from = file.expect("a file").path();
        std::fs::copy(&from, dir.path().join(from.file_name().expect("a name"))).expect("copied");
    }
    let mut rules: Value = serde_json::from_slice(
        &std::fs::read(dir.path().join("generation_config.json")).expect("read"),
    )
    .expect("JSON");
    rules["is_multilingual"] = false.into();
    put(
        dir.path(),
        "generation_config.json",
        rules.to_string().as_bytes(),
    );
    let (english, file) = (arg(dir.path()), dir.path().join("input.wav"));
    let with = |command, more: &[&str]| {
        let args = [command, arg(&file), "--device", "cpu"];
        run(&[&args[..], more].concat())
    };
    let transcribe = ["--model", english];
    let scribe = ["--speech-model", english];
    let live = ["--model", english, "--no-wait"];
    let german = ["--language", "DE"];
    let tried = [
        ("transcribe", &transcribe[..], &german[..]),
        ("transcribe", &transcribe, &["--task", "translate"]),
        ("listen", &live, &german),
        ("scribe", &scribe, &german),
    ];
    for (command, model, more) in tried {
        let ran = with(command, &[model, more].concat()).ended(1);
        assert!(
            ran.err.contains("knows English only") && ran.err.contains("whisper-base"),
            "{command}: {}",
            ran.err
        );
        assert!(ran.out.is_empty(), "{command}: {}", ran.out);
    }
    for (command, model) in [("transcribe", &transcribe[..]), ("listen", &live)] {
        with(command, &[model, &["--language", "EN"]].concat()).ended(0);
    }
}

#[test]
fn several_files_are_taken_up_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, out) = (fixture("whisper"), dir.path().join("out"));
    let a = put(dir.path(), "a.wav", &mono(loud(9000)));
    let b = put(dir.path(), "b.wav", &mono(loud(20_000)));
    let args = [
        "transcribe",
        arg(&a),
        arg(&b),
        "--model",
        arg(&model),
        "--device",
        "cpu",
    ];
    let more = ["--format", "srt", "--temperature", "0", "--out", arg(&out)];
    let args = [&args[..], &more].concat();
    run(&args).ended(0);
    let read = |name: &str| std::fs::read_to_string(out.join(name)).expect(name);
    assert!(read("a.wav.srt").contains(" --> ") && read("b.wav.srt").starts_with("1\n"));
    // What is there stays as it is; what is gone is made again.
    std::fs::write(out.join("a.wav.srt"), "mine").expect("written");
    std::fs::remove_file(out.join("b.wav.srt")).expect("removed");
    run(&args).ended(0);
    assert!(read("a.wav.srt") == "mine" && read("b.wav.srt").starts_with("1\n"));
    run(&[&args[..], &["--force"]].concat()).ended(0);
    assert_ne!(read("a.wav.srt"), "mine");
}

#[test]
fn features_are_the_same_bytes_piece_by_piece() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = fixture("moonshine").join("input.wav");
    let whisper = fixture("whisper");
    let (whole, pieces) = (dir.path().join("whole"), dir.path().join("pieces"));
    let fronts = [
        ["--preset", "whisper80"],
        ["--preset", "whisper128"],
        ["--preset", "gemma4"],
        ["--preset", "kaldi80"],
        ["--processor", arg(&whisper)],
    ];
    for front in fronts {
        let args = [&["features", arg(&file)][..], &front].concat();
        let first = run(&[&args[..], &["--out", arg(&whole)]].concat()).ended(0);
        assert!(first.out.starts_with("input_features ["), "{}", first.out);
        run(&[&args[..], &["--out", arg(&pieces), "--stream-chunk", "37"]].concat()).ended(0);
        let read = |path: &Path| std::fs::read(path).expect("written");
        assert_eq!(read(&whole), read(&pieces), "{front:?}");
    }
    run(&["features", arg(&file), "--out", arg(&whole)]).ended(2);
}

#[test]
fn a_recording_is_listened_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = fixture("moonshine");
    let quiet = std::iter::repeat_n(0, 16_000);
    let sound = quiet.clone().chain(loud(24_000)).chain(quiet.clone());
    let file = mono(sound.chain(loud(8000)).chain(quiet));
    let args = [
        "listen",
        "-",
        "--no-wait",
        "--json",
        "--model",
        arg(&model),
        "--device",
        "cpu",
    ];
    let told = run_with_input(&args, &file).ended(0).json();
    let of = |kind: &str| {
        told.iter()
            .filter(|e| e["event"] == kind)
            .collect::<Vec<_>>()
    };
    assert_eq!((of("start").len(), of("final").len()), (2, 2), "{told:?}");
    assert!(!of("partial").is_empty(), "{told:?}");
    let (start, end) = (&of("final")[0]["start"], &of("final")[0]["end"]);
    assert!((start.as_f64().expect("s") - 0.7).abs() < 0.1, "{start}");
    assert!((end.as_f64().expect("s") - 2.5).abs() < 0.1, "{end}");
    // Bare samples as they come are the same.
    let came = run_with_input(&[&args[..], &["--raw", "16000"]].concat(), &file[44..])
        .ended(0)
        .json();
    let of_all = |told: &[serde_json::Value]| -> Vec<_> {
        let what =
            |e: &serde_json::Value| ["event", "text", "start", "at", "end"].map(|k| e[k].clone());
        told.iter().map(what).collect()
    };
    assert_eq!(of_all(&came), of_all(&told));
    let ran = run(&["listen", "x.wav", "--raw", "16000", "--model", arg(&model)]).ended(2);
    assert!(ran.err.contains("--raw"), "{}", ran.err);
    // Nothing is heard in silence.
    let told = run_with_input(&args, &mono(vec![0; 48_000]))
        .ended(0)
        .json();
    assert!(
        told.iter()
            .all(|e| e["event"] != "final" && e["event"] != "start"),
        "{told:?}"
    );
    let bad = put(
        dir.path(),
        "commands.json",
        br#"[{"phrase":"(a","action":1}]"#,
    );
    let ran = run(&[&args[..], &["--commands", arg(&bad)]].concat()).ended(1);
    assert!(ran.err.contains("phrase"), "{}", ran.err);
}

#[test]
fn a_dictation_becomes_a_note_under_the_schema() {
    let dir = tempfile::tempdir().expect("a folder");
    let (speech, llama) = (fixture("whisper"), fixture("llama"));
    let schema = br#"{"type":"object","properties":{"kind":{"enum":["visit","call"]},"urgent":{"type":"boolean"}},
        "required":["kind","urgent"],"additionalProperties":false}"#;
    let schema = put(dir.path(), "note.json", schema);
    let file = put(dir.path(), "loud.wav", &mono(loud(48_000)));
    let args = [
        "scribe",
        arg(&file),
        "--speech-model",
        arg(&speech),
        "--model",
        arg(&llama),
    ];
    let args = [&args[..], &["--device", "cpu", "--schema", arg(&schema)]].concat();
    let ran = run(&args).ended(0);
    let note: Value = serde_json::from_str(&ran.out).expect("JSON");
    let kind = note["note"]["kind"].as_str().expect("a kind");
    assert!(["visit", "call"].contains(&kind) && note["note"]["urgent"].is_boolean());
    assert!(
        !note["transcript"]["segments"]
            .as_array()
            .expect("segments")
            .is_empty()
    );
    assert!(note["sources"].is_array());
    // Nothing said: nothing to make a note of.
    let silence = put(dir.path(), "silence.wav", &mono(vec![0; 16_000]));
    let args = args
        .iter()
        .map(|a| if *a == arg(&file) { arg(&silence) } else { a });
    let ran = run(&args.collect::<Vec<_>>()).ended(1);
    assert!(ran.err.contains("nothing was said"), "{}", ran.err);
}
