//! GGUF files that lie, in every field: each is refused with its offset, however large the claim.

mod common;

use common::{Reading, lending, malformed, over_limit, step_by_step};
use firelight_tensor::gguf::{Gguf, parse_header};
use firelight_tensor::{Error, Weights};

/// A file written field by field, to lie in any of them.
#[derive(Clone)]
struct Lie {
    magic: [u8; 4],
    version: u32,
    tensors: u64,
    entries: u64,
    body: Vec<u8>,
}

impl Lie {
    fn new() -> Self {
        Lie {
            magic: *b"GGUF",
            version: 3,
            tensors: 0,
            entries: 0,
            body: Vec::new(),
        }
    }

    fn str(mut self, s: &str) -> Self {
        self.body.extend((s.len() as u64).to_le_bytes());
        self.body.extend(s.as_bytes());
        self
    }

    fn u32(mut self, v: u32) -> Self {
        self.body.extend(v.to_le_bytes());
        self
    }

    fn u64(mut self, v: u64) -> Self {
        self.body.extend(v.to_le_bytes());
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.body.extend(bytes);
        self
    }

    /// A metadata entry up to its value.
    fn key(mut self, key: &str, kind: u32) -> Self {
        self.entries += 1;
        self.str(key).u32(kind)
    }

    /// A tensor's entry: dims as in the file, innermost first.
    fn tensor(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors += 1;
        let entry = self.str(name).u32(dims.len() as u32);
        dims.iter()
            .fold(entry, |e, &d| e.u64(d))
            .u32(kind)
            .u64(offset)
    }

    /// The file, with this many bytes of data after the padding.
    fn bytes(&self, data: usize) -> Vec<u8> {
        let mut out = Vec::from(self.magic);
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensors.to_le_bytes());
        out.extend(self.entries.to_le_bytes());
        out.extend(&self.body);
        out.resize(out.len().next_multiple_of(32) + data, 0);
        out
    }

    /// What opening gives, by way of slices and of reads alike.
    fn open(&self, data: usize) -> firelight_tensor::Result<()> {
        let bytes = self.bytes(data);
        let lent = Gguf::open(lending(&bytes)).map(|_| ());
        let read = Gguf::open(Reading::new(&bytes)).map(|_| ());
        let steps = step_by_step(&bytes, parse_header).map(|_| ());
        assert_eq!(format!("{lent:?}"), format!("{read:?}"));
        assert_eq!(format!("{lent:?}"), format!("{steps:?}"));
        lent
    }
}

const HUGE: [u64; 4] = [1 << 40, 1 << 60, u64::MAX / 8, u64::MAX];

#[test]
fn the_builder_of_lies_can_tell_the_truth() {
    Lie::new().open(0).unwrap();
    Lie::new()
        .key("a", 4)
        .u32(1)
        .tensor("t", &[4, 2], 0, 0)
        .tensor("u", &[1], 0, 32)
        .open(36)
        .unwrap();
}

#[test]
fn wrong_magic_and_versions() {
    assert_eq!(
        malformed(
            Lie {
                magic: *b"GGML",
                ..Lie::new()
            }
            .open(0),
            "magic"
        ),
        0
    );
    for (version, words) in [
        (1, "version 1"),
        (4, "version 4"),
        (3 << 24, "big-endian"),
        (0, "version 0"),
    ] {
        let error = Lie {
            version,
            ..Lie::new()
        }
        .open(0)
        .unwrap_err();
        assert!(
            matches!(&error, Error::Unsupported(s) if s.contains(words)),
            "{error}"
        );
    }
    Lie {
        version: 2,
        ..Lie::new()
    }
    .open(0)
    .unwrap();
    for short in [
        &b""[..],
        b"G",
        b"GGUF",
        b"GGUF\x03\0\0\0",
        &Lie::new().bytes(0)[..23],
    ] {
        malformed(Gguf::open(lending(short)), "has");
    }
}

#[test]
fn lengths_and_counts_beyond_the_file() {
    for huge in HUGE {
        assert_eq!(
            malformed(
                Lie {
                    tensors: huge,
                    ..Lie::new()
                }
                .open(0),
                "tensors"
            ),
            8
        );
        assert_eq!(
            malformed(
                Lie {
                    entries: huge,
                    ..Lie::new()
                }
                .open(0),
                "metadata"
            ),
            16
        );
        // A key's length, a string's length, an array's length of every element type.
        let lie = Lie {
            entries: 1,
            ..Lie::new()
        };
        assert_eq!(malformed(lie.clone().u64(huge).open(64), "key"), 32);
        malformed(Lie::new().key("s", 8).u64(huge).open(64), "string");
        for kind in 0..=12 {
            let result = Lie::new().key("a", 9).u32(kind).u64(huge).open(64);
            if kind == 9 {
                over_limit(result, "nested");
            } else {
                malformed(result, "file has");
            }
        }
        // A string inside an array.
        malformed(
            Lie::new().key("a", 9).u32(8).u64(1).u64(huge).open(64),
            "string",
        );
        // Tensor names, dimensions and offsets.
        malformed(
            Lie {
                tensors: 1,
                ..Lie::new()
            }
            .u64(huge)
            .open(64),
            "name",
        );
        malformed(Lie::new().tensor("t", &[huge], 0, 0).open(64), "");
        malformed(Lie::new().tensor("t", &[huge, huge], 0, 0).open(64), "");
        malformed(Lie::new().tensor("t", &[1], 0, huge & !31).open(64), "");
    }
}

#[test]
fn counts_that_the_file_could_hold_are_bounded_too() {
    let many = Lie {
        entries: 100_000,
        ..Lie::new()
    };
    over_limit(many.open(2_000_000), "metadata entries");
    let many = Lie {
        tensors: 300_000,
        ..Lie::new()
    };
    over_limit(many.open(8_000_000), "tensors");
    over_limit(
        Lie::new().key("s", 8).u64(17 << 20).open(18 << 20),
        "string",
    );
    over_limit(Lie::new().tensor("t", &[1; 9], 0, 0).open(64), "dimensions");
    // Nested arrays: by depth and by number.
    let deep = (0..6).fold(Lie::new().key("a", 9), |l, _| l.u32(9).u64(1));
    over_limit(deep.open(0), "levels");
    over_limit(
        Lie::new().key("a", 9).u32(9).u64(100_000).open(2_000_000),
        "nested",
    );
}

#[test]
fn wrong_types_and_values() {
    malformed(Lie::new().key("k", 13).open(32), "13");
    malformed(Lie::new().key("k", 9).u32(13).u64(0).open(32), "13");
    malformed(Lie::new().key("k", 7).raw(&[2]).open(32), "bool");
    malformed(
        Lie::new()
            .key("k", 9)
            .u32(7)
            .u64(3)
            .raw(&[0, 1, 7])
            .open(32),
        "bool",
    );
    let at = malformed(
        Lie::new().key("k", 8).u64(3).raw(b"a\xff!").open(0),
        "UTF-8",
    );
    assert_eq!(at, 24 + 8 + 1 + 4 + 8 + 1);
    malformed(
        Lie::new().key("k", 4).u32(1).key("k", 4).u32(2).open(0),
        "twice",
    );
}

#[test]
fn alignment() {
    let with = |a: u32| Lie::new().key("general.alignment", 4).u32(a);
    for bad in [0, 3, 48, u32::MAX] {
        malformed(with(bad).open(32), "power of two");
    }
    for good in [1, 8, 4096, 1 << 31] {
        with(good).open(0).unwrap();
    }
    malformed(with(1 << 31).tensor("t", &[1], 0, 0).open(64), "cut short");
    malformed(
        Lie::new().key("general.alignment", 8).str("32").open(0),
        "an integer",
    );
    malformed(
        Lie::new().tensor("t", &[1], 0, 4).open(64),
        "multiple of the alignment",
    );
}

#[test]
fn tensors_that_lie() {
    let two = |offset| {
        Lie::new()
            .tensor("a", &[16], 0, 0)
            .tensor("b", &[16], 0, offset)
    };
    two(64).open(128).unwrap();
    malformed(two(32).open(128), "share bytes");
    malformed(two(0).open(128), "share bytes");
    malformed(two(64).open(127), "cut short");
    malformed(
        Lie::new()
            .tensor("a", &[1], 0, 0)
            .tensor("a", &[1], 0, 32)
            .open(64),
        "twice",
    );
    malformed(
        Lie::new().tensor("a", &[31], 2, 0).open(64),
        "multiple of 32",
    );
    // Types not read are listed, their size is checked where it is known.
    Lie::new().tensor("a", &[256], 23, 0).open(136).unwrap();
    malformed(Lie::new().tensor("a", &[256], 23, 0).open(135), "cut short");
    Lie::new().tensor("a", &[256], 77, 0).open(0).unwrap();
    let bytes = Lie::new()
        .tensor("a", &[256], 77, 0)
        .tensor("b", &[256], 23, 32)
        .bytes(200);
    let weights = Weights::open(lending(&bytes)).unwrap();
    assert_eq!((weights.names().len(), weights.unsupported().len()), (0, 2));
    for (name, words) in [("a", "77"), ("b", "IQ4_XS")] {
        let error = weights.read(name).unwrap_err();
        assert!(
            matches!(&error, Error::Unsupported(s) if s.contains(words)),
            "{error}"
        );
    }
    // Empty tensors take no room, wherever they are.
    Lie::new()
        .tensor("a", &[0], 0, 0)
        .tensor("b", &[4, 0], 0, 0)
        .tensor("c", &[], 0, 0)
        .open(4)
        .unwrap();
}
