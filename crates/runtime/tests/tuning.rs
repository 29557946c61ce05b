//! What was measured on a device is used at the next start there, and nowhere else.

use firelight_kernels::tune::{Pick, Tuned, Tuning};
use firelight_kernels::{DType, KERNELS};
use firelight_runtime::tuning::{TuningUse, file_of, save};
use firelight_runtime::{DeviceChoice, Engine, EngineOptions};
use pollster::block_on;
use std::path::Path;

const NAME: &str = "matmul.task_work";
const VALUE: u32 = 1 << 19;

fn engine(folder: &Path, tuned: bool) -> Engine {
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        threads: Some(2),
        cache_dir: Some(folder.to_owned()),
        tuned,
        ..Default::default()
    };
    block_on(Engine::new(options)).expect("a CPU")
}

fn in_use(engine: &Engine) -> u32 {
    let tunable = Tuning::find(KERNELS, NAME).expect("a number of the processor");
    engine.device().caps().tuned(tunable, DType::Q4_1)
}

fn ignored(folder: &Path) -> String {
    let engine = engine(folder, true);
    assert_ne!(in_use(&engine), VALUE);
    assert!(engine.report().self_test.expect("ran").passed());
    match engine.report().tuning {
        TuningUse::Ignored { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_is_used_on_its_own_device_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let plain = engine(folder, true);
    assert_eq!(plain.report().tuning, TuningUse::None);

    let tunable = Tuning::find(KERNELS, NAME).expect("a number of the processor");
    let pick = |dtype, value| Pick {
        tunable,
        dtype,
        value,
        speeds: vec![(tunable.default, 1.0), (value, 1.25)],
        wrong: Vec::new(),
    };
    let found = Tuned {
        picks: vec![pick(DType::Q4_1, VALUE), pick(DType::F16, tunable.default)],
        ..Tuned::default()
    };
    let file = save(folder, &plain.device(), &found).expect("written");
    assert_eq!(file, file_of(folder, &plain.device()));

    let tuned = engine(folder, true);
    assert_eq!(in_use(&tuned), VALUE);
    assert!(tuned.report().self_test.expect("ran").passed());
    let expected = TuningUse::Used {
        file: file.clone(),
        chosen: 1,
    };
    assert_eq!(tuned.report().tuning, expected);
    // Not asked for.
    assert_eq!(engine(folder, false).report().tuning, TuningUse::None);
    assert_ne!(in_use(&engine(folder, false)), VALUE);

    // Of another device or version, damaged, cut, of numbers that are none.
    let good = std::fs::read_to_string(&file).expect("text");
    let put = |text: &str| std::fs::write(&file, text).expect("written");
    put(&good.replace("2 threads", "3 threads"));
    assert!(ignored(folder).contains("3 threads"));
    for (from, to) in [
        (NAME, "matmul.other"),
        ("524288", "524289"),
        ("q4_1", "q4_9"),
        ("\"format\": 1", "\"format\": 2"),
        ("\"chosen\"", "\"choosen\""),
    ] {
        assert!(good.contains(from), "{from}: {good}");
        put(&good.replace(from, to));
        assert!(ignored(folder).contains("it"), "{to}");
    }
    for end in [0, 1, good.len() / 2, good.len() - 2] {
        put(&good[..end]);
        assert!(ignored(folder).contains("damaged"), "{end} bytes");
    }

    std::fs::remove_file(&file).expect("removed");
    assert_eq!(engine(folder, true).report().tuning, TuningUse::None);
}
