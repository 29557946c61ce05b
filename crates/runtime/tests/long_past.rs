//! Tokens with a long past on a GPU: their keys are divided among workgroups, and the answers are those of the processor.

use firelight_kernels::sample::SampleSettings;
use firelight_kernels::{DType, Rung};
use firelight_runtime::{
    CancelToken, DeviceChoice, Engine, EngineOptions, LoadedModel, Result, State,
};
use firelight_testing::gpu_or_skip;
use pollster::block_on;
use std::path::Path;

fn engine(device: DeviceChoice, rung: Option<Rung>, kv: DType) -> Result<Engine> {
    block_on(Engine::new(EngineOptions {
        device,
        rung,
        kv: Some(kv),
        self_test: false,
        ..Default::default()
    }))
}

/// The llama fixture as a model of more positions.
fn load(engine: &Engine) -> LoadedModel {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/llama");
    let folder = tempfile::tempdir().expect("a folder");
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        let bytes = std::fs::read(from.join(name)).expect(name);
        let bytes = match name {
            "config.json" => {
                let text = String::from_utf8(bytes).expect("text");
                let more = text.replace(": 512,", ": 4096,");
                assert_ne!(more, text);
                more.into_bytes()
            }
            _ => bytes,
        };
        std::fs::write(folder.path().join(name), bytes).expect(name);
    }
    block_on(engine.load(folder.path(), &mut |_, _| ())).expect("the model loads")
}

fn prompt(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * i * 7 + i * 37 + 5) % 380).collect()
}

/// Greedy tokens after a prompt, and the calls of a step.
fn answer(model: &LoadedModel, prompt: &[u32], n: usize) -> (Vec<u32>, String) {
    let mut state = State::new(&model.device, &model.model).expect("a state");
    let ids = block_on(async {
        let cancel = CancelToken::new();
        let settings = SampleSettings::default();
        let begun = state.begin(prompt, settings, n, usize::MAX, &cancel).await;
        begun.expect("begins");
        let mut ids = Vec::new();
        while let Some(id) = state.next().await.expect("a token") {
            ids.push(id);
        }
        state.stop();
        ids
    });
    let listing = state.decode_listing().expect("a step");
    (ids, listing)
}

/// Logits of a few steps after a prompt, each of one token.
fn steps(model: &LoadedModel, ids: &[u32], n: usize) -> Vec<f32> {
    let mut state = State::new(&model.device, &model.model).expect("a state");
    let (before, after) = ids.split_at(ids.len() - n);
    block_on(async {
        let all = state.logits(before, |_, _| Ok(())).await;
        all.expect("logits");
        let mut logits = Vec::new();
        for &id in after {
            logits.extend(state.step_logits(id).await.expect("a step"));
        }
        logits
    })
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert!(a.len() == b.len() && !a.is_empty());
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    apart.fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}

#[test]
fn a_long_past_is_divided_and_answers_stay_the_same() {
    let name = "a_long_past_is_divided_and_answers_stay_the_same";
    let cpu = engine(DeviceChoice::Cpu, None, DType::F32).expect("a CPU");
    let open = || engine(DeviceChoice::Gpu, Some(Rung::GpuF32), DType::F32);
    let Some(gpu) = gpu_or_skip(name, open) else {
        return;
    };
    let (cpu, gpu) = (load(&cpu), load(&gpu));
    // Across the border at which keys begin to be divided, and over parts that have none yet.
    for n in [700, 1030, 1300] {
        let ids = prompt(n);
        let apart = worst(&steps(&cpu, &ids, 3), &steps(&gpu, &ids, 3));
        assert!(apart < 1e-3, "after {n}: {apart}");
    }
    // Replayed while the cache grows: each token is the likeliest, or as good as that, after those before it.
    let (ids, listing) = answer(&gpu, &prompt(640), 500);
    assert_eq!(ids.len(), 500);
    let all: Vec<u32> = prompt(640).into_iter().chain(ids).collect();
    let mut rows = Vec::new();
    let mut state = State::new(&cpu.device, &cpu.model).expect("a state");
    let keep = |_, chunk: &[f32]| {
        rows.extend_from_slice(chunk);
        Ok(())
    };
    block_on(state.logits(&all, keep)).expect("logits");
    let vocab = cpu.model.spec().vocab;
    for (at, row) in rows.chunks(vocab).enumerate().take(all.len() - 1).skip(639) {
        let best = row.iter().copied().fold(f32::MIN, f32::max);
        let taken = row[all[at + 1] as usize];
        assert!(best - taken < 1e-3, "token {at}: {taken} and not {best}");
    }
    assert!(listing.contains("attention_part"), "{listing}");
    assert!(listing.contains("attention_merge"), "{listing}");
    let layers = 3;
    let calls = |listing: &str| listing.lines().count();
    let (_, short) = answer(&gpu, &prompt(20), 8);
    assert!(!short.contains("attention_part"), "{short}");
    assert_eq!(calls(&listing), calls(&short) + layers, "one more a layer");
}
