//! The reference checkpoints as GGUF: `quantize` of a folder writes what loads to the same tokens and logits.

use firelight_runtime::pipelines::quantize::quantize;
use firelight_runtime::{CancelToken, DeviceChoice, Engine, EngineOptions, LoadedModel, State};
use firelight_tensor::{DType, Weights};
use pollster::block_on;
use serde_json::{Value as Json, json};
use std::fs;
use std::path::{Path, PathBuf};

fn data(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(family)
}

fn json(path: PathBuf) -> Json {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

/// A copy of a fixture with some of its configuration changed.
fn changed(family: &str, changes: &Json, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(data(family)).expect("a fixture") {
        let entry = entry.expect("a file");
        if !entry.file_name().to_string_lossy().starts_with("golden") {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
    let mut config = json(data(family).join("config.json"));
    for (key, value) in changes.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    fs::write(to.join("config.json"), config.to_string()).expect("written");
}

fn engine() -> Engine {
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        self_test: false,
        exact: true,
        ..Default::default()
    };
    block_on(Engine::new(options)).expect("a CPU")
}

fn load(engine: &Engine, path: &Path) -> LoadedModel {
    block_on(engine.load(path, &mut |_, _| ())).unwrap_or_else(|e| panic!("{path:?}: {e}"))
}

fn logits(model: &LoadedModel, ids: &[u32]) -> Vec<f32> {
    let mut state = State::new(&model.device, &model.model).expect("a state");
    let mut logits = Vec::new();
    block_on(state.logits(ids, |_, chunk| {
        logits.extend_from_slice(chunk);
        Ok(())
    }))
    .expect("logits");
    logits
}

fn convert(source: &Path, target: &Path, dtype: &str) -> Result<(), String> {
    let dtypes = dtype.parse().expect("a type");
    quantize(source, target, dtypes, &mut |_, _| (), &CancelToken::new())
        .map(|_| ())
        .map_err(|e| e.to_string())
}

/// Fixtures, and what of them a GGUF cannot say.
fn cases() -> Vec<(&'static str, Json)> {
    vec![
        ("llama", json!({})),
        ("llama2", json!({})),
        ("qwen2", json!({})),
        ("qwen3", json!({ "use_sliding_window": false })),
        ("phi3", json!({})),
        ("phi3_longrope", json!({})),
        (
            "gemma3_text",
            json!({ "layer_types": vec!["sliding_attention"; 4] }),
        ),
    ]
}

#[test]
fn a_folder_as_gguf_gives_the_same_tokens_and_logits() {
    let engine = engine();
    let dir = tempfile::tempdir().expect("a folder");
    for (family, changes) in cases() {
        let (folder, file) = (
            dir.path().join(family),
            dir.path().join(format!("{family}.gguf")),
        );
        changed(family, &changes, &folder);
        convert(&folder, &file, "f32").unwrap_or_else(|e| panic!("{family}: {e}"));
        let (theirs, ours) = (load(&engine, &folder), load(&engine, &file));
        let golden = json(data(family).join("golden.json"));
        let text = "The quick brown fox, 123 jumps  over\n\nthe lazy dog's na\u{ef}ve \u{1f600}";
        for text in [
            text,
            golden["cases"]["text"]["prompt"].as_str().unwrap_or("a"),
        ] {
            let (a, b) = (theirs.text.encode_text(text), ours.text.encode_text(text));
            assert_eq!(a.expect("ids"), b.expect("ids"), "{family}: {text:?}");
        }
        assert_eq!(theirs.text.template.is_some(), ours.text.template.is_some());
        let golden = Weights::open_path(data(family).join("golden.safetensors")).expect("goldens");
        let ids = golden.read("text.input_ids").expect("ids");
        assert_eq!(ids.dtype(), DType::I64);
        let ids: Vec<i64> = bytemuck::pod_collect_to_vec(ids.bytes());
        let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
        let (expected, got) = (logits(&theirs, &ids), logits(&ours, &ids));
        let pairs = expected.iter().zip(&got);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(
            got.len() == expected.len() && worst < 1e-4,
            "{family}: {worst}"
        );
        if changes == json!({}) {
            let golden = golden.read("text.logits").expect("logits");
            let golden = golden.to_f32_vec().expect("floats");
            let pairs = golden.iter().zip(&got);
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-3, "{family}: {worst} from the reference");
        }
    }
}

#[test]
fn converting_while_loading_equals_the_converted_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("q8.gguf");
    convert(&data("qwen2"), &file, "q8_0").expect("converts");
    let options = EngineOptions {
        dtypes: "q8_0".parse().expect("a type"),
        ..engine().options().clone()
    };
    let on_load = block_on(Engine::new(options)).expect("a CPU");
    let ids: Vec<u32> = (5..40).collect();
    let plain = logits(&load(&engine(), &data("qwen2")), &ids);
    let loaded = logits(&load(&on_load, &data("qwen2")), &ids);
    let from_file = logits(&load(&engine(), &file), &ids);
    let worst = |a: &[f32], b: &[f32]| {
        let pairs = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        pairs.fold(0.0, f32::max)
    };
    // The numbers of the metadata are f32, those of config.json f64.
    let same = worst(&loaded, &from_file);
    assert!(loaded.len() == from_file.len() && same < 1e-4, "{same}");
    let sum = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let moved = sum(&mut plain.iter().zip(&loaded).map(|(a, b)| a - b));
    let moved = (moved / sum(&mut plain.iter().copied())).sqrt();
    assert!(
        moved > 1e-4 && moved < 0.1,
        "{moved}: not as far off as q8_0 is"
    );
}

#[test]
fn what_gguf_cannot_say_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    for (family, changes, part) in [
        ("qwen3", json!({}), "use_sliding_window"),
        ("gemma3_text", json!({}), "layer_types"),
        ("llama", json!({ "model_type": "mamba" }), "mamba"),
        (
            "llama",
            json!({ "rope_scaling": { "rope_type": "yarn", "factor": 2.0 } }),
            "yarn",
        ),
    ] {
        let folder = dir.path().join(part);
        changed(family, &changes, &folder);
        let file = dir.path().join("no.gguf");
        let e = convert(&folder, &file, "q8").expect_err(part);
        assert!(e.contains(part), "{family}: {e}");
        assert!(!file.exists());
    }
}
