//! Key/value caches of other types than f32: how much memory they take, and how little they change.

use firelight_kernels::{DType, Rung};
use firelight_runtime::pipelines::synthetic::synthetic;
use firelight_runtime::{DeviceChoice, Engine, EngineOptions, State};
use firelight_testing::gpu_or_skip;
use pollster::block_on;

/// Two layers with heads of `head` elements and random weights.
fn config(head: usize) -> String {
    format!(
        r#"{{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 128, "intermediate_size": 256,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": {head}, "vocab_size": 320,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 2048, "tie_word_embeddings": true,
        "hidden_act": "silu"}}"#
    )
}

fn options(device: DeviceChoice, kv: Option<DType>) -> EngineOptions {
    EngineOptions {
        device,
        rung: (device == DeviceChoice::Gpu).then_some(Rung::GpuF32),
        self_test: false,
        exact: true,
        kv,
        ..Default::default()
    }
}

/// Bytes of the caches, and the logits after 300 tokens, the last ten of them one by one.
fn run(engine: &Engine, head: usize) -> firelight_runtime::Result<(u64, Vec<f32>)> {
    run_in(engine, head, "f32")
}

/// The same with matrices of another type.
fn run_in(
    engine: &Engine,
    head: usize,
    weights: &str,
) -> firelight_runtime::Result<(u64, Vec<f32>)> {
    let checkpoint = synthetic(config(head).as_bytes(), weights)?;
    let model = block_on(engine.load_checkpoint(checkpoint.into(), &mut |_, _| ()))?;
    let mut state = State::new(&model.device, &model.model)?;
    let ids: Vec<u32> = (0..300).map(|i| (i * 37 + 5) % 320).collect();
    let mut logits = Vec::new();
    block_on(state.logits(&ids[..290], |_, _| Ok(())))?;
    for id in &ids[290..] {
        logits = block_on(state.step_logits(*id))?;
    }
    Ok((state.cache_bytes(), logits))
}

fn compared(device: DeviceChoice, kv: DType, times: f64, most: f32, test: &str) {
    let with = |kv| block_on(Engine::new(options(device, kv)));
    let engines = match device {
        DeviceChoice::Gpu => gpu_or_skip(test, || {
            Ok::<_, firelight_runtime::Error>((with(None)?, with(Some(kv))?))
        }),
        _ => Some((with(None).expect("a CPU"), with(Some(kv)).expect("a CPU"))),
    };
    let Some((whole, small)) = engines else {
        return;
    };
    let (bytes, expected) = run(&whole, 64).expect("logits");
    let (fewer, logits) = run(&small, 64).expect("logits");
    assert_eq!(bytes as f64, times * fewer as f64, "{kv}");
    let scale = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let worst = expected
        .iter()
        .zip(&logits)
        .map(|(a, b)| (a - b).abs())
        .fold(0f32, f32::max);
    // Rounded at all, and not by much.
    assert!(
        worst > 1e-7 * scale && worst < most * scale,
        "{kv}: off by {worst} of {scale}"
    );
}

#[test]
fn beside_quantised_matrices_a_cpu_takes_f16_unless_told_otherwise() {
    let bytes = |kv, exact, weights: &str| {
        let options = EngineOptions {
            exact,
            ..options(DeviceChoice::Cpu, kv)
        };
        let engine = block_on(Engine::new(options)).expect("a CPU");
        let half = engine.device().reads_f16();
        let (bytes, logits) = run_in(&engine, 64, weights).expect("logits");
        assert!(logits.iter().all(|l| l.is_finite()));
        (bytes, half)
    };
    let (whole, half) = bytes(Some(DType::F32), false, "q4");
    let shared = if half { 2 } else { 1 };
    assert_eq!(bytes(None, false, "q4").0 * shared, whole);
    assert_eq!(bytes(None, false, "q8").0 * shared, whole);
    for (kv, exact, weights) in [
        (None, true, "q4"),
        (None, false, "f32"),
        (None, false, "f16"),
    ] {
        assert_eq!(
            bytes(kv, exact, weights).0,
            whole,
            "{kv:?} {exact} {weights}"
        );
    }
    assert!(bytes(Some(DType::Q8_0), false, "q4").0 * 3 < whole);
}

#[test]
fn caches_in_f16_take_half_on_the_cpu() {
    compared(
        DeviceChoice::Cpu,
        DType::F16,
        2.0,
        1e-3,
        "caches_in_f16_take_half_on_the_cpu",
    );
}

#[test]
fn caches_in_q8_take_about_a_quarter_on_the_cpu() {
    compared(
        DeviceChoice::Cpu,
        DType::Q8_0,
        128.0 / 34.0,
        2e-2,
        "caches_in_q8_take_about_a_quarter_on_the_cpu",
    );
}

#[test]
fn caches_in_q8_take_about_a_quarter_on_a_gpu() {
    compared(
        DeviceChoice::Gpu,
        DType::Q8_0,
        128.0 / 34.0,
        2e-2,
        "caches_in_q8_take_about_a_quarter_on_a_gpu",
    );
}

#[test]
fn what_cannot_be_is_said() {
    let engine =
        block_on(Engine::new(options(DeviceChoice::Cpu, Some(DType::Q8_0)))).expect("a CPU");
    let why = run(&engine, 32)
        .expect_err("heads of half a pair of blocks")
        .to_string();
    assert!(
        why.contains("multiple of 64") && why.contains("have 32") && why.contains("f16"),
        "{why}"
    );
    let why = block_on(Engine::new(options(DeviceChoice::Cpu, Some(DType::Q4_0)))).err();
    let why = why.expect("refused").to_string();
    assert!(why.contains("key/value caches in q4_0"), "{why}");
}
