//! LoRA adapters: over a model and merged, against what PEFT computes; several of them in turns; what is refused.

#[path = "support/opened.rs"]
mod opened;

use firelight_runtime::checkpoint::Checkpoint;
use firelight_runtime::{
    Adapter, AdapterUse, CancelToken, Engine, EngineOptions, GenerateOptions, LoadedModel, Session,
    State,
};
use firelight_tensor::{Tensor, Weights, safetensors};
use firelight_testing::{Golden, gpu_or_skip};
use opened::{cpu, data, gpu, load};
use pollster::block_on;
use std::path::Path;
use std::sync::Arc;

fn golden() -> Golden {
    Golden::read(data("lora/golden.safetensors")).expect("the golden")
}

fn input(golden: &Golden, name: &str) -> Vec<u32> {
    let (_, ids) = golden.i64(name).expect("ids");
    ids.iter().map(|&id| id as u32).collect()
}

fn merged(
    engine: &Engine,
    adapters: Vec<AdapterUse>,
) -> Result<LoadedModel, firelight_runtime::Error> {
    let checkpoint = Checkpoint::open(data("llama"))?.with_adapters(adapters);
    block_on(engine.load_checkpoint(Arc::new(checkpoint), &mut |_, _| ()))
}

fn open(name: &str) -> Adapter {
    Adapter::open(data("lora").join(name)).expect("the adapter")
}

fn used(name: &str, scale: f32) -> AdapterUse {
    AdapterUse {
        adapter: open(name),
        scale,
    }
}

fn logits(model: &LoadedModel, adapters: &[AdapterUse], ids: &[u32]) -> Vec<f32> {
    let mut state = State::new(&model.device, &model.model).expect("a state");
    state.set_adapters(adapters);
    let mut all = Vec::new();
    let keep = |_, chunk: &[f32]| {
        all.extend_from_slice(chunk);
        Ok(())
    };
    block_on(state.logits(ids, keep)).expect("logits");
    all
}

/// The largest difference of the last rows.
fn worst(actual: &[f32], expected: &[f32]) -> f32 {
    assert!(actual.len() >= expected.len() && !expected.is_empty());
    let tail = &actual[actual.len() - expected.len()..];
    let differences = tail.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
}

fn equals_peft(engine: &Engine) {
    let golden = golden();
    let ids = input(&golden, "input_ids");
    let model = load(engine, "llama");
    let (a, b) = (used("a", 1.0), used("b", 1.0));
    a.adapter.fit(&model).expect("a fits");
    b.adapter.fit(&model).expect("b fits");
    let half = AdapterUse {
        scale: 0.5,
        ..b.clone()
    };
    let cases = [
        ("base", vec![]),
        ("a", vec![a.clone()]),
        ("b", vec![b]),
        ("ab", vec![a, half]),
    ];
    for (name, adapters) in &cases {
        let (_, expected) = golden.f32(&format!("{name}.logits")).expect("logits");
        let over = logits(&model, adapters, &ids);
        assert!(
            worst(&over, expected) < 1e-3,
            "{name}: {}",
            worst(&over, expected)
        );
        let baked = merged(engine, adapters.clone()).expect("merges");
        let into = logits(&baked, &[], &ids);
        assert!(
            worst(&into, expected) < 1e-3,
            "{name} merged: {}",
            worst(&into, expected)
        );
        // Merged and unmerged differ by the rounding of sums only: 1e-5 of the largest logit.
        let largest = over.iter().fold(0f32, |m, v| m.max(v.abs()));
        let apart = worst(&over, &into);
        println!("{name}: unmerged to merged {apart:.1e}, largest logit {largest:.1}");
        assert!(apart <= 1e-5 * largest, "{name}: {apart} of {largest}");
        if !adapters.is_empty() {
            // A negative control: another scale is another model.
            let more: Vec<_> = adapters
                .iter()
                .map(|u| AdapterUse {
                    scale: u.scale * 1.01,
                    ..u.clone()
                })
                .collect();
            assert!(
                worst(&logits(&model, &more, &ids), expected) > 1e-3,
                "{name}"
            );
            let log = baked.checkpoint.merged();
            assert!(!log.is_empty() && log.iter().all(|m| !m.held.is_quantized()));
        }
    }
}

#[test]
fn the_cpu_computes_what_peft_does() {
    equals_peft(&cpu());
}

#[test]
fn a_gpu_computes_what_peft_does() {
    if let Some(engine) = gpu("a_gpu_computes_what_peft_does") {
        equals_peft(&engine);
    }
}

fn take_turns(engine: &Engine) {
    let golden = golden();
    let ids = input(&golden, "input_ids");
    let model = load(engine, "llama");
    let mut session = Session::new(engine, &model).expect("a session");
    let (a, b) = (used("a", 1.0), used("b", 1.0));
    let ask = |session: &mut Session, adapters: &[AdapterUse]| {
        let options = GenerateOptions {
            max_tokens: 16,
            ignore_eos: true,
            adapters: adapters.to_vec(),
            ..Default::default()
        };
        block_on(session.generate(&ids, &options, &CancelToken::new(), &mut |_| ()))
            .expect("an answer")
    };
    for _ in 0..2 {
        for (name, adapters) in [
            ("a", vec![a.clone()]),
            ("b", vec![b.clone()]),
            ("base", vec![]),
        ] {
            let expected = input(&golden, &format!("{name}.greedy_ids"));
            assert_eq!(ask(&mut session, &adapters).ids, expected, "{name}");
            // The same adapter again reuses what is cached, another one does not.
            let again = ask(&mut session, &adapters);
            assert_eq!((again.ids, again.prefilled), (expected, 1), "{name} again");
        }
    }
    // Two sessions over one model, each with its own.
    let mut other = Session::new(engine, &model).expect("a session");
    for _ in 0..2 {
        assert_eq!(
            ask(&mut session, std::slice::from_ref(&a)).ids,
            input(&golden, "a.greedy_ids")
        );
        assert_eq!(
            ask(&mut other, std::slice::from_ref(&b)).ids,
            input(&golden, "b.greedy_ids")
        );
    }
}

#[test]
fn adapters_in_turns_do_not_mix_on_the_cpu() {
    take_turns(&cpu());
}

#[test]
fn adapters_in_turns_do_not_mix_on_a_gpu() {
    if let Some(engine) = gpu("adapters_in_turns_do_not_mix_on_a_gpu") {
        take_turns(&engine);
    }
}

/// What was on a lost device is brought to the next one.
#[test]
fn an_adapter_follows_down_the_ladder() {
    let options = EngineOptions {
        adapter: Some(0),
        self_test: false,
        ..Default::default()
    };
    let Some(engine) = gpu_or_skip("an_adapter_follows_down_the_ladder", || {
        let engine = block_on(Engine::new(options)).map_err(|e| e.to_string())?;
        let found = engine.device().is_gpu();
        found
            .then_some(engine)
            .ok_or_else(|| "no GPU adapter".to_owned())
    }) else {
        return;
    };
    let golden = golden();
    let model = load(&engine, "llama");
    let mut session = Session::new(&engine, &model).expect("a session");
    let options = GenerateOptions {
        max_tokens: 16,
        ignore_eos: true,
        adapters: vec![used("a", 1.0)],
        ..Default::default()
    };
    let (device, mut pieces) = (engine.device(), 0);
    let ids = input(&golden, "input_ids");
    let answer = block_on(
        session.generate(&ids, &options, &CancelToken::new(), &mut |_| {
            pieces += 1;
            if pieces == 3 {
                device.simulate_loss();
            }
        }),
    );
    assert_eq!(answer.expect("goes on").ids, input(&golden, "a.greedy_ids"));
    assert!(engine.report().attempts.len() >= 2);
}

/// A copy of adapter `a` in which `change` may break something.
fn altered(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(data("lora/a").join(file), dir.path().join(file)).expect("a copy");
    }
    change(dir.path());
    dir
}

/// Writes the tensors anew under other names, and without those that get none.
fn rename(dir: &Path, name: impl Fn(&str) -> Option<String>) {
    let path = dir.join("adapter_model.safetensors");
    let weights = Weights::open_path(&path).expect("the adapter");
    let tensors: Vec<(String, Tensor)> = weights
        .names()
        .filter_map(|n| Some((name(n)?, weights.read(n).expect("a tensor"))))
        .collect();
    let named = tensors.iter().map(|(n, t)| (n.as_str(), t));
    let bytes = safetensors::write_to_vec(&Default::default(), named).expect("a file");
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn what_does_not_fit_is_refused_with_its_name() {
    let engine = cpu();
    let model = load(&engine, "llama");
    let same = |n: &str| Some(n.to_owned());
    type Change = Box<dyn FnOnce(&Path)>;
    let config = |from: &'static str, to: &'static str| -> Change {
        Box::new(move |dir: &Path| {
            let path = dir.join("adapter_config.json");
            let text = std::fs::read_to_string(&path).expect("config");
            assert!(text.contains(from), "{from}");
            std::fs::write(&path, text.replace(from, to)).expect("written");
        })
    };
    let names = |from: &'static str, to: &'static str| -> Change {
        Box::new(move |dir: &Path| rename(dir, |n| Some(n.replace(from, to))))
    };
    let cases: Vec<(Change, &str)> = vec![
        (
            config("\"use_dora\": false", "\"use_dora\": true"),
            "use_dora",
        ),
        (
            config(
                "\"modules_to_save\": null",
                "\"modules_to_save\": [\"lm_head\"]",
            ),
            "modules_to_save",
        ),
        (
            config("\"bias\": \"none\"", "\"bias\": \"all\""),
            "`bias` all",
        ),
        (config("\"r\": 4", "\"r\": 5"), "`r`"),
        (
            config("\"rank_pattern\": {}", "\"rank_pattern\": {\"v_proj\": 3}"),
            "rank_pattern",
        ),
        (config("\"q_proj\"", "\"o_proj\""), "target_modules"),
        (
            names("layers.0.self_attn.q_proj", "layers.0.self_attn.query"),
            "layers.0.self_attn.query",
        ),
        (names("layers.2.", "layers.3."), "layers.3."),
        (names("lora_A", "lora_embedding_A"), "lora_embedding_A"),
        (names("down_proj.lora_A", "down_proj.lora_X"), "lora_X"),
        (
            Box::new(move |dir| {
                rename(dir, |n| {
                    same(n).filter(|n| !n.contains("layers.0.mlp.down_proj.lora_B"))
                })
            }),
            "lora_B",
        ),
        (
            Box::new(|dir| std::fs::remove_file(dir.join("adapter_config.json")).expect("removed")),
            "adapter_config.json",
        ),
        (
            Box::new(|dir| std::fs::write(dir.join("adapter_config.json"), "{").expect("written")),
            "adapter_config.json",
        ),
        (
            Box::new(|dir| {
                let file = dir.join("adapter_model.safetensors");
                std::fs::rename(file, dir.join("adapter_model.bin")).expect("renamed");
            }),
            "pickle",
        ),
    ];
    for (change, said) in cases {
        let dir = altered(change);
        let error = Adapter::open(dir.path()).and_then(|a| {
            a.fit(&model)?;
            Ok(())
        });
        let error = error.expect_err(said).to_string();
        assert!(error.contains(said), "expected `{said}` in: {error}");
        // Merging finds the same faults.
        let merging = Adapter::open(dir.path()).and_then(|adapter| {
            merged(
                &engine,
                vec![AdapterUse {
                    adapter,
                    scale: 1.0,
                }],
            )
            .map(|_| ())
        });
        assert!(merging.is_err(), "{said}");
    }
    // Another model's adapter: fewer layers, or layers of other sizes.
    let adapter = open("b");
    let error = adapter
        .fit(&load(&engine, "llama2"))
        .expect_err("two layers only")
        .to_string();
    assert!(error.contains("layers."), "{error}");
    let error = adapter
        .fit(&load(&engine, "gemma3_text"))
        .expect_err("other sizes")
        .to_string();
    assert!(error.contains("is made for a layer"), "{error}");
    // Without asking first, a request says so.
    let gemma = load(&engine, "gemma3_text");
    let mut session = Session::new(&engine, &gemma).expect("a session");
    let options = GenerateOptions {
        adapters: vec![AdapterUse {
            adapter,
            scale: 1.0,
        }],
        ..Default::default()
    };
    let made = block_on(session.generate(&[5, 6], &options, &CancelToken::new(), &mut |_| ()));
    assert!(
        made.expect_err("refused")
            .to_string()
            .contains("is made for a layer")
    );
}

/// GPT-2 has its projections transposed, and three of them in one matrix.
#[test]
fn adapters_merge_into_transposed_matrices() {
    let engine = cpu();
    let dir = tempfile::tempdir().expect("a folder");
    let config = br#"{"peft_type": "LORA", "r": 2, "lora_alpha": 3, "fan_in_fan_out": true,
        "target_modules": ["c_attn", "c_fc"]}"#;
    std::fs::write(dir.path().join("adapter_config.json"), config).expect("written");
    let mut tensors = Vec::new();
    for (layer, (part, inputs, outputs)) in
        [(0, ("attn.c_attn", 64, 192)), (2, ("mlp.c_fc", 64, 96))]
    {
        for (half, shape) in [("A", [2, inputs]), ("B", [outputs, 2])] {
            let values: Vec<f32> = (0..shape[0] * shape[1])
                .map(|i| ((i * 37 + layer) % 101) as f32 / 400.0 - 0.125)
                .collect();
            let name = format!("base_model.model.transformer.h.{layer}.{part}.lora_{half}.weight");
            tensors.push((name, Tensor::from_f32(&values, &shape).expect("a tensor")));
        }
    }
    let named = tensors.iter().map(|(n, t)| (n.as_str(), t));
    let bytes = safetensors::write_to_vec(&Default::default(), named).expect("a file");
    std::fs::write(dir.path().join("adapter_model.safetensors"), bytes).expect("written");
    let used = vec![AdapterUse {
        adapter: Adapter::open(dir.path()).expect("opens"),
        scale: 1.0,
    }];
    let ids: Vec<u32> = (5..45).collect();
    let model = load(&engine, "gpt2");
    used[0].adapter.fit(&model).expect("fits");
    let (plain, over) = (logits(&model, &[], &ids), logits(&model, &used, &ids));
    let checkpoint = Checkpoint::open(data("gpt2"))
        .expect("opens")
        .with_adapters(used);
    let merged = block_on(engine.load_checkpoint(Arc::new(checkpoint), &mut |_, _| ()));
    let merged = merged.expect("merges");
    assert_eq!(merged.checkpoint.merged().len(), 2);
    let into = logits(&merged, &[], &ids);
    let largest = over.iter().fold(0f32, |m, v| m.max(v.abs()));
    let apart = worst(&over, &into);
    println!("gpt2: unmerged to merged {apart:.1e}, largest logit {largest:.1}");
    assert!(apart <= 1e-5 * largest, "{apart} of {largest}");
    assert!(worst(&over, &plain) > 1e-2, "the adapter does something");
}
