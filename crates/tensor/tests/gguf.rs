//! GGUF: files of the reference writer and of our own.

mod common;

use common::{Reading, lending, step_by_step};
use firelight_tensor::gguf::{Array, Gguf, Metadata, StrArray, Value, Writer, parse_header};
use firelight_tensor::{ByteSource, DType, Error, HeaderStep, Tensor, Weights};
use proptest::prelude::*;
use std::sync::Arc;

const ALL_TYPES: &[u8] = include_bytes!("goldens/all-types.gguf");
const PART_1: &[u8] = include_bytes!("goldens/split-00001-of-00002.gguf");
const PART_2: &[u8] = include_bytes!("goldens/split-00002-of-00002.gguf");

#[test]
fn reads_every_metadata_type_of_the_reference_writer() {
    let file = Gguf::open(lending(ALL_TYPES)).unwrap();
    let m = file.metadata();
    assert_eq!((file.version(), file.alignment()), (3, 64));
    assert_eq!(m.get_str("general.architecture").unwrap(), Some("llama"));
    let one = |name: &str| m.get(&format!("one.{name}")).unwrap().clone();
    assert_eq!(one("uint8"), Value::U8(200));
    assert_eq!(one("int8"), Value::I8(-100));
    assert_eq!(one("uint16"), Value::U16(60_000));
    assert_eq!(one("int16"), Value::I16(-30_000));
    assert_eq!(one("uint32"), Value::U32(4_000_000_000));
    assert_eq!(one("int32"), Value::I32(-2_000_000_000));
    assert_eq!(one("uint64"), Value::U64((1 << 63) + 5));
    assert_eq!(one("int64"), Value::I64(-(1 << 62)));
    assert_eq!(one("float32"), Value::F32(0.5));
    assert_eq!(one("float64"), Value::F64(1e300));
    assert_eq!(one("bool"), Value::Bool(true));
    assert_eq!(one("string"), Value::String("héllo\n".into()));
    let many = |name: &str| match m.get(&format!("many.{name}")) {
        Some(Value::Array(a)) => a.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(many("uint8"), Array::U8(vec![200, 0]));
    assert_eq!(many("int8"), Array::I8(vec![-100, 0]));
    assert_eq!(many("uint16"), Array::U16(vec![60_000, 0]));
    assert_eq!(many("int16"), Array::I16(vec![-30_000, 0]));
    assert_eq!(many("uint32"), Array::U32(vec![4_000_000_000, 0]));
    assert_eq!(many("int32"), Array::I32(vec![-2_000_000_000, 0]));
    assert_eq!(many("uint64"), Array::U64(vec![(1 << 63) + 5, 0]));
    assert_eq!(many("int64"), Array::I64(vec![-(1 << 62), 0]));
    assert_eq!(many("float32"), Array::F32(vec![0.5, 0.0]));
    assert_eq!(many("float64"), Array::F64(vec![1e300, 0.0]));
    assert_eq!(many("bool"), Array::Bool(vec![true, false]));
    assert_eq!(
        many("string"),
        Array::String(StrArray::from_iter(["héllo\n"]))
    );
    let tokens = m.require::<&StrArray>("tokens").unwrap();
    assert_eq!(tokens.to_vec(), ["<s>", "", "▁the", "\u{1f600}"]);
    assert_eq!((tokens.get(2), tokens.get(4)), (Some("▁the"), None));
}

#[test]
fn reads_the_tensors_of_the_reference_writer() {
    for source in [lending(ALL_TYPES), Reading::new(ALL_TYPES)] {
        let file = Gguf::open(source).unwrap();
        let values = |name: &str| file.read(name).unwrap().to_f32_vec().unwrap();
        let matrix = file.read("matrix").unwrap();
        assert_eq!((matrix.dtype(), matrix.shape()), (DType::F32, &[2, 3][..]));
        assert_eq!(matrix.as_f32().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(values("half"), [0.5, -2.0, 65504.0]);
        assert_eq!(values("bytes"), [-128.0, 0.0, 127.0]);
        assert_eq!(file.info("ints").unwrap().shape.dims(), [2, 1]);
        assert_eq!(values("ints"), [-1.0, 7.0]);
        assert_eq!(values("longs"), [-1_099_511_627_776.0, 3.0]);
        assert_eq!(file.info("quantised").unwrap().dtype, DType::Q8_0);
        for (i, v) in values("quantised").into_iter().enumerate() {
            let expected = -4.0 + 8.0 * i as f32 / 127.0;
            assert!((v - expected).abs() < 0.02, "{i}: {v} for {expected}");
        }
        // A type that is not read is listed, named, and left alone.
        assert_eq!(file.unsupported()[0].type_name, "F64");
        assert_eq!(file.info("doubles"), None);
        let error = file.read("doubles").unwrap_err();
        assert!(
            matches!(&error, Error::Unsupported(s) if s.contains("F64")),
            "{error}"
        );
        let error = file.read("nothing").unwrap_err();
        assert!(
            matches!(&error, Error::InvalidInput(s) if s.contains("`nothing`")),
            "{error}"
        );
    }
}

#[test]
fn getters_convert_only_what_fits() {
    let file = Gguf::open(lending(ALL_TYPES)).unwrap();
    let m = file.metadata();
    assert_eq!(m.get_u32("one.uint8").unwrap(), Some(200));
    assert_eq!(m.get_u64("one.uint64").unwrap(), Some((1 << 63) + 5));
    assert_eq!(m.get_i32("one.int16").unwrap(), Some(-30_000));
    assert_eq!(m.get_f32("one.float32").unwrap(), Some(0.5));
    assert_eq!(m.get_f64("one.float32").unwrap(), Some(0.5));
    assert_eq!(m.get_bool("one.bool").unwrap(), Some(true));
    assert_eq!(m.get_u32("absent").unwrap(), None);
    assert_eq!(
        m.get_array_i32("many.uint8").unwrap().unwrap(),
        &[200, 0][..]
    );
    assert_eq!(
        m.get_array_f32("many.float32").unwrap().unwrap(),
        &[0.5, 0.0][..]
    );
    assert_eq!(
        m.get_array_bool("many.bool").unwrap().unwrap(),
        [true, false]
    );
    for wrong in [
        m.get_u32("one.int8").map(|_| ()),
        m.get_u32("one.uint64").map(|_| ()),
        m.get_i64("one.uint64").map(|_| ()),
        m.get_u32("one.float32").map(|_| ()),
        m.get_u32("one.bool").map(|_| ()),
        m.get_f32("one.uint8").map(|_| ()),
        m.get_f32("one.float64").map(|_| ()),
        m.get_array_i32("many.uint32").map(|_| ()),
        m.get_array_f32("many.float64").map(|_| ()),
        m.get_array_str("many.int8").map(|_| ()),
        m.get_str("many.string").map(|_| ()),
        m.require::<u32>("absent").map(|_| ()),
    ] {
        assert!(matches!(wrong, Err(Error::InvalidInput(_))), "{wrong:?}");
    }
    let text = m.get_u32("one.int8").unwrap_err().to_string();
    assert!(
        text.contains("one.int8") && text.contains("u32") && text.contains("-100"),
        "{text}"
    );
}

#[test]
fn split_sets() {
    let parts = |list: &[&[u8]]| Gguf::open_parts(list.iter().map(|p| lending(p)).collect());
    let file = parts(&[PART_1, PART_2]).unwrap();
    assert_eq!(
        file.metadata().get_str("general.name").unwrap(),
        Some("split set")
    );
    let names: Vec<_> = file
        .tensors()
        .iter()
        .map(|t| (t.name.as_str(), t.part))
        .collect();
    assert_eq!(names, [("t0", 0), ("t1", 0), ("t2", 1)]);
    assert_eq!(file.read("t2").unwrap().to_f32_vec().unwrap(), [2.0; 12]);
    for (list, words) in [
        (&[PART_1][..], "split set of 2, 1 given"),
        (&[PART_2], "split set of 2, 1 given"),
        (
            &[PART_2, PART_1],
            "is part 2 of its split set, given as part 1",
        ),
        (
            &[PART_1, PART_1],
            "is part 1 of its split set, given as part 2",
        ),
        (&[PART_1, PART_2, PART_2], "split set of 2, 3 given"),
        (&[], "no parts"),
    ] {
        let error = parts(list).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn split_sets_by_path() {
    let dir = tempfile::tempdir().unwrap();
    let at = |no| dir.path().join(format!("split-0000{no}-of-00002.gguf"));
    std::fs::write(at(1), PART_1).unwrap();
    let error = Weights::open_path(at(1)).err().unwrap();
    assert!(
        matches!(&error, Error::Io { path, .. } if path.contains("00002-of-00002")),
        "{error}"
    );
    std::fs::write(at(2), PART_2).unwrap();
    for path in [at(1), at(2), dir.path().to_path_buf()] {
        let weights = Weights::open_path(path).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["t0", "t1", "t2"]);
        assert_eq!(weights.read("t1").unwrap().to_f32_vec().unwrap(), [1.0; 8]);
    }
}

/// A small file with a bit of everything, of our own writer.
fn small() -> Vec<u8> {
    let mut w = Writer::new();
    w.metadata("general.architecture", "test").unwrap();
    w.metadata("n", 7u64).unwrap();
    w.metadata("list", vec![1.5f32, -2.0]).unwrap();
    w.metadata("words", vec!["a".to_owned(), "bc".to_owned()])
        .unwrap();
    w.metadata("flag", true).unwrap();
    w.metadata(
        "deep",
        Array::Array(vec![Array::I8(vec![1]), Array::Array(vec![])]),
    )
    .unwrap();
    let a = Tensor::from_f32(&[1.0, 2.0, f32::NAN, f32::INFINITY], &[2, 2]).unwrap();
    let b = Tensor::from_f32(&[0.25; 64], &[2, 32])
        .unwrap()
        .cast(DType::Q4_0)
        .unwrap();
    w.write_all(Vec::new(), [("a", &a), ("b.weight", &b)])
        .unwrap()
}

#[test]
fn what_is_written_is_read() {
    let bytes = small();
    let file = Gguf::open(lending(&bytes)).unwrap();
    assert_eq!(file.metadata().get_usize("n").unwrap(), Some(7));
    // NaN and infinities are data, not faults.
    let a = file.read("a").unwrap();
    assert!(a.as_f32().unwrap()[2].is_nan() && a.as_f32().unwrap()[3] == f32::INFINITY);
    assert_eq!(
        file.read("b.weight").unwrap().to_f32_vec().unwrap(),
        [0.25; 64]
    );
    // Copying metadata and tensors gives the same contents again.
    let mut w = Writer::new();
    w.all_metadata(file.metadata()).unwrap();
    let tensors: Vec<_> = file
        .tensors()
        .iter()
        .map(|t| (t.name.clone(), file.read(&t.name).unwrap()))
        .collect();
    let copy = w
        .write_all(Vec::new(), tensors.iter().map(|(n, t)| (n.as_str(), t)))
        .unwrap();
    let again = Gguf::open(lending(&copy)).unwrap();
    assert_eq!(again.metadata(), file.metadata());
    for (name, tensor) in &tensors {
        assert_eq!(again.read(name).unwrap().bytes(), tensor.bytes());
    }
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let mut w = Writer::new();
    w.metadata("k", 1u32).unwrap();
    assert!(w.metadata("k", 2u32).is_err());
    assert!(w.metadata("general.alignment", 48u32).is_err());
    assert!(w.metadata("general.alignment", 64u64).is_err());
    w.tensor("t", DType::F32, &[2]).unwrap();
    assert!(w.tensor("t", DType::F32, &[2]).is_err());
    assert!(w.tensor("bool", DType::Bool, &[2]).is_err());
    assert!(w.tensor("q", DType::Q8_0, &[3, 16]).is_err());
    assert!(w.tensor("huge", DType::F32, &[usize::MAX, 2]).is_err());
    assert!(w.tensor("deep", DType::F32, &[1; 9]).is_err());
    let mut data = w.start(Vec::new()).unwrap();
    assert!(data.write("other", &[0; 8]).is_err());
    assert!(data.write("t", &[0; 7]).is_err());
    data.write("t", &[0; 8]).unwrap();
    assert!(data.write("t", &[0; 8]).is_err());
    assert_eq!(data.finish().unwrap().len() % 32, 0);
    let mut w = Writer::new();
    w.tensor("t", DType::F32, &[2]).unwrap();
    assert!(w.start(Vec::new()).unwrap().finish().is_err());
}

#[test]
fn the_header_is_read_in_steps() {
    for file in [ALL_TYPES, &small()] {
        let whole = Gguf::open(lending(file)).unwrap();
        let header = step_by_step(file, parse_header).unwrap();
        assert_eq!(header.tensors, whole.tensors());
        assert_eq!(&header.metadata, whole.metadata());
        // Joined with a source, such a header is the open file.
        let joined = Gguf::from_headers(vec![(header.clone(), lending(file))]).unwrap();
        for t in whole.tensors() {
            let (a, b) = (joined.read(&t.name).unwrap(), whole.read(&t.name).unwrap());
            assert_eq!(a.bytes(), b.bytes());
        }
        // Any prefix of the header asks for more; any from its end on is enough.
        let end = (0..=file.len())
            .find(|&n| {
                matches!(
                    parse_header(&file[..n], file.len() as u64),
                    Ok(HeaderStep::Done(_))
                )
            })
            .unwrap();
        assert!(end as u64 <= header.data_start);
        for n in end..=file.len() {
            let step = parse_header(&file[..n], file.len() as u64).unwrap();
            assert_eq!(step, HeaderStep::Done(header.clone()));
        }
    }
}

#[test]
fn only_the_header_and_the_tensor_asked_for_are_read() {
    let big = Tensor::zeros(DType::F32, &[4 << 20]).unwrap();
    let one = Tensor::from_f32(&[3.0], &[1]).unwrap();
    let bytes = Writer::new()
        .write_all(Vec::new(), [("big", &big), ("one", &one)])
        .unwrap();
    let source = Reading::new(&bytes);
    let file = Gguf::open(source.clone()).unwrap();
    assert_eq!(file.read("one").unwrap().to_f32_vec().unwrap(), [3.0]);
    let read = source.read.load(std::sync::atomic::Ordering::Relaxed);
    assert!(read <= (1 << 20) + 4, "{read} of {} bytes", source.len());
}

#[test]
fn every_truncation_and_every_changed_byte_is_survived() {
    for file in [ALL_TYPES, PART_1, &small()] {
        for n in 0..file.len() {
            // What is cut inside a tensor is an error when the file is opened, not when it is used.
            let last = Gguf::open(lending(file)).ok().map_or(usize::MAX, |f| {
                f.tensors()
                    .iter()
                    .map(|t| t.offset as usize + t.nbytes)
                    .max()
                    .unwrap()
            });
            let opened = Gguf::open(lending(&file[..n]));
            assert!(opened.is_err() || n >= last, "opened {n} of {}", file.len());
        }
        let mut changed = file.to_vec();
        for i in 0..file.len() {
            for flip in [0x01, 0x80, 0xff] {
                changed[i] ^= flip;
                read_all(&changed);
                changed[i] ^= flip;
            }
        }
    }
}

/// Opens and reads whatever can be opened and read.
fn read_all(bytes: &[u8]) {
    let Ok(file) = Gguf::open(lending(bytes)) else {
        return;
    };
    for info in file.tensors() {
        assert_eq!(
            file.read(&info.name).unwrap().to_f32_vec().unwrap().len(),
            info.shape.elements()
        );
    }
}

#[test]
fn a_large_vocabulary_is_read_quickly() {
    let words: StrArray = (0..262_144).map(|i| format!("token{i}")).collect();
    let scores = vec![-1.5f32; words.len()];
    let mut w = Writer::new();
    w.metadata("tokens", words.clone())
        .unwrap()
        .metadata("scores", scores)
        .unwrap();
    let bytes = w.start(Vec::new()).unwrap().finish().unwrap();
    for source in [lending(&bytes), Reading::new(&bytes)] {
        let start = std::time::Instant::now();
        let file = Gguf::open(source).unwrap();
        let took = start.elapsed();
        assert_eq!(
            file.metadata().get_array_str("tokens").unwrap(),
            Some(&words)
        );
        // About 10 ms when optimised; the bound is for slow machines and still far under quadratic behaviour.
        assert!(took.as_millis() < 1500, "{took:?}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e30f32..1e30).prop_map(Value::F32),
        (-1e300f64..1e300).prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        any::<String>().prop_map(Value::String),
    ];
    let arrays = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::from),
        prop::collection::vec(any::<i32>(), 0..9).prop_map(Value::from),
        prop::collection::vec(any::<i64>(), 0..9).prop_map(Value::from),
        prop::collection::vec(any::<bool>(), 0..9).prop_map(Value::from),
        prop::collection::vec(any::<String>(), 0..9).prop_map(Value::from),
        prop::collection::vec(
            prop::collection::vec(any::<u16>(), 0..3).prop_map(Array::U16),
            0..4
        )
        .prop_map(|v| Value::Array(Array::Array(v))),
    ];
    prop_oneof![leaf, arrays]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any metadata and any tensors survive writing and reading, at any alignment, in one go and in steps.
    #[test]
    fn round_trip(
        metadata in prop::collection::btree_map("[a-z.]{1,12}", any_value(), 0..12),
        shapes in prop::collection::vec((1usize..4, 1usize..3), 0..5),
        alignment in prop::sample::select(vec![1u32, 8, 32, 256]),
    ) {
        let dtypes = [DType::F32, DType::Q4K, DType::BF16, DType::I8, DType::Q8_0];
        let tensors: Vec<_> = shapes.iter().enumerate().map(|(i, &(rows, blocks))| {
            let dtype = dtypes[i];
            let shape = [rows, blocks * dtype.block_len()];
            let size = dtype.bytes_for(shape.iter().product()).unwrap();
            let bytes: Vec<u8> = (0..size).map(|b| (b * 31 + i) as u8).collect();
            (format!("t{i}"), Tensor::new(dtype, &shape, bytes).unwrap())
        }).collect();
        let mut w = Writer::new();
        w.all_metadata(&Metadata::from_iter(metadata.clone())).unwrap();
        w.metadata("general.alignment", alignment).unwrap();
        let file = w.write_all(Vec::new(), tensors.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
        let header = step_by_step(&file, parse_header).unwrap();
        prop_assert_eq!(header.metadata.len(), metadata.len() + 1);
        let sources: [Arc<dyn ByteSource>; 2] = [lending(&file), Reading::new(&file)];
        for source in sources {
            let read = Gguf::open(source).unwrap();
            for (key, value) in &metadata {
                prop_assert_eq!(read.metadata().get(key), Some(value));
            }
            prop_assert_eq!(read.tensors().len(), tensors.len());
            for (name, tensor) in &tensors {
                let info = read.info(name).unwrap();
                prop_assert_eq!(info.offset % u64::from(alignment), 0);
                let back = read.read(name).unwrap();
                prop_assert_eq!(back.dtype(), tensor.dtype());
                prop_assert_eq!(back.shape(), tensor.shape());
                prop_assert_eq!(back.bytes(), tensor.bytes());
            }
        }
    }

    /// Noise after a true beginning is never a panic.
    #[test]
    fn noise(noise in prop::collection::vec(any::<u8>(), 0..400), keep in 0usize..1920) {
        let mut bytes = ALL_TYPES[..keep].to_vec();
        bytes.extend(&noise);
        read_all(&bytes);
    }
}
