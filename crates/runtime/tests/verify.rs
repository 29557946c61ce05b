//! The reference checkpoints in `tests/data`: every case on every device there is, and what must be told apart.

mod support;

use firelight_runtime::pipelines::verify::{VerifyReport, verify};
use std::path::Path;
use support::{altered, cpu, pass_on_the_cpu, pass_on_the_gpu, passes};

const FAMILIES: [&str; 18] = [
    "llama",
    "llama2",
    "gemma3_text",
    "qwen2",
    "qwen3",
    "phi3",
    "phi3_longrope",
    "qwen3_5",
    "gpt2",
    "gemma4",
    "gemma4_large",
    "smolvlm",
    "qwen2_vl",
    "qwen3_5_vl",
    "gemma4_vl",
    "gemma4_large_vl",
    "whisper",
    "moonshine",
];

fn enough(report: &VerifyReport) {
    let n = report.checks.len();
    assert!(n > 10, "{}: only {n} comparisons", report.family);
}

#[test]
fn cpu_equals_the_reference_on_every_rung() {
    pass_on_the_cpu(&FAMILIES, enough);
}

#[test]
fn gpu_equals_the_reference_on_every_rung() {
    let test = "gpu_equals_the_reference_on_every_rung";
    pass_on_the_gpu(test, &FAMILIES, enough);
}

#[test]
fn the_newer_config_spelling_says_the_same() {
    for family in FAMILIES {
        let dir = altered(family, |dir| {
            let newer = dir.join("config.v5.json");
            if newer.exists() {
                std::fs::rename(newer, dir.join("config.json")).expect("renamed");
            }
        });
        passes(&cpu(), dir.path(), enough);
    }
}

#[test]
fn a_golden_with_one_number_changed_fails() {
    let dir = altered("llama", |dir| {
        let path = dir.join("golden.safetensors");
        let mut bytes = std::fs::read(&path).expect("goldens");
        // The last tensor is `text.step_logits`: its last number moves by a hundredth.
        let at = bytes.len() - 4;
        let last = f32::from_le_bytes(*bytes[at..].first_chunk().expect("four bytes"));
        bytes[at..].copy_from_slice(&(last + 0.01).to_le_bytes());
        std::fs::write(&path, bytes).expect("written");
    });
    let report = pollster::block_on(verify(&cpu(), dir.path(), &mut |_| ())).expect("runs");
    assert!(!report.passed());
    assert_eq!(report.checks.iter().filter(|c| !c.passed).count(), 1);
}

#[test]
fn a_wrong_constant_fails() {
    let dir = altered("gemma3_text", |dir| {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path).expect("config");
        std::fs::write(
            &path,
            text.replace("\"sliding_window\": 8", "\"sliding_window\": 9"),
        )
        .expect("written");
    });
    let report = pollster::block_on(verify(&cpu(), dir.path(), &mut |_| ())).expect("runs");
    assert!(!report.passed());
}

/// Loading what is broken names the fault and never panics.
#[test]
fn damaged_checkpoints_are_refused_with_their_fault() {
    let load = |dir: &Path| match pollster::block_on(cpu().load(dir, &mut |_, _| ())) {
        Ok(_) => panic!("loaded"),
        Err(e) => e.to_string(),
    };
    let edit = |from: &'static str, to: &'static str| {
        move |dir: &Path| {
            let path = dir.join("config.json");
            let text = std::fs::read_to_string(&path).expect("config");
            assert!(text.contains(from), "{from}");
            std::fs::write(&path, text.replace(from, to)).expect("written");
        }
    };
    type Change = Box<dyn FnOnce(&Path)>;
    let cases: Vec<(Change, &str)> = vec![
        (
            Box::new(edit(
                "\"model_type\": \"llama\"",
                "\"model_type\": \"mamba\"",
            )),
            "mamba",
        ),
        (
            Box::new(edit("\"hidden_size\": 64", "\"hidden_size\": 72")),
            "shape",
        ),
        (
            Box::new(edit("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4")),
            "is missing",
        ),
        (
            Box::new(edit(
                "\"num_hidden_layers\": 3",
                "\"num_hidden_layers\": -3",
            )),
            "positive integer",
        ),
        (
            Box::new(edit(
                "\"num_key_value_heads\": 2",
                "\"num_key_value_heads\": 3",
            )),
            "`num_key_value_heads` 3",
        ),
        (
            Box::new(|dir| std::fs::remove_file(dir.join("config.json")).expect("removed")),
            "config.json",
        ),
        (
            Box::new(|dir| std::fs::remove_file(dir.join("tokenizer.json")).expect("removed")),
            "tokenizer.json",
        ),
        (
            Box::new(|dir| std::fs::write(dir.join("config.json"), "{").expect("written")),
            "config.json",
        ),
        (
            Box::new(|dir| {
                let path = dir.join("model.safetensors");
                let bytes = std::fs::read(&path).expect("weights");
                std::fs::write(&path, &bytes[..bytes.len() - 100]).expect("written");
            }),
            "safetensors",
        ),
        (
            Box::new(|dir| {
                let path = dir.join("model.safetensors");
                let mut bytes = std::fs::read(&path).expect("weights");
                let at = bytes.len() - 2;
                bytes[at..].copy_from_slice(&[0xc0, 0x7f]);
                std::fs::write(&path, bytes).expect("written");
            }),
            "NaN",
        ),
    ];
    for (change, fault) in cases {
        let dir = altered("llama", change);
        let message = load(dir.path());
        assert!(message.contains(fault), "expected `{fault}` in: {message}");
    }
}
