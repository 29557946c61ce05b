//! The encoder checkpoints in `tests/data`: goldens on every device there is, batches, pooling, pairs, entities, bad files.

#[cfg(feature = "vision")]
mod dual;
mod faults;
mod pipelines;
#[path = "../support/mod.rs"]
mod support;

use firelight_runtime::encoder::{EncoderRun, Tokens, Want};
use firelight_runtime::pipelines::verify::{VerifyReport, verify};
use firelight_runtime::{CancelToken, Error};
use pollster::block_on;
use serde_json::Value;
use std::path::Path;
use support::{altered, cpu, data, pass_on_the_cpu, pass_on_the_gpu, passes};

const FAMILIES: [&str; 7] = [
    "bert",
    "bert_rank",
    "bert_ner",
    "distilbert",
    "nomic_bert",
    "clip",
    "siglip",
];

fn enough(report: &VerifyReport) {
    let n = report.checks.len();
    assert!(n >= 15, "{}: only {n} comparisons", report.family);
    assert_eq!(report.atol, 1e-3, "on every rung");
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

fn edit_config(dir: &Path, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let path = dir.join("config.json");
    let text = std::fs::read(&path).expect("config");
    let mut value: Value = serde_json::from_slice(&text).expect("JSON");
    edit(value.as_object_mut().expect("an object"));
    std::fs::write(&path, value.to_string()).expect("written");
}

#[test]
fn the_published_spelling_of_nomic_bert_says_the_same() {
    let published = |dir: &Path| {
        edit_config(dir, |c| {
            let names = [
                ("hidden_size", "n_embd"),
                ("num_hidden_layers", "n_layer"),
                ("num_attention_heads", "n_head"),
                ("intermediate_size", "n_inner"),
                ("max_position_embeddings", "n_positions"),
                ("layer_norm_eps", "layer_norm_epsilon"),
            ];
            for (new, old) in names {
                let value = c.remove(new).expect("a number");
                c.insert(old.into(), value);
            }
            for key in ["hidden_act", "head_dim", "rope_parameters"] {
                c.remove(key);
            }
            c.insert("rotary_emb_base".into(), 700.into());
            c.insert("rotary_emb_fraction".into(), 1.0.into());
            c.insert("activation_function".into(), "swiglu".into());
            c.insert("qkv_proj_bias".into(), false.into());
        });
    };
    let dir = altered("nomic_bert", published);
    passes(&cpu(), dir.path(), enough);
    let dir = altered("nomic_bert", |dir| {
        published(dir);
        edit_config(dir, |c| {
            c.insert("rotary_emb_base".into(), 1000.into());
        });
    });
    let report = block_on(verify(&cpu(), dir.path(), &mut |_| ())).expect("runs");
    assert!(!report.passed(), "the base has to matter");
}

#[test]
fn a_wrong_constant_fails() {
    for (family, key, value) in [
        ("bert", "layer_norm_eps", Value::from(1e-12)),
        ("bert", "hidden_act", "quick_gelu".into()),
        ("distilbert", "n_heads", 10.into()),
        ("distilbert", "activation", "relu".into()),
    ] {
        let dir = altered(family, |dir| {
            edit_config(dir, |c| {
                c.insert(key.into(), value);
            });
        });
        // Ten heads of four elements load as well as five of eight.
        let report = block_on(verify(&cpu(), dir.path(), &mut |_| ())).expect("runs");
        assert!(!report.passed(), "{family}: {key}");
    }
}

const TEXTS: [&str; 5] = [
    "What is in this picture?",
    "Ada Lovelace and Charles Babbage lived in London; Marie Curie worked in Paris.",
    "the",
    "Naïve café, 3.14 and punctuation: please! It's easy, isn't it?",
    "",
];

#[test]
fn a_batch_of_different_lengths_equals_each_text_alone() {
    for family in ["bert", "distilbert", "nomic_bert"] {
        let engine = cpu();
        let model = block_on(engine.load_encoder(data(family), &mut |_, _| ())).expect("loads");
        let tokenizer = model.text.clone();
        let inputs: Vec<Tokens> = TEXTS
            .iter()
            .map(|text| Tokens {
                ids: tokenizer.encode_text(text).expect("encodes"),
                types: Vec::new(),
            })
            .collect();
        let run = EncoderRun::new(&engine, model);
        let cancel = CancelToken::new();
        let all = |inputs: &[Tokens], batch: usize| {
            block_on(run.run(inputs, Want::Hidden, batch, &cancel, &mut |_, _| ())).expect("runs")
        };
        let together = all(&inputs, 4096);
        // A product of few rows adds in another order than one of many.
        for (a, b) in together.concat().iter().zip(all(&inputs, 40).concat()) {
            assert!((a - b).abs() <= 1e-5, "{family}: cut into batches");
        }
        for (i, input) in inputs.iter().enumerate() {
            let alone = all(std::slice::from_ref(input), 4096);
            assert_eq!(alone[0].len(), input.ids.len() * 40);
            for (a, b) in alone[0].iter().zip(&together[i]) {
                assert!((a - b).abs() <= 1e-5, "{family}: text {i}: {a} and {b}");
            }
        }
        cancel.cancel();
        let ended = block_on(run.run(&inputs, Want::First, 8, &cancel, &mut |_, _| ()));
        assert!(matches!(ended, Err(Error::Cancelled)));
    }
}
