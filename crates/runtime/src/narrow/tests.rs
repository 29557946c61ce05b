use super::*;
use crate::loader::Loader;
use crate::source::CancelToken;
use crate::{DeviceChoice, Engine, EngineOptions, GenerateOptions, Session};
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

/// The tiny llama, which is bf16, saved in f32 after `change` was made to its embeddings.
fn saved_in_f32(change: impl Fn(&mut [f32])) -> tempfile::TempDir {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/llama");
    let weights = Weights::open_path(&folder).expect("the tiny llama");
    let widened: Vec<(String, Tensor)> = weights
        .names()
        .map(|name| {
            let tensor = weights.read(name).expect("a tensor");
            let mut values = tensor.to_f32_vec().expect("floats");
            if name.contains("embed_tokens") {
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

/// Bytes on the device, and the start of an answer.
fn loaded(folder: &Path, dtypes: &str) -> (u64, Vec<u32>, bool) {
    let engine = block_on(Engine::new(EngineOptions {
        device: DeviceChoice::Cpu,
        dtypes: dtypes.parse().unwrap_or_default(),
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
    let (bytes, ids, half) = loaded(folder.path(), "");
    let (whole, expected, _) = loaded(folder.path(), "f32");
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
    let folder = saved_in_f32(|embeddings| {
        let at = embeddings.len() * 4 / 5;
        embeddings[at] = 0.1;
    });
    let (bytes, ids, _) = loaded(folder.path(), "");
    assert_eq!((bytes, ids), {
        let (bytes, ids, _) = loaded(folder.path(), "f32");
        (bytes, ids)
    });
}

#[test]
fn each_matrix_has_the_type_that_holds_it() {
    // Ones, and at the beginning or the end what needs more than bf16, more than f16, more than both.
    let with = |at: usize, value: f32| {
        let mut values = vec![1.0; 64 * 512];
        values[at] = value;
        Tensor::from_f32(&values, &[64, 512]).expect("f32")
    };
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
    let bytes = safetensors::write_to_vec(&Default::default(), tensors).expect("a file");
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("model.safetensors"), bytes).expect("written");
    std::fs::write(dir.path().join("config.json"), "{}").expect("written");
    let checkpoint = Checkpoint::open(dir.path()).expect("opens");
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
        let [shard] = weight.shards() else {
            panic!("one shard")
        };
        let bytes = block_on(device.read(&shard.array)).expect("bytes");
        let stored = tensor.cast(held).expect("casts");
        assert!(bytes == stored.bytes(), "{name}");
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
