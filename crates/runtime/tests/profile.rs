//! Profiles tell of every call of a step, and change nothing in it.

use firelight_kernels::Rung;
use firelight_runtime::pipelines::profile::{ProfileOptions, profile};
use firelight_runtime::{DeviceChoice, Engine, EngineOptions, LoadedModel, State};
use firelight_testing::gpu_or_skip;
use pollster::block_on;
use std::path::Path;

fn load(device: DeviceChoice, rung: Option<Rung>) -> firelight_runtime::Result<LoadedModel> {
    let options = EngineOptions {
        device,
        rung,
        self_test: false,
        ..Default::default()
    };
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/llama");
    block_on(async { Engine::new(options).await?.load(dir, &mut |_, _| ()).await })
}

fn check(model: &LoadedModel) {
    let options = ProfileOptions {
        prefill: 20,
        runs: 2,
    };
    let report = block_on(profile(model, &options)).expect("a profile");
    assert!(report.bandwidth > 0.0 && report.flops > 0.0);
    let [prompt, token] = &report.steps[..] else {
        panic!("two steps: {report:?}");
    };
    assert_eq!((prompt.tokens, token.tokens), (20, 1));
    for step in [prompt, token] {
        assert!(step.seconds > 0.0, "{step:?}");
        let calls: usize = step.kernels.iter().map(|k| k.calls).sum();
        assert_eq!(calls, step.calls.len());
        let share: f64 = step.kernels.iter().map(|k| k.share).sum();
        assert!((share - 1.0).abs() < 1e-6, "{share}");
        // Calls follow each other.
        assert!(
            step.calls
                .windows(2)
                .all(|w| w[0].start_ns <= w[1].start_ns)
        );
        let linear = step
            .kernels
            .iter()
            .find(|k| k.kernel.starts_with("linear/"));
        let linear = linear.expect("a decoder multiplies");
        assert!(linear.bytes_per_s > Some(0.0) && linear.flops_per_s > Some(0.0));
    }
    let events = report.chrome_trace()["traceEvents"]
        .as_array()
        .expect("events")
        .len();
    assert_eq!(events, 2 + prompt.calls.len() + token.calls.len());

    // A step under the clock computes what a step does.
    let (mut timed, mut plain) = (
        State::new(&model.device, &model.model).expect("a state"),
        State::new(&model.device, &model.model).expect("a state"),
    );
    let ids: Vec<u32> = (0..20).map(|i| (i * 37 + 5) % 380).collect();
    block_on(async {
        timed.profile_prompt(&ids).await.expect("times");
        plain.logits(&ids, |_, _| Ok(())).await.expect("logits");
        let (a, b) = (
            timed.step_logits(7).await.expect("logits"),
            plain.step_logits(7).await.expect("logits"),
        );
        let worst = a
            .iter()
            .zip(&b)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-3, "{worst}");
    });
}

#[test]
fn every_call_is_told_cpu() {
    check(&load(DeviceChoice::Cpu, None).expect("a CPU"));
}

#[test]
fn every_call_is_told_gpu() {
    let model = gpu_or_skip("every_call_is_told_gpu", || {
        load(DeviceChoice::Gpu, Some(Rung::GpuF32))
    });
    if let Some(model) = model {
        check(&model);
    }
}

#[test]
fn what_cannot_be_profiled_is_said() {
    let model = load(DeviceChoice::Cpu, None).expect("a CPU");
    for prefill in [0, 257] {
        let options = ProfileOptions { prefill, runs: 1 };
        let why = block_on(profile(&model, &options))
            .expect_err("refused")
            .to_string();
        assert!(why.contains("profiled prompt"), "{why}");
    }
}
