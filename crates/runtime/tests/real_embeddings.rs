//! all-MiniLM-L6-v2 against the reference's vectors.
//!
//! The weights belong to others: they are tested where they are in the cache (`firelight models fetch all-minilm-l6-v2`) and
//! `FIRELIGHT_REAL_MODELS=1` asks for it. Reference values: `scripts/bench_embed.py MODEL goldens`, whose `check` compares 100 texts.

use firelight_runtime::pipelines::embed::{EmbedOptions, Embedder, cosine};
use firelight_runtime::source::{Options, Resolver};
use firelight_runtime::{DeviceChoice, Engine, EngineOptions};
use firelight_testing::{gpu_or_skip, skip};
use pollster::block_on;
use serde_json::Value;
use std::path::{Path, PathBuf};

const NAME: &str = "all-minilm-l6-v2";

fn model_path(test: &str) -> Option<PathBuf> {
    if std::env::var_os("FIRELIGHT_REAL_MODELS").is_none() {
        skip!(test, NAME, "FIRELIGHT_REAL_MODELS is not set");
        return None;
    }
    let resolver = Resolver::new(Options::from_env().expect("options"));
    resolver.path(NAME).map_err(|e| skip!(test, NAME, e)).ok()
}

fn equals_the_reference(engine: &Engine, path: &Path) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/real_embeddings.json");
    let reference: Value =
        serde_json::from_slice(&std::fs::read(file).expect("reference values")).expect("JSON");
    let cases = reference["cases"].as_array().expect("cases");
    let embedder = block_on(Embedder::load(engine, path, &mut |_, _| ())).expect("loads");
    let texts: Vec<&str> = cases.iter().filter_map(|c| c["text"].as_str()).collect();
    let found = block_on(embedder.embed(&texts, &EmbedOptions::default())).expect("embeds");
    assert_eq!(
        (found.rows.len(), found.dims, found.max_tokens),
        (cases.len(), 384, 256)
    );
    assert!(
        found.truncated() > 0,
        "one text is longer than the model takes"
    );
    for (row, case) in found.rows.iter().zip(cases) {
        let numbers = case["vector"].as_array().expect("a vector").iter();
        let expected: Vec<f32> = numbers
            .filter_map(|v| v.as_f64().map(|v| v as f32))
            .collect();
        let pairs = row.vector.iter().zip(&expected);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-5, "{:?}: off by {worst}", case["text"]);
        assert!(cosine(&row.vector, &expected) >= 0.99999);
    }
    // The tester tested: another text is another vector.
    assert!(cosine(&found.rows[0].vector, &found.rows[1].vector) < 0.99);
}

#[test]
fn cpu_equals_the_reference() {
    let Some(path) = model_path("cpu_equals_the_reference") else {
        return;
    };
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        ..Default::default()
    };
    equals_the_reference(&block_on(Engine::new(options)).expect("a CPU"), &path);
}

#[test]
fn gpu_equals_the_reference() {
    let name = "gpu_equals_the_reference";
    let Some(path) = model_path(name) else { return };
    let options = EngineOptions {
        device: DeviceChoice::Gpu,
        ..Default::default()
    };
    if let Some(engine) = gpu_or_skip(name, || block_on(Engine::new(options))) {
        equals_the_reference(&engine, &path);
    }
}
