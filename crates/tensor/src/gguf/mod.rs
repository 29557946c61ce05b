//! GGUF: metadata, a tensor directory and aligned tensor bytes, in one file or several parts.
//!
//! ```text
//! "GGUF"  u32 version (2 or 3)  u64 tensor count  u64 metadata count         all little-endian
//! metadata   per entry: string key, u32 type, value      string = u64 length + UTF-8
//!                                                        array  = u32 element type, u64 length, elements
//! directory  per tensor: string name, u32 rank, u64 dims innermost first, u32 type, u64 offset
//! padding    to a multiple of `general.alignment` (32 unless given); offsets count from here
//! data       each tensor at a multiple of the alignment
//! ```
//! Here dimensions are row-major: a matrix that the file lists as `[columns, rows]` has the shape `[rows, columns]`.
//! Source: `docs/gguf.md` of the ggml project.

mod cursor;
mod header;
mod metadata;
mod split;
pub(crate) mod types;
mod value;
mod writer;

use crate::header::{TensorSet, read_header};
use crate::{ByteSource, Error, Result, Tensor, TensorInfo, UnsupportedTensor};
pub use header::{Header, parse_header};
pub use metadata::{FromValue, Metadata};
pub use split::{part_name, split_name};
use std::fmt;
use std::sync::Arc;
pub use value::{Array, StrArray, Value};
pub use writer::{DataWriter, Writer};

pub(crate) const FORMAT: &str = "gguf";
/// The alignment of tensor data where the file does not give one.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// The longest header read, in bytes; vocabularies of 262,144 tokens take about 16 MB.
pub const MAX_HEADER: u64 = 128 << 20;
/// The longest single string value, in bytes.
const MAX_STRING: u64 = 16 << 20;
/// The longest metadata key or tensor name, in bytes (the format allows keys of 65,535).
const MAX_KEY: u64 = 65_535;
/// The most metadata entries.
const MAX_METADATA: u64 = 1 << 16;
/// How deep arrays may nest.
const MAX_ARRAY_DEPTH: u64 = 4;
/// How many arrays may lie inside others.
const MAX_NESTED: u64 = 1 << 16;

/// An open GGUF file, or a split set read as one.
pub struct Gguf {
    pub(crate) set: TensorSet,
    pub(crate) metadata: Metadata,
    version: u32,
    alignment: u64,
}

impl Gguf {
    /// Reads and checks the header of a file that is whole; no tensor is read yet.
    ///
    /// # Errors
    /// `Malformed` or `Limit` if the header is not what the format says, `Unsupported` for other versions, `InvalidInput`
    /// if the file is one part of a split set, `Io` if reading fails.
    pub fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        Self::open_parts(vec![source])
    }

    /// Opens every part of a split set, in order; one source for a file that is whole.
    ///
    /// # Errors
    /// As [`Gguf::open`]; `InvalidInput` if the parts are not the whole set in order.
    pub fn open_parts(sources: Vec<Arc<dyn ByteSource>>) -> Result<Self> {
        let parse = |source: Arc<dyn ByteSource>| {
            Ok((read_header(&*source, 1 << 20, parse_header)?, source))
        };
        Self::from_headers(sources.into_iter().map(parse).collect::<Result<_>>()?)
    }

    /// Joins headers that were parsed before (by [`parse_header`], from a download perhaps) with the sources to read
    /// tensors from.
    ///
    /// # Errors
    /// `InvalidInput` if the parts are not the whole set in order, `Malformed` if two hold the same tensor.
    pub fn from_headers(parts: Vec<(Header, Arc<dyn ByteSource>)>) -> Result<Self> {
        let mut set = TensorSet::default();
        let mut first = None;
        let count = parts.len();
        for (no, (header, source)) in parts.into_iter().enumerate() {
            split::check_part(&header.metadata, no, count, source.name())?;
            set.add(FORMAT, source, header.tensors, header.unsupported)?;
            if first.is_none() {
                first = Some((header.metadata, header.version, header.alignment));
            }
        }
        let (metadata, version, alignment) =
            first.ok_or_else(|| Error::invalid("a GGUF set of no parts"))?;
        split::check_total(&metadata, set.tensors().len() + set.unsupported().len())?;
        Ok(Gguf {
            set,
            metadata,
            version,
            alignment,
        })
    }

    /// Opens a file; of a split set (`NAME-00001-of-00003.gguf`) any part, with the others beside it.
    ///
    /// # Errors
    /// As [`Gguf::open_parts`]; a part that is not there is an `Io` error with its path.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open_path(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        match split_name(file) {
            Some((prefix, _, count)) if count > 1 => {
                let parts = (1..=count)
                    .map(|no| crate::open_source(path.with_file_name(part_name(prefix, no, count))))
                    .collect::<Result<_>>()?;
                Self::open_parts(parts)
            }
            _ => Self::open(crate::open_source(path)?),
        }
    }

    /// The format version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The alignment of tensor data in the first part, in bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// The key-value part (of a split set: the first part's).
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Every tensor of a known type, in file order, part after part.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.set.tensors()
    }

    /// The tensors of types this crate does not read.
    pub fn unsupported(&self) -> &[UnsupportedTensor] {
        self.set.unsupported()
    }

    /// One tensor's record.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.set.info(name)
    }

    /// Reads one tensor; a mapped file lends its bytes, without a copy.
    ///
    /// # Errors
    /// `InvalidInput` if there is none of this name, `Unsupported` if its type is not read, `Io`.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        self.set.read(name)
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gguf({:?})", self.set)
    }
}
