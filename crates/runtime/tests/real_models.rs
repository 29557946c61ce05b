//! SmolLM2-135M Q4_1 and Gemma 3 270M Q4_K_M against the reference run on the dequantised weights.
//!
//! The models are large and belong to others: they are tested where they are in the cache (`firelight models fetch NAME`) and
//! `FIRELIGHT_REAL_MODELS=1` asks for it; run with `--release`. Reference values: `make_real_models.py`.

use firelight_runtime::pipelines::perplexity::perplexity;
use firelight_runtime::source::{Options, Resolver};
use firelight_runtime::{DeviceChoice, Engine, EngineOptions, State};
use firelight_testing::{gpu_or_skip, skip};
use pollster::block_on;
use serde_json::Value;
use std::path::{Path, PathBuf};

const MODELS: [(&str, &str); 2] = [
    ("smollm2-135m-instruct-q4_1", "smollm2-135m-instruct"),
    ("gemma-3-270m-q4_k_m", "gemma-3-270m"),
];
/// Where the reference's best two logits are closer than this, rounding may choose.
const MARGIN: f64 = 0.3;

/// Cases whose answers are decoded token by token; the others are computed at once, as prompts are.
const DECODED: usize = 2;

fn argmax(row: &[f32]) -> u32 {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(i, _)| i as u32)
}

fn reference() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/real_models.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("reference values")).expect("JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_u64().map(|n| n as u32))
        .collect()
}

fn model_path(test: &str, name: &str) -> Option<PathBuf> {
    if std::env::var_os("FIRELIGHT_REAL_MODELS").is_none() {
        skip!(test, name, "FIRELIGHT_REAL_MODELS is not set");
        return None;
    }
    let resolver = Resolver::new(Options::from_env().expect("options"));
    match resolver.path(name) {
        Ok(path) => Some(path),
        Err(e) => {
            skip!(test, name, e);
            None
        }
    }
}

fn equals_the_reference(test: &str, engine: &Engine) {
    let reference = reference();
    for (key, name) in MODELS {
        let Some(path) = model_path(test, name) else {
            continue;
        };
        let expected = &reference["models"][key];
        let model = block_on(engine.load(path, &mut |_, _| ())).expect("loads");
        let vocab = model.model.spec().vocab;
        let (mut compared, mut decoded) = (0, 0);
        for case in expected["cases"].as_array().expect("cases") {
            let prompt = ids(&case["prompt_ids"]);
            let text = case["prompt"].as_str().expect("a prompt");
            let ours = if case.get("messages").is_some() {
                model.text.encode_rendered(text)
            } else {
                model.text.encode_text(text)
            };
            assert_eq!(ours.expect("encodes"), prompt, "{name}: tokens of {text:?}");
            let margins: Vec<f64> = case["margins"]
                .as_array()
                .expect("margins")
                .iter()
                .filter_map(Value::as_f64)
                .collect();
            let answer = ids(&case["ids"]);
            let all: Vec<u32> = prompt
                .iter()
                .chain(&answer[..answer.len() - 1])
                .copied()
                .collect();
            let mut best = Vec::new();
            let mut state = State::new(&model.device, &model.model).expect("a state");
            let mut take = |_: usize, logits: &[f32]| {
                best.extend(logits.chunks_exact(vocab).map(argmax));
                Ok(())
            };
            if decoded < DECODED {
                block_on(state.logits(&prompt, &mut take)).expect("logits");
                for &id in &answer[..answer.len() - 1] {
                    let logits = block_on(state.step_logits(id)).expect("logits");
                    take(0, &logits).expect("taken");
                }
                decoded += 1;
            } else {
                block_on(state.logits(&all, &mut take)).expect("logits");
            }
            for (i, (&id, &margin)) in answer.iter().zip(&margins).enumerate() {
                if margin > MARGIN {
                    assert_eq!(
                        best[prompt.len() - 1 + i],
                        id,
                        "{name}: token {i} of {text:?}, margin {margin}"
                    );
                    compared += 1;
                }
            }
        }
        assert!(
            compared > 100,
            "{name}: only {compared} tokens had a clear margin"
        );
        let window = &expected["window"];
        let window_ids = ids(&window["ids"]);
        let nll = window["nll"].as_f64().expect("nll");
        let ours = block_on(perplexity(
            &model,
            &window_ids,
            window_ids.len(),
            &mut |_, _| (),
        ))
        .expect("a loss");
        let off = (ours.nll / nll - 1.0).abs();
        assert!(
            off < 0.005,
            "{name}: loss {} and not {nll} ({:.3} %)",
            ours.nll,
            off * 100.0
        );
        let _ = writeln_stderr(format!(
            "{name} on {}: {compared} tokens equal, loss off by {:.4} %",
            model.device.name(),
            off * 100.0
        ));
    }
}

fn writeln_stderr(line: String) -> std::io::Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stderr().lock(), "{line}")
}

#[test]
fn real_models_on_the_cpu() {
    for exact in [false, true] {
        let options = EngineOptions {
            device: DeviceChoice::Cpu,
            exact,
            ..Default::default()
        };
        equals_the_reference(
            "real_models_on_the_cpu",
            &block_on(Engine::new(options)).expect("a CPU"),
        );
    }
}

#[test]
fn real_models_on_a_gpu() {
    let options = EngineOptions {
        device: DeviceChoice::Gpu,
        ..Default::default()
    };
    if let Some(engine) = gpu_or_skip("real_models_on_a_gpu", || block_on(Engine::new(options))) {
        equals_the_reference("real_models_on_a_gpu", &engine);
    }
}
