//! What the tests over reference checkpoints share: where they are, engines, copies with something changed, the comparison.

use firelight_runtime::pipelines::verify::{VerifyReport, verify};
use firelight_runtime::{DeviceChoice, Engine, EngineOptions, Error, Rung};
use firelight_testing::{gpu_or_skip, skip};
use std::path::{Path, PathBuf};

/// A fixture of `tests/data`.
pub(crate) fn data(family: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/data").join(family)
}

fn engine(device: DeviceChoice, rung: Option<Rung>, self_test: bool) -> Result<Engine, Error> {
    pollster::block_on(Engine::new(EngineOptions {
        device,
        rung,
        self_test,
        ..Default::default()
    }))
}

/// The CPU, on its best rung.
pub(crate) fn cpu() -> Engine {
    engine(DeviceChoice::Cpu, None, false).expect("a CPU")
}

/// What a report must say beyond that every comparison passed.
pub(crate) type Also = fn(&VerifyReport);

/// Every case of the checkpoint `dir` is right on `engine`, and what `also` asks.
pub(crate) fn passes(engine: &Engine, dir: &Path, also: Also) {
    let report = pollster::block_on(verify(engine, dir, &mut |_| ())).expect("runs");
    let failed: Vec<_> = report.checks.iter().filter(|c| !c.passed).collect();
    assert!(
        failed.is_empty(),
        "{} on {} ({}): {failed:#?}",
        report.family,
        report.device,
        report.rung
    );
    also(&report);
}

/// As [`passes`], for each of `families` on each rung of the CPU.
pub(crate) fn pass_on_the_cpu(families: &[&str], also: Also) {
    for rung in [Rung::CpuThreads, Rung::CpuSimd, Rung::CpuScalar] {
        let engine = engine(DeviceChoice::Cpu, Some(rung), true).expect("a CPU");
        for family in families {
            passes(&engine, &data(family), also);
        }
    }
}

/// As [`passes`], for each of `families` on each rung that a GPU here has; `test` is skipped where there is none.
pub(crate) fn pass_on_the_gpu(test: &str, families: &[&str], also: Also) {
    for rung in [Rung::GpuF32, Rung::GpuF16, Rung::GpuF16Subgroups] {
        let open = || engine(DeviceChoice::Gpu, Some(rung), true);
        let opened = match rung {
            Rung::GpuF32 => gpu_or_skip(test, open),
            _ => open().map_err(|e| skip!(test, rung, e)).ok(),
        };
        let Some(engine) = opened else { continue };
        for family in families {
            passes(&engine, &data(family), also);
        }
    }
}

/// A copy of a fixture in which `change` may break something.
pub(crate) fn altered(family: &str, change: impl FnOnce(&Path)) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).expect("the fixture").flatten() {
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                std::fs::create_dir(&to).expect("a folder");
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).expect("a copy");
            }
        }
    }
    let dir = tempfile::tempdir().expect("a folder");
    copy(&data(family), dir.path());
    change(dir.path());
    dir
}
