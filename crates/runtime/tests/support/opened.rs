//! Engines and fixtures as most tests open them: no self-test, the CPU's best rung, the GPU's lowest.
#![allow(dead_code)] // No test needs all of it.

use firelight_runtime::{DeviceChoice, Engine, EngineOptions, LoadedModel, Result, Rung};
use firelight_testing::gpu_or_skip;
use pollster::block_on;
use std::path::{Path, PathBuf};

/// A file or folder of `tests/data`.
pub(crate) fn data(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/data").join(path)
}

/// An engine with these options, but without its self-test.
pub(crate) fn engine(options: EngineOptions) -> Result<Engine> {
    block_on(Engine::new(EngineOptions {
        self_test: false,
        ..options
    }))
}

/// The CPU.
pub(crate) fn cpu() -> Engine {
    let device = DeviceChoice::Cpu;
    engine(EngineOptions {
        device,
        ..Default::default()
    })
    .expect("a CPU")
}

/// The GPU in f32; without one `test` is skipped.
pub(crate) fn gpu(test: &str) -> Option<Engine> {
    gpu_or_skip(test, || {
        engine(EngineOptions {
            device: DeviceChoice::Gpu,
            rung: Some(Rung::GpuF32),
            ..Default::default()
        })
    })
}

/// The model of a fixture.
pub(crate) fn load(engine: &Engine, family: &str) -> LoadedModel {
    block_on(engine.load(data(family), &mut |_, _| ())).expect("the fixture loads")
}
