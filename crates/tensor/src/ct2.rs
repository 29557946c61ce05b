//! CTranslate2's `model.bin`: the variables of a model, one after the other.
//!
//! ```text
//! version u32, specification, revision u32, count u32, then per variable:
//! name, rank u8, dimensions u32 each, type u8 (0 f32, 1 i8, 2 i16, 3 i32, 4 f16, 5 bf16), bytes u32, the bytes
//! ```
//! A text is its length in u16, terminating zero included, and its bytes. Names are CTranslate2's own, and layers that are
//! computed together are one variable; [`Weights::map`](crate::Weights::map) gives them others. Aliases at the end of the file are
//! not read. Little-endian, not aligned.
//!
//! Source: `ctranslate2/specs/model_spec.py`, versions 4 to 6 of the layout.

use crate::header::{Cursor, MAX_RANK, MAX_TENSORS, TensorSet};
use crate::{ByteSource, DType, Error, Result, Shape, TensorInfo, UnsupportedTensor};
use std::sync::Arc;

const FORMAT: &str = "ct2";
/// The longest name, in bytes.
const MAX_NAME: u16 = 1024;

/// An opened file.
#[derive(Clone, Debug)]
pub struct Ct2 {
    pub(crate) set: TensorSet,
    pub(crate) spec: String,
}

impl Cursor<'_> {
    fn text(&mut self) -> Result<String> {
        let start = self.at;
        let len = u16::from_le_bytes(self.bytes()?);
        let fault = |what: &str| Error::malformed(FORMAT, start, what.to_owned());
        if !(1..=MAX_NAME).contains(&len) {
            return Err(fault("a name of 1 to 1024 bytes expected"));
        }
        let mut bytes = vec![0; len.into()];
        self.fill(&mut bytes)?;
        if bytes.pop() != Some(0) {
            return Err(fault("a name that ends with a zero expected"));
        }
        String::from_utf8(bytes).map_err(|_| fault("a name in UTF-8 expected"))
    }
}

impl Ct2 {
    /// Whether a file that starts with these bytes (16 or more) is one.
    pub fn is(head: &[u8]) -> bool {
        let Some(&[version, 0, 0, 0, len, 0, first, second]) = head.first_chunk::<8>() else {
            return false;
        };
        (1..32).contains(&version)
            && (2..=64).contains(&len)
            && first.is_ascii_uppercase()
            && second.is_ascii_alphabetic()
    }

    /// Opens a file.
    ///
    /// # Errors
    /// `Malformed` if the bytes are no such file or end too soon, `Unsupported` for a version of the layout before 4 or after 6,
    /// `Limit` for too many variables or dimensions, `Io` if reading fails.
    pub fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        let mut c = Cursor::new(FORMAT, source.as_ref());
        let version = c.word()?;
        if !(4..=6).contains(&version) {
            return Err(Error::Unsupported(format!(
                "version {version} of CTranslate2's model.bin; versions 4 to 6 are read: convert the model again"
            )));
        }
        let spec = c.text()?;
        let _revision = c.word()?;
        let count = u64::from(c.word()?);
        if count > MAX_TENSORS {
            return Err(Error::Limit {
                what: "variables of a model.bin",
                max: MAX_TENSORS,
                got: count,
            });
        }
        let (mut tensors, mut unsupported) = (Vec::new(), Vec::new());
        for _ in 0..count {
            match variable(&mut c)? {
                Ok(tensor) => tensors.push(tensor),
                Err(tensor) => unsupported.push(tensor),
            }
        }
        let mut names: Vec<&str> = tensors
            .iter()
            .map(|t: &TensorInfo| t.name.as_str())
            .collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(Error::malformed(
                FORMAT,
                0,
                format!("variable `{}` twice", pair[0]),
            ));
        }
        let mut set = TensorSet::default();
        set.add(FORMAT, source, tensors, unsupported)?;
        Ok(Ct2 { set, spec })
    }

    /// What kind of model it is, as CTranslate2 calls it: `WhisperSpec`, …
    pub fn spec(&self) -> &str {
        &self.spec
    }
}

fn variable(c: &mut Cursor<'_>) -> Result<Result<TensorInfo, UnsupportedTensor>> {
    let name = c.text()?;
    let [rank] = c.bytes()?;
    if u64::from(rank) > MAX_RANK {
        return Err(Error::Limit {
            what: "dimensions of a tensor",
            max: MAX_RANK,
            got: rank.into(),
        });
    }
    let dims = (0..rank)
        .map(|_| Ok(c.word()? as usize))
        .collect::<Result<Vec<_>>>()?;
    let at = c.at;
    let [kind] = c.bytes()?;
    // What this crate has no type for still has a size.
    let (dtype, size) = match kind {
        0 => (Some(DType::F32), 4),
        1 => (Some(DType::I8), 1),
        2 => (None, 2),
        3 => (Some(DType::I32), 4),
        4 => (Some(DType::F16), 2),
        5 => (Some(DType::BF16), 2),
        _ => {
            return Err(Error::malformed(
                FORMAT,
                at,
                format!("variable `{name}` has type {kind}; 0 to 5 are known"),
            ));
        }
    };
    let nbytes = c.word()?;
    let shape = Shape::new(dims.clone())?;
    let needed = dims.iter().try_fold(size, |n: usize, &d| n.checked_mul(d));
    if needed != Some(nbytes as usize) {
        return Err(Error::malformed(
            FORMAT,
            at,
            format!("variable `{name}` {dims:?} of elements of {size} bytes in {nbytes} bytes"),
        ));
    }
    let offset = c.at;
    if u64::from(nbytes) > c.source.len().saturating_sub(offset) {
        return Err(Error::malformed(
            FORMAT,
            offset,
            format!("variable `{name}` of {nbytes} bytes goes beyond the file's end (truncated?)"),
        ));
    }
    c.at += u64::from(nbytes);
    Ok(match dtype {
        Some(dtype) => Ok(TensorInfo {
            name,
            dtype,
            shape,
            nbytes: nbytes as usize,
            part: 0,
            offset,
        }),
        None => Err(UnsupportedTensor {
            name,
            type_name: "I16".to_owned(),
            shape,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemSource, Weights};

    fn text(s: &str) -> Vec<u8> {
        let mut out = (s.len() as u16 + 1).to_le_bytes().to_vec();
        out.extend(s.as_bytes());
        out.push(0);
        out
    }

    fn file() -> Vec<u8> {
        let mut out = 6u32.to_le_bytes().to_vec();
        out.extend(text("WhisperSpec"));
        out.extend(3u32.to_le_bytes());
        out.extend(2u32.to_le_bytes());
        out.extend(text("a/weight"));
        out.extend([2, 4, 0, 0, 0, 3, 0, 0, 0, 4]);
        out.extend(24u32.to_le_bytes());
        out.extend((0..12u16).flat_map(u16::to_le_bytes));
        out.extend(text("a/heads"));
        out.extend([0, 1]);
        out.extend(1u32.to_le_bytes());
        out.push(6);
        out.extend(0u32.to_le_bytes());
        out
    }

    fn open(bytes: Vec<u8>) -> Result<Weights> {
        Weights::open(Arc::new(MemSource::new("m", bytes)))
    }

    #[test]
    fn variables_and_pieces_of_them() {
        let weights = open(file()).unwrap();
        assert_eq!(weights.ct2_spec(), Some("WhisperSpec"));
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a/weight", "a/heads"]);
        assert_eq!(weights.read("a/heads").unwrap().bytes(), [6]);
        let mapped = weights
            .map(|info| match info.name.as_str() {
                "a/weight" => vec![("q".to_owned(), 0..1), ("v".to_owned(), 3..4)],
                _ => Vec::new(),
            })
            .unwrap();
        assert_eq!(mapped.names().collect::<Vec<_>>(), ["q", "v"]);
        let v = mapped.read("v").unwrap();
        assert_eq!(v.shape(), [1, 3]);
        assert_eq!(v.bytes(), [9, 0, 10, 0, 11, 0]);
        assert!(weights.map(|_| vec![("x".to_owned(), 2..5)]).is_err());
    }

    #[test]
    fn damaged_files_are_errors() {
        let whole = file();
        for cut in 0..whole.len() - 4 {
            assert!(open(whole[..cut].to_vec()).is_err(), "{cut}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = open(bytes);
            }
        }
    }
}
