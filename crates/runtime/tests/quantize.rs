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
        let golden = entry.file_name().to_string_lossy().starts_with("golden");
        if !golden && entry.path().is_file() {
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
        ("gpt2", json!({})),
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

/// Each family of decoders, with every grade and by component. Random weights have no redundancy: errors grow from layer to layer,
/// along recurrent states, and where a router's choice is a near tie. Logits that have nothing to do with the others are 1.4 apart.
#[test]
fn every_family_is_converted_on_load() {
    let plain = engine();
    let ids: Vec<u32> = (5..45).collect();
    for family in [
        "llama",
        "llama2",
        "qwen2",
        "qwen3",
        "phi3",
        "phi3_longrope",
        "gpt2",
        "gemma3_text",
        "gemma4",
        "gemma4_large",
        "qwen3_5",
    ] {
        let expected = logits(&load(&plain, &data(family)), &ids);
        let size = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
        };
        let whole = size(&mut expected.iter().copied());
        let mut last = 0.0;
        for (dtypes, most) in [
            ("f16", 0.02),
            ("q8", 0.25),
            ("embed=f16,default=q8", 0.25),
            ("head=f16,default=q8", 0.25),
            ("q4", 1.3),
        ] {
            let options = EngineOptions {
                dtypes: dtypes.parse().expect("types"),
                ..plain.options().clone()
            };
            let engine = block_on(Engine::new(options)).expect("a CPU");
            let found = logits(&load(&engine, &data(family)), &ids);
            let moved = expected.iter().zip(&found).map(|(a, b)| a - b);
            last = size(&mut { moved }) / whole;
            println!("{family} {dtypes}: logits moved by {last:.4}");
            assert!(
                found.len() == expected.len() && last < most,
                "{family} {dtypes}: {last}"
            );
        }
        assert!(last > 0.01, "{family}: q4 moves nothing");
    }
}

#[test]
fn a_head_in_another_type_than_its_embedding_is_refused() {
    let load_with = |family: &str, dtypes: &str| {
        let options = EngineOptions {
            dtypes: dtypes.parse().expect("types"),
            ..engine().options().clone()
        };
        let engine = block_on(Engine::new(options)).expect("a CPU");
        match family {
            "bert" => block_on(engine.load_encoder(data(family), &mut |_, _| ())).map(|_| ()),
            _ => block_on(engine.load(data(family), &mut |_, _| ())).map(|_| ()),
        }
    };
    let e = load_with("qwen2", "embed=q8,head=f32")
        .expect_err("tied")
        .to_string();
    assert!(e.contains("`embed` and `head`"), "{e}");
    let e = load_with("bert", "head=f32")
        .expect_err("no head")
        .to_string();
    assert!(e.contains("`head` of a bert"), "{e}");
    load_with("qwen2", "head=f32,default=q8").expect("one matrix");
}

#[test]
fn an_encoder_as_gguf_has_llama_cpp_s_names() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("bert.gguf");
    convert(&data("bert"), &file, "q8").expect("converts");
    let from = Weights::open_path(data("bert").join("model.safetensors")).expect("opens");
    let to = Weights::open_path(&file).expect("opens");
    // All but the pooler, which llama.cpp has not.
    let pooler = from.names().filter(|n| n.starts_with("pooler.")).count();
    assert_eq!(to.names().count() + pooler, from.names().count());
    for (name, own) in [
        ("embeddings.word_embeddings.weight", "token_embd.weight"),
        (
            "embeddings.position_embeddings.weight",
            "position_embd.weight",
        ),
        (
            "encoder.layer.1.attention.self.key.bias",
            "blk.1.attn_k.bias",
        ),
        (
            "encoder.layer.1.output.LayerNorm.weight",
            "blk.1.layer_output_norm.weight",
        ),
    ] {
        let read =
            |w: &Weights, name: &str| w.read(name).expect(name).to_f32_vec().expect("floats");
        let (a, b) = (read(&from, name), read(&to, own));
        let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs());
        // Rows of 40 are no whole blocks: f16.
        assert!(
            a.len() == b.len() && worst.fold(0.0, f32::max) < 1e-3,
            "{name}"
        );
    }
    let metadata = to.gguf_metadata().expect("metadata");
    let number = |key: &str| metadata.require::<u32>(key).expect(key);
    assert_eq!(number("bert.block_count"), 2);
    assert_eq!(number("bert.pooling_type"), 1);
    let json = json(data("bert").join("tokenizer.json"));
    let id = |piece: &str| json["model"]["vocab"][piece].as_u64().expect(piece);
    assert_eq!(
        u64::from(number("tokenizer.ggml.cls_token_id")),
        id("[CLS]")
    );
    let tokens = metadata.get("tokenizer.ggml.tokens").expect("tokens");
    let tokens = format!("{tokens:?}");
    assert!(tokens.contains("\u{2581}") && tokens.contains("[SEP]") && !tokens.contains("\"##"));
}

#[test]
fn what_gguf_cannot_say_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    for (family, changes, part) in [
        ("qwen3", json!({}), "use_sliding_window"),
        ("gemma3_text", json!({}), "layer_types"),
        ("llama", json!({ "model_type": "mamba" }), "mamba"),
        ("gemma4", json!({}), "gemma4"),
        ("qwen3_5", json!({}), "qwen3_5"),
        (
            "gpt2",
            json!({ "scale_attn_weights": false }),
            "scale_attn_weights",
        ),
        (
            "gpt2",
            json!({ "activation_function": "relu" }),
            "activation_function",
        ),
        ("bert", json!({ "hidden_act": "relu" }), "hidden_act"),
        (
            "llama",
            json!({ "rope_scaling": { "rope_type": "yarn", "factor": 2.0 } }),
            "yarn",
        ),
    ] {
        let folder = dir.path().join(format!("{family}-{part}"));
        changed(family, &changes, &folder);
        let file = dir.path().join("no.gguf");
        let e = convert(&folder, &file, "q8").expect_err(part);
        assert!(e.contains(part), "{family}: {e}");
        assert!(!file.exists());
    }
}
