//! safetensors: round trips, shards, and headers that lie.

mod common;

use common::{Reading, lending, malformed, over_limit, step_by_step};
use firelight_tensor::safetensors::{self, SafeTensors, parse_header, parse_index, write_to_vec};
use firelight_tensor::{DType, Error, HeaderStep, Tensor, Weights};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A file of this header text and this many data bytes.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.resize(out.len() + data, 7);
    out
}

/// What opening gives, by way of slices and of reads alike.
fn open(header: &str, data: usize) -> firelight_tensor::Result<SafeTensors> {
    let bytes = file(header, data);
    let lent = SafeTensors::open(lending(&bytes));
    let read = SafeTensors::open(Reading::new(&bytes));
    let steps = step_by_step(&bytes, parse_header);
    assert_eq!(
        format!("{:?}", lent.as_ref().err()),
        format!("{:?}", read.err())
    );
    assert_eq!(
        format!("{:?}", lent.as_ref().err()),
        format!("{:?}", steps.err())
    );
    lent
}

fn tensor(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

#[test]
fn reads_tensors_and_metadata() {
    let header = format!(
        r#"{{"__metadata__":{{"format":"pt"}},{},{},{}}}  "#,
        tensor("b", "U8", "[2,2]", 8, 12),
        tensor("a", "F32", "[2]", 0, 8),
        tensor("none", "F16", "[0,3]", 12, 12),
    );
    let st = open(&header, 12).unwrap();
    assert_eq!(st.metadata()["format"], "pt");
    let names: Vec<_> = st.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "none"]);
    assert_eq!(st.read("b").unwrap().to_f32_vec().unwrap(), [7.0; 4]);
    assert_eq!(st.read("none").unwrap().to_f32_vec().unwrap(), [0.0; 0]);
    assert_eq!(
        st.read("a").unwrap().to_f32_vec().unwrap(),
        [f32::from_bits(0x0707_0707); 2]
    );
    open("{}", 0).unwrap();
}

#[test]
fn types_that_are_not_read_are_listed() {
    let header = format!(
        "{{{},{}}}",
        tensor("a", "F64", "[1]", 0, 8),
        tensor("b", "I8", "[1]", 8, 9)
    );
    let weights = Weights::from(open(&header, 9).unwrap());
    assert_eq!(weights.names().collect::<Vec<_>>(), ["b"]);
    assert_eq!(weights.unsupported()[0].type_name, "F64");
    let error = weights.read("a").unwrap_err();
    assert!(
        matches!(&error, Error::Unsupported(s) if s.contains("F64")),
        "{error}"
    );
    assert!(matches!(
        weights.read("c").unwrap_err(),
        Error::InvalidInput(_)
    ));
}

#[test]
fn unaligned_tensors_are_read_too() {
    let header = format!(
        "{{{},{}}}",
        tensor("x", "U8", "[1]", 0, 1),
        tensor("y", "F32", "[1]", 1, 5)
    );
    for pad in 0..8 {
        let st = open(&format!("{header}{:pad$}", ""), 5).unwrap();
        let y = st.read("y").unwrap();
        assert_eq!(y.as_f32().unwrap(), [f32::from_bits(0x0707_0707)]);
    }
}

#[test]
fn header_lengths() {
    for bytes in [&b""[..], &[0; 7]] {
        malformed(SafeTensors::open(lending(bytes)), "8-byte");
    }
    malformed(SafeTensors::open(lending(&[0; 8])), "JSON object");
    for len in [1u64 << 60, u64::MAX, 100_000_001] {
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        over_limit(SafeTensors::open(lending(&bytes)), "header");
        // Asked for in steps, the length alone is enough.
        over_limit(parse_header(&bytes[..8], 10), "header");
    }
    let mut bytes = 90_000_000u64.to_le_bytes().to_vec();
    bytes.extend(b"{}");
    malformed(SafeTensors::open(lending(&bytes)), "cut short");
    // Another kind of file altogether.
    malformed(
        SafeTensors::open(lending(b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0")),
        "safetensors file?",
    );
    malformed(
        SafeTensors::open(lending(b"PK\x03\x04 a zip archive")),
        "safetensors file?",
    );
}

#[test]
fn malformed_json() {
    for (header, words) in [
        ("{ ", "EOF"),
        ("{}}", "trailing"),
        (r#"{"a":1}"#, "invalid type"),
        (r#"{"a":{"dtype":"F32","shape":[1]}}"#, "data_offsets"),
        (
            r#"{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            "duplicate",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
            "invalid value",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#,
            "invalid type",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1e30],"data_offsets":[0,4]}}"#,
            "invalid",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#,
            "dimensions",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}"#,
            "trailing",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999999999999]}}"#,
            "invalid",
        ),
        (r#"{"__metadata__":{"a":1}}"#, "invalid type"),
        (r#"{"__metadata__":{"a":"1","a":"2"}}"#, "duplicate"),
    ] {
        malformed(open(header, 4), words);
    }
    let a = tensor("a", "F32", "[1]", 0, 4);
    malformed(open(&format!("{{{a},{a}}}"), 4), "duplicate");
    let mut bytes = file("{\"\u{e9}\":1}", 0);
    bytes[10] = 0xff;
    malformed(SafeTensors::open(lending(&bytes)), "");
    // The offset is that of the fault, on later lines too.
    assert_eq!(malformed(open("{\n\n\"a\":!}", 4), ""), 8 + 7);
    // Nesting takes no stack: a field that is not ours is skipped at any depth, others have no depth to take.
    let deep = format!("{}1{}", "[".repeat(300_000), "]".repeat(300_000));
    let entry = |shape: &str, other: &str| {
        format!(r#"{{"a":{{"dtype":"U8","shape":{shape},"data_offsets":[0,4],"other":{other}}}}}"#)
    };
    open(&entry("[4]", &deep), 4).unwrap();
    malformed(open(&entry(&deep, "0"), 4), "invalid type");
    malformed(open(&format!("{{\"a\":{deep}}}"), 0), "");
}

#[test]
fn offsets_that_lie() {
    let one = |shape: &str, begin, end| {
        open(&format!("{{{}}}", tensor("a", "F32", shape, begin, end)), 8)
    };
    one("[2]", 0, 8).unwrap();
    malformed(one("[2]", 8, 0), "");
    malformed(one("[2]", 0, 9), "cut short");
    malformed(one("[3]", 0, 12), "cut short");
    malformed(one("[2]", 0, u64::MAX), "cut short");
    malformed(one("[2]", u64::MAX, u64::MAX), "");
    malformed(one("[1]", 0, 4), "belong to none");
    malformed(one("[1]", 4, 8), "hole");
    malformed(one("[3]", 0, 8), "takes 12 bytes");
    malformed(one("[4294967296,4294967296,4294967296]", 0, 8), "elements");
    malformed(one("[4611686018427387905]", 0, 8), "bytes");
    let two = |b, e| {
        let (x, y) = (
            tensor("x", "U8", "[4]", 0, 4),
            tensor("y", "U8", "[4]", b, e),
        );
        open(&format!("{{{y},{x}}}"), 8)
    };
    two(4, 8).unwrap();
    malformed(two(3, 7), "overlaps");
    malformed(two(0, 4), "overlaps");
}

#[test]
fn too_many_of_anything() {
    let many: Vec<_> = (0..262_145)
        .map(|i| tensor(&i.to_string(), "U8", "[0]", 0, 0))
        .collect();
    over_limit(open(&format!("{{{}}}", many.join(",")), 0), "tensors");
    let many: Vec<_> = (0..65_537).map(|i| format!(r#""{i}":"""#)).collect();
    over_limit(
        open(&format!(r#"{{"__metadata__":{{{}}}}}"#, many.join(",")), 0),
        "metadata",
    );
}

fn sample() -> Vec<u8> {
    let a = Tensor::from_f32(&[1.0, f32::NAN, -0.0], &[3]).unwrap();
    let b = Tensor::new(DType::Bool, &[2, 1], vec![0, 1]).unwrap();
    let c = Tensor::new(DType::I64, &[], vec![255; 8]).unwrap();
    let metadata = BTreeMap::from([("k".to_owned(), "v \"quoted\" é".to_owned())]);
    write_to_vec(&metadata, [("a", &a), ("b \"x\"", &b), ("c", &c)]).unwrap()
}

#[test]
fn every_truncation_and_every_changed_byte_is_survived() {
    let file = sample();
    for n in 0..file.len() {
        assert!(
            SafeTensors::open(lending(&file[..n])).is_err(),
            "opened {n} of {}",
            file.len()
        );
    }
    let mut changed = file.clone();
    for i in 0..file.len() {
        for flip in [0x01, 0x04, 0x80, 0xff] {
            changed[i] ^= flip;
            read_all(&changed);
            changed[i] ^= flip;
        }
    }
}

fn read_all(bytes: &[u8]) {
    let Ok(st) = SafeTensors::open(lending(bytes)) else {
        return;
    };
    for info in st.tensors() {
        assert_eq!(
            st.read(&info.name).unwrap().to_f32_vec().unwrap().len(),
            info.shape.elements()
        );
    }
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let t = Tensor::from_f32(&[1.0], &[1]).unwrap();
    assert!(write_to_vec(&BTreeMap::new(), [("a", &t), ("a", &t)]).is_err());
    assert!(write_to_vec(&BTreeMap::new(), [("__metadata__", &t)]).is_err());
    let q = Tensor::zeros(DType::Q4_0, &[32]).unwrap();
    assert!(matches!(
        write_to_vec(&BTreeMap::new(), [("q", &q)]),
        Err(Error::Unsupported(_))
    ));
    let deep = Tensor::from_f32(&[1.0], &[1; 9]).unwrap();
    assert!(matches!(
        write_to_vec(&BTreeMap::new(), [("d", &deep)]),
        Err(Error::Limit { .. })
    ));
    let empty = write_to_vec(&BTreeMap::new(), []).unwrap();
    assert!(
        SafeTensors::open(lending(&empty))
            .unwrap()
            .tensors()
            .is_empty()
    );
}

#[test]
fn shards() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    let t = |v: f32| Tensor::from_f32(&[v], &[1]).unwrap();
    let none = BTreeMap::new();
    write(
        "one.safetensors",
        &write_to_vec(&none, [("a", &t(1.0)), ("both", &t(2.0))]).unwrap(),
    );
    write(
        "two.safetensors",
        &write_to_vec(&none, [("both", &t(3.0)), ("extra", &t(4.0))]).unwrap(),
    );
    let index = dir.path().join("model.safetensors.index.json");
    let map = |body: &str| format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{{{body}}}}}"#);
    let good = map(r#""a":"one.safetensors","both":"two.safetensors""#);
    std::fs::write(&index, &good).unwrap();
    for path in [index.as_path(), dir.path()] {
        let weights = Weights::open_path(path).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "both"]);
        assert_eq!(weights.read("both").unwrap().to_f32_vec().unwrap(), [3.0]);
        assert_eq!(
            (weights.info("both").unwrap().part, weights.total_bytes()),
            (1, 8)
        );
    }
    std::fs::write(&index, map(r#""a":"two.safetensors""#)).unwrap();
    malformed(
        SafeTensors::open_sharded(&index),
        "`a` in two.safetensors, which lacks it",
    );
    std::fs::write(&index, map(r#""a":"three.safetensors""#)).unwrap();
    let error = SafeTensors::open_sharded(&index).err().unwrap();
    assert!(
        matches!(&error, Error::Io { path, .. } if path.ends_with("three.safetensors")),
        "{error}"
    );
    for name in [
        "../one.safetensors",
        "/etc/passwd",
        "a/b",
        "a\\\\b",
        "C:x",
        "",
        "..",
    ] {
        malformed(
            parse_index(map(&format!(r#""a":"{name}""#)).as_bytes()),
            "plain file name",
        );
    }
    malformed(parse_index(b"{}"), "weight_map");
    malformed(parse_index(b"[1"), "index");
    malformed(parse_index(map(r#""a":"x","a":"y""#).as_bytes()), "twice");
}

#[test]
fn folders_and_files_that_are_not_weights() {
    let dir = tempfile::tempdir().unwrap();
    let error = Weights::open_path(dir.path()).err().unwrap().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
    let error = Weights::open_path(dir.path().join("x.gguf")).err().unwrap();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    let (a, b) = (
        dir.path().join("a.safetensors"),
        dir.path().join("b.safetensors"),
    );
    std::fs::write(&a, sample()).unwrap();
    assert_eq!(Weights::open_path(dir.path()).unwrap().names().len(), 3);
    std::fs::write(&b, sample()).unwrap();
    let error = Weights::open_path(dir.path()).err().unwrap().to_string();
    assert!(error.contains("0 .gguf and 2 .safetensors"), "{error}");
    std::fs::write(dir.path().join("model.safetensors"), sample()).unwrap();
    let weights = Weights::open_path(dir.path()).unwrap();
    assert_eq!(
        weights.safetensors_metadata().unwrap()["k"],
        "v \"quoted\" é"
    );
    assert!(weights.gguf_metadata().is_none());
    let mut buf = [0; 12];
    weights.read_into("a", &mut buf).unwrap();
    assert_eq!(buf[..4], 1f32.to_le_bytes());
    assert!(weights.read_into("a", &mut [0; 11]).is_err());
    let mut part = [0; 5];
    weights.read_part("a", 7, &mut part).unwrap();
    assert_eq!(part, buf[7..]);
    for start in [8, 12, usize::MAX] {
        assert!(matches!(
            weights.read_part("a", start, &mut part),
            Err(Error::InvalidInput(_))
        ));
    }
    assert!(format!("{weights:?}").contains("3 tensors"), "{weights:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any plain tensors under any names survive writing and reading.
    #[test]
    fn round_trip(
        metadata in prop::collection::btree_map(any::<String>(), any::<String>(), 0..4),
        tensors in prop::collection::btree_map(
            any::<String>(),
            (prop::sample::select(&DType::ALL[..9]), prop::collection::vec(0usize..4, 0..4)),
            0..8,
        ),
    ) {
        let tensors: Vec<_> = tensors.iter().map(|(name, (dtype, shape))| {
            let size = shape.iter().product::<usize>() * dtype.block_bytes();
            let bytes: Vec<u8> = (0..size).map(|i| i as u8).collect();
            (name.as_str(), Tensor::new(*dtype, shape, bytes).unwrap())
        }).collect();
        let bytes = safetensors::write_to_vec(&metadata, tensors.iter().map(|(n, t)| (*n, t))).unwrap();
        let st = SafeTensors::open(lending(&bytes)).unwrap();
        prop_assert_eq!(st.metadata(), &metadata);
        prop_assert_eq!(st.tensors().len(), tensors.len());
        for (name, tensor) in &tensors {
            let back = st.read(name).unwrap();
            prop_assert_eq!(back.dtype(), tensor.dtype());
            prop_assert_eq!(back.shape(), tensor.shape());
            prop_assert_eq!(back.bytes(), tensor.bytes());
        }
        // Whole or in steps, the header is the same, and a prefix asks for exactly its end.
        let HeaderStep::Done(header) = parse_header(&bytes, bytes.len() as u64).unwrap() else {
            panic!("not done");
        };
        let asked = parse_header(&bytes[..8], bytes.len() as u64).unwrap();
        prop_assert_eq!(asked, HeaderStep::NeedMore(header.data_start));
        prop_assert_eq!(header.data_start % 8, 0);
    }

    /// Noise in the header is never a panic.
    #[test]
    fn noise(at in 0usize..200, noise in prop::collection::vec(any::<u8>(), 1..20)) {
        let mut bytes = sample();
        let at = 8 + at % (bytes.len() - 8 - noise.len());
        bytes[at..at + noise.len()].copy_from_slice(&noise);
        read_all(&bytes);
    }
}
