//! Host memory while a model goes to the device: at most twice its largest tensor and 64 MiB beside what the device holds.
//!
//! A test binary of its own, with one test: it watches the memory of the whole process.
#![cfg(target_os = "linux")]

use firelight_kernels::Rung;
use firelight_runtime::{DeviceChoice, Engine, EngineOptions};
use firelight_testing::gpu_or_skip;
use pollster::block_on;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const HIDDEN: u64 = 1024;
const INNER: u64 = 4096;
const LAYERS: u64 = 6;
const VOCAB: u64 = 389;
const LARGEST: u64 = HIDDEN * INNER * 4;
const MIB: u64 = 1 << 20;

/// A folder with a llama of 400 MB of zeros, a file with a hole where its tensors are.
fn checkpoint(folder: &Path) {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/llama");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tiny.join(file), folder.join(file)).expect("copied");
    }
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "vocab_size": VOCAB,
        "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 64, "max_position_embeddings": 512,
        "rope_theta": 10000.0, "tie_word_embeddings": true, "bos_token_id": 384, "eos_token_id": 388,
    });
    fs::write(folder.join("config.json"), config.to_string()).expect("written");
    let mut header = serde_json::Map::new();
    let mut end = 0;
    let mut add = |name: String, shape: &[u64]| {
        let bytes = 4 * shape.iter().product::<u64>();
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [end, end + bytes]});
        header.insert(name, entry);
        end += bytes;
    };
    add("model.embed_tokens.weight".into(), &[VOCAB, HIDDEN]);
    add("model.norm.weight".into(), &[HIDDEN]);
    for i in 0..LAYERS {
        for (name, shape) in [
            ("self_attn.q_proj", &[HIDDEN, HIDDEN][..]),
            ("self_attn.k_proj", &[HIDDEN, HIDDEN]),
            ("self_attn.v_proj", &[HIDDEN, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, HIDDEN]),
            ("mlp.gate_proj", &[INNER, HIDDEN]),
            ("mlp.up_proj", &[INNER, HIDDEN]),
            ("mlp.down_proj", &[HIDDEN, INNER]),
            ("input_layernorm", &[HIDDEN]),
            ("post_attention_layernorm", &[HIDDEN]),
        ] {
            add(format!("model.layers.{i}.{name}.weight"), shape);
        }
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    let path = folder.join("model.safetensors");
    fs::write(&path, &file).expect("written");
    let file_len = file.len() as u64 + end;
    let file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("opened");
    file.set_len(file_len).expect("a hole");
}

/// Bytes of the process that are not pages of files. Software adapters keep the device's memory here too.
fn own_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a process");
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or_else(|| panic!("no {name}"))
    };
    1024 * (field("RssAnon") + field("RssShmem"))
}

#[test]
fn host_memory_while_loading_to_a_gpu() {
    let options = EngineOptions {
        device: DeviceChoice::Gpu,
        rung: Some(Rung::GpuF32),
        self_test: false,
        ..Default::default()
    };
    let Some(engine) = gpu_or_skip("host_memory_while_loading_to_a_gpu", || {
        block_on(Engine::new(options))
    }) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    checkpoint(folder.path());
    let (peak, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let before = own_bytes();
    let model = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                peak.fetch_max(own_bytes(), Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let model = block_on(engine.load(folder.path(), &mut |_, _| ())).expect("loads");
        done.store(true, Relaxed);
        model
    });
    let held: u64 = model.device.memory().held.iter().map(|(_, n)| n).sum();
    assert!(held > 380 * MIB, "the device holds only {held} bytes");
    let host = peak.load(Relaxed).saturating_sub(before + held);
    let allowed = 2 * LARGEST + 64 * MIB;
    eprintln!("{} MiB beside the device's {} MiB", host / MIB, held / MIB);
    assert!(
        host <= allowed,
        "{host} bytes of host memory while loading, {allowed} allowed"
    );
}
