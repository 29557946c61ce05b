use super::*;
use crate::loader::Loader;
use crate::source::CancelToken;
use crate::{DeviceChoice, Dtypes, Engine, EngineOptions, GenerateOptions, Session};
use firelight_kernels::Weight;
use firelight_tensor::{Tensor, safetensors};
use pollster::block_on;
use proptest::prelude::*;
use std::path::Path;

fn fits(dtype: DType, values: &[f32]) -> bool {
    holds(dtype, bytemuck::cast_slice(values))
}

fn survives(dtype: DType, v: f32) -> bool {
    let tensor = Tensor::from_f32(&[v], &[1]).expect("f32");
    let Ok(half) = tensor.cast(dtype) else {
        return false;
    };
    half.to_f32_vec().expect("f32")[0].to_bits() == v.to_bits()
}

#[test]
fn every_half_fits_and_the_next_number_does_not() {
    for bits in 0..=u16::MAX {
        let v = half::f16::from_bits(bits).to_f32();
        if v.is_finite() {
            assert!(fits(DType::F16, &[1.0, v]), "{v:e}");
            let next = f32::from_bits(v.to_bits() ^ 1);
            assert!(!fits(DType::F16, &[1.0, next]), "{next:e}");
        }
        let v = half::bf16::from_bits(bits).to_f32();
        if v.is_finite() {
            assert!(fits(DType::BF16, &[v, 1.0]), "{v:e}");
            assert!(!fits(DType::BF16, &[f32::from_bits(v.to_bits() | 1), 1.0]));
        }
    }
}

/// The tiny llama, which is bf16, saved in f32 after `change` was made to a matrix in the middle of the file.
fn saved_in_f32(change: impl Fn(&mut [f32])) -> tempfile::TempDir {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/llama");
    let weights = Weights::open_path(&folder).expect("the tiny llama");
    let widened: Vec<(String, Tensor)> = weights
        .names()
        .map(|name| {
            let tensor = weights.read(name).expect("a tensor");
            let mut values = tensor.to_f32_vec().expect("floats");
            if name.contains("layers.1.mlp.down_proj") {
                change(&mut values);
            }
            let wide = Tensor::from_f32(&values, tensor.shape()).expect("f32");
            (name.to_owned(), wide)
        })
        .collect();
    let named = widened.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let bytes = safetensors::write_to_vec(&Default::default(), named).expect("a file");
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("model.safetensors"), bytes).expect("written");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(folder.join(file), dir.path().join(file)).expect("copied");
    }
    dir
}

fn as_stored() -> Dtypes {
    "f32".parse().expect("a type")
}

/// Bytes on the device, and the start of an answer.
fn loaded(folder: &Path, dtypes: Dtypes) -> (u64, Vec<u32>, bool) {
    let engine = block_on(Engine::new(EngineOptions {
        device: DeviceChoice::Cpu,
        dtypes,
        exact: true,
        self_test: false,
        ..Default::default()
    }))
    .expect("a CPU");
    let mut last = 0;
    let mut forward = |done, _| {
        assert!(done >= last, "progress went back");
        last = done;
    };
    let model = block_on(engine.load(folder, &mut forward)).expect("loads");
    let bytes = model.device.memory().total_bytes();
    let mut session = Session::new(&engine, &model).expect("a session");
    let options = GenerateOptions {
        max_tokens: 8,
        ignore_eos: true,
        ..Default::default()
    };
    let cancel = CancelToken::new();
    let mut ignore = |_| ();
    let answer = session.generate(&[3, 5, 7, 11, 13], &options, &cancel, &mut ignore);
    let ids = block_on(answer).expect("an answer").ids;
    (bytes, ids, model.device.reads_f16())
}

#[test]
fn a_model_saved_too_wide_takes_half_the_memory_and_answers_the_same() {
    let folder = saved_in_f32(|_| ());
    let (bytes, ids, half) = loaded(folder.path(), Dtypes::default());
    let (whole, expected, _) = loaded(folder.path(), as_stored());
    assert_eq!(ids, expected);
    let matrices = 2 * (whole - bytes);
    assert!(if half {
        matrices > whole * 9 / 10
    } else {
        bytes == whole
    });
}

#[test]
fn a_number_between_the_samples_that_needs_its_bits_keeps_them() {
    let folder = saved_in_f32(|values| {
        let at = values.len() * 9 / 10;
        values[at] = 0.1;
    });
    let (bytes, ids, _) = loaded(folder.path(), Dtypes::default());
    assert_eq!((bytes, ids), {
        let (bytes, ids, _) = loaded(folder.path(), as_stored());
        (bytes, ids)
    });
}

/// Ones, but for one.
fn with(at: usize, value: f32) -> Tensor {
    let mut values = vec![1.0; 64 * 512];
    values[at] = value;
    Tensor::from_f32(&values, &[64, 512]).expect("f32")
}

fn checkpoint_of(tensors: &[(&str, &Tensor)]) -> (tempfile::TempDir, Checkpoint) {
    let named = tensors.iter().copied();
    let bytes = safetensors::write_to_vec(&Default::default(), named).expect("a file");
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("model.safetensors"), bytes).expect("written");
    std::fs::write(dir.path().join("config.json"), "{}").expect("written");
    let checkpoint = Checkpoint::open(dir.path()).expect("opens");
    (dir, checkpoint)
}

fn bytes_of(device: &Device, weight: &Weight) -> Vec<u8> {
    let [shard] = weight.shards() else {
        panic!("one shard")
    };
    block_on(device.read(&shard.array)).expect("bytes")
}

#[test]
fn a_matrix_that_is_turned_is_held_and_checked_alike() {
    let (fine, late) = (with(700, 0.5), with(64 * 512 - 1, 0.1));
    let (_dir, checkpoint) = checkpoint_of(&[("a.weight", &fine), ("b.weight", &late)]);
    let device = Device::cpu(&Default::default()).expect("a CPU");
    let mut progress = |_, _| ();
    let mut loader = Loader::new(&checkpoint, &device, |_| None, &mut progress);
    for (name, tensor, held) in [("a", fine, DType::F16), ("b", late, DType::F32)] {
        let held = if device.reads_f16() { held } else { DType::F32 };
        let weight = loader.transposed(name, 0..512, 512, 64).expect("loads");
        assert_eq!(weight.dtype(), held, "{name}");
        let values = tensor.to_f32_vec().expect("f32");
        let turned: Vec<f32> = (0..64 * 512)
            .map(|i| values[i % 64 * 512 + i / 64])
            .collect();
        let turned = Tensor::from_f32(&turned, &[512, 64]).expect("f32");
        let expected = turned.cast(held).expect("casts");
        assert!(bytes_of(&device, &weight) == expected.bytes(), "{name}");
    }
}

#[test]
fn each_matrix_has_the_type_that_holds_it() {
    // At the beginning or the end what needs more than bf16, more than f16, more than both.
    let last = 64 * 512 - 1;
    let (fine, small) = (with(0, 1.0 + 2f32.powi(-10)), with(0, 2f32.powi(-30)));
    let (wide, late) = (with(0, 0.1), with(last, 0.1));
    let tensors = [
        ("a.weight", &fine),
        ("b.weight", &small),
        ("c.weight", &wide),
        ("d.weight", &late),
        ("e.weight", &fine),
    ];
    let (_dir, checkpoint) = checkpoint_of(&tensors);
    let device = Device::cpu(&Default::default()).expect("a CPU");
    let mut progress = |_, _| ();
    let mut loader = Loader::new(&checkpoint, &device, |_| None, &mut progress);
    let or_f32 = |dtype| {
        if device.reads_f16() {
            dtype
        } else {
            DType::F32
        }
    };
    for ((name, tensor), held) in tensors.into_iter().zip([
        or_f32(DType::F16),
        or_f32(DType::BF16),
        DType::F32,
        DType::F32,
        // After one that its sample had wrong all are as they are stored.
        DType::F32,
    ]) {
        let name = name.trim_end_matches(".weight");
        let weight = loader.weight(name, 64, 512).expect("loads");
        assert_eq!(weight.dtype(), held, "{name}");
        let stored = tensor.cast(held).expect("casts");
        assert!(bytes_of(&device, &weight) == stored.bytes(), "{name}");
    }
}

proptest! {
    #[test]
    fn what_fits_is_what_survives(bits in any::<u32>(), cleared in 0u32..24) {
        let v = f32::from_bits(bits >> cleared << cleared);
        prop_assume!(v.is_finite());
        for dtype in [DType::F16, DType::BF16] {
            prop_assert_eq!(fits(dtype, &[v]), survives(dtype, v), "{} {:e}", dtype, v);
        }
    }
}
