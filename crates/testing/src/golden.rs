//! Reads what the reference implementation computed: `golden.safetensors` (tensors named `CASE.NAME`) and `golden.json`.
//!
//! Floating-point tensors (F64, F32, F16, BF16) come as `f32`, integer and boolean ones as `i64`. Nothing is ever
//! reinterpreted silently: asking for the floats of an integer tensor is an error, so a test cannot compare token ids
//! with a tolerance.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use thiserror::Error;

/// Why a golden could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GoldenError {
    /// The file is missing or cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file that was asked for.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are not what the file's name promises.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file that was read.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No tensor has this name.
    #[error("no golden tensor is named {name:?}; there are: {known}")]
    Missing {
        /// The name that was asked for.
        name: String,
        /// The names that are there, joined with `, `.
        known: String,
    },
    /// The tensor holds the other kind of number.
    #[error("golden tensor {name:?} holds {found}, not {expected}")]
    WrongKind {
        /// The tensor.
        name: String,
        /// What was asked for.
        expected: &'static str,
        /// What it holds.
        found: &'static str,
    },
}

/// The numbers of one tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// From F64 (rounded), F32, F16 or BF16.
    F32(Vec<f32>),
    /// From I64, I32, U32, U8, I8 or BOOL (0 and 1).
    I64(Vec<i64>),
}

impl Values {
    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(v) => v.len(),
            Values::I64(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn kind(&self) -> &'static str {
        match self {
            Values::F32(_) => "floating-point numbers",
            Values::I64(_) => "integers",
        }
    }
}

/// One tensor: its shape and its numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct GoldenTensor {
    /// Row-major; empty for a scalar.
    pub shape: Vec<usize>,
    /// As many numbers as the shape says.
    pub values: Values,
}

/// A folder's goldens, or any safetensors file read with the same rules.
#[derive(Debug, Clone)]
pub struct Golden {
    tensors: BTreeMap<String, GoldenTensor>,
    /// `golden.json`; `Null` where only a safetensors file was read.
    pub meta: serde_json::Value,
}

impl Golden {
    /// Reads `DIR/golden.safetensors` and `DIR/golden.json`.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, GoldenError> {
        let dir = dir.as_ref();
        let mut golden = Self::read(dir.join("golden.safetensors"))?;
        let path = dir.join("golden.json");
        golden.meta = serde_json::from_slice(&bytes_of(&path)?)
            .map_err(|e| malformed(&path, e.to_string()))?;
        Ok(golden)
    }

    /// Reads one safetensors file, for instance a checkpoint's weights.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, GoldenError> {
        let path = path.as_ref();
        let bytes = bytes_of(path)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| malformed(path, e.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let values = widen(view.dtype(), view.data()).ok_or_else(|| {
                malformed(
                    path,
                    format!("{name}: dtype {:?} is not read here", view.dtype()),
                )
            })?;
            let shape = view.shape().to_vec();
            if values.len() != shape.iter().product::<usize>() {
                return Err(malformed(
                    path,
                    format!("{name}: {} values, {shape:?}", values.len()),
                ));
            }
            tensors.insert(name.to_string(), GoldenTensor { shape, values });
        }
        Ok(Self {
            tensors,
            meta: serde_json::Value::Null,
        })
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The names of the cases: what stands before the first dot, each once.
    pub fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<_> = self
            .names()
            .map(|n| n.split_once('.').map_or(n, |(c, _)| c))
            .collect();
        cases.dedup();
        cases
    }

    /// A tensor by its full name (`CASE.NAME`).
    pub fn get(&self, name: &str) -> Result<&GoldenTensor, GoldenError> {
        self.tensors.get(name).ok_or_else(|| GoldenError::Missing {
            name: name.to_string(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })
    }

    /// Shape and numbers of a floating-point tensor.
    pub fn f32(&self, name: &str) -> Result<(&[usize], &[f32]), GoldenError> {
        let t = self.get(name)?;
        match &t.values {
            Values::F32(v) => Ok((&t.shape, v)),
            other => Err(wrong_kind(name, "floating-point numbers", other)),
        }
    }

    /// Shape and numbers of an integer tensor (token ids, positions, masks).
    pub fn i64(&self, name: &str) -> Result<(&[usize], &[i64]), GoldenError> {
        let t = self.get(name)?;
        match &t.values {
            Values::I64(v) => Ok((&t.shape, v)),
            other => Err(wrong_kind(name, "integers", other)),
        }
    }
}

fn widen(dtype: Dtype, data: &[u8]) -> Option<Values> {
    fn each<const N: usize, T>(data: &[u8], f: impl Fn([u8; N]) -> T) -> Vec<T> {
        data.as_chunks::<N>().0.iter().map(|b| f(*b)).collect()
    }
    Some(match dtype {
        Dtype::F64 => Values::F32(each(data, |b| f64::from_le_bytes(b) as f32)),
        Dtype::F32 => Values::F32(each(data, f32::from_le_bytes)),
        Dtype::F16 => Values::F32(each(data, |b| half::f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => Values::F32(each(data, |b| half::bf16::from_le_bytes(b).to_f32())),
        Dtype::I64 => Values::I64(each(data, i64::from_le_bytes)),
        Dtype::I32 => Values::I64(each(data, |b| i32::from_le_bytes(b).into())),
        Dtype::U32 => Values::I64(each(data, |b| u32::from_le_bytes(b).into())),
        Dtype::I8 => Values::I64(each(data, |b| i8::from_le_bytes(b).into())),
        Dtype::U8 | Dtype::BOOL => Values::I64(each(data, |[b]| b.into())),
        _ => return None,
    })
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, GoldenError> {
    std::fs::read(path).map_err(|source| GoldenError::Io {
        path: path.display().to_string(),
        source,
    })
}

fn malformed(path: &Path, reason: String) -> GoldenError {
    GoldenError::Malformed {
        path: path.display().to_string(),
        reason,
    }
}

fn wrong_kind(name: &str, expected: &'static str, found: &Values) -> GoldenError {
    GoldenError::WrongKind {
        name: name.to_string(),
        expected,
        found: found.kind(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::{TensorView, serialize};

    fn file(dir: &Path, tensors: &[(&str, Dtype, &[usize], &[u8])]) {
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            (
                *name,
                TensorView::new(*dtype, shape.to_vec(), data).expect("a valid view"),
            )
        });
        let bytes = serialize(views, None).expect("serialises");
        std::fs::write(dir.join("golden.safetensors"), bytes).expect("writes");
    }

    #[test]
    fn widens_every_dtype_it_reads() {
        let dir = tempfile::tempdir().expect("a folder");
        let f = |v: [f32; 2]| v.map(f32::to_le_bytes).concat();
        file(
            dir.path(),
            &[
                ("a.f32", Dtype::F32, &[2], &f([1.5, f32::NAN])),
                ("a.f16", Dtype::F16, &[2], &[0x00, 0x3e, 0x00, 0xfc]),
                ("a.bf16", Dtype::BF16, &[1, 2], &[0xc0, 0x3f, 0x80, 0xff]),
                ("a.f64", Dtype::F64, &[1], &(-0.25f64).to_le_bytes()),
                ("b.i64", Dtype::I64, &[1], &(-3i64).to_le_bytes()),
                ("b.i32", Dtype::I32, &[1], &(-3i32).to_le_bytes()),
                ("b.u8", Dtype::U8, &[3], &[0, 1, 255]),
                ("b.bool", Dtype::BOOL, &[2], &[1, 0]),
                ("b.scalar", Dtype::I64, &[], &7i64.to_le_bytes()),
                ("b.none", Dtype::F32, &[0, 4], &[]),
            ],
        );
        std::fs::write(dir.path().join("golden.json"), r#"{"seed": 7}"#).expect("writes");
        let g = Golden::open(dir.path()).expect("opens");
        assert_eq!(g.meta["seed"], 7);
        assert_eq!(g.cases(), ["a", "b"]);
        let (shape, v) = g.f32("a.f32").expect("f32");
        assert_eq!((shape, v[0], v[1].is_nan()), (&[2][..], 1.5, true));
        assert_eq!(g.f32("a.f16").expect("f16").1, [1.5, f32::NEG_INFINITY]);
        assert_eq!(
            g.f32("a.bf16").expect("bf16"),
            (&[1, 2][..], &[1.5, f32::NEG_INFINITY][..])
        );
        assert_eq!(g.f32("a.f64").expect("f64").1, [-0.25]);
        assert_eq!(g.i64("b.i64").expect("i64").1, [-3]);
        assert_eq!(g.i64("b.i32").expect("i32").1, [-3]);
        assert_eq!(g.i64("b.u8").expect("u8").1, [0, 1, 255]);
        assert_eq!(g.i64("b.bool").expect("bool").1, [1, 0]);
        assert_eq!(g.i64("b.scalar").expect("scalar"), (&[][..], &[7][..]));
        assert!(g.get("b.none").expect("empty").values.is_empty());
    }

    #[test]
    fn says_what_is_wrong() {
        let dir = tempfile::tempdir().expect("a folder");
        let e = Golden::open(dir.path()).expect_err("nothing there");
        assert!(matches!(e, GoldenError::Io { .. }), "{e}");
        file(dir.path(), &[("a.ids", Dtype::I64, &[1], &[0; 8])]);
        let e = Golden::open(dir.path()).expect_err("no json");
        assert!(e.to_string().contains("golden.json"), "{e}");
        let g = Golden::read(dir.path().join("golden.safetensors")).expect("reads");
        let e = g.f32("a.ids").expect_err("ids are no floats");
        assert_eq!(
            e.to_string(),
            "golden tensor \"a.ids\" holds integers, not floating-point numbers"
        );
        let e = g.i64("a.logits").expect_err("no such tensor");
        assert!(e.to_string().ends_with("there are: a.ids"), "{e}");
        std::fs::write(dir.path().join("golden.safetensors"), [9; 40]).expect("writes");
        let e = Golden::open(dir.path()).expect_err("no safetensors");
        assert!(matches!(e, GoldenError::Malformed { .. }), "{e}");
    }
}
