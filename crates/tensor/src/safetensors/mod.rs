//! safetensors: a JSON header and the tensors' bytes, in one file or several.
//!
//! ```text
//! u64 LE   N, the length of the header
//! N bytes  JSON {"__metadata__": {string: string}, NAME: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …}
//! rest     tensor bytes, little-endian, row-major; offsets count from here; no holes, no overlaps
//! ```
//! A large model is several such files beside a `model.safetensors.index.json`, whose `weight_map` says which file holds
//! which tensor. Source: the format description of the `safetensors` project (huggingface/safetensors, README "Format").

mod header;
mod index;
mod writer;

use crate::header::{TensorSet, read_header};
use crate::{ByteSource, Result, Tensor, TensorInfo, UnsupportedTensor};
pub use header::{Header, MAX_HEADER, parse_header};
pub use index::{ShardIndex, parse_index};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
pub use writer::{write, write_to_vec};

pub(crate) const FORMAT: &str = "safetensors";

/// An open safetensors file, or a set of shards read as one.
pub struct SafeTensors {
    pub(crate) set: TensorSet,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl SafeTensors {
    /// Reads and checks the header; no tensor is read yet.
    ///
    /// # Errors
    /// `Malformed` or `Limit` if the header is not what the format says, `Io` if reading fails.
    pub fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        let header = read_header(&*source, 1 << 16, parse_header)?;
        Self::from_header(header, source)
    }

    /// Opens files that make up one model, in any order, without an index. The metadata is the first file's.
    ///
    /// # Errors
    /// As [`SafeTensors::open`]; `InvalidInput` for no file, `Malformed` if two hold the same tensor.
    pub fn open_parts(sources: Vec<Arc<dyn ByteSource>>) -> Result<Self> {
        let mut set = TensorSet::default();
        let mut metadata = None;
        for source in sources {
            let header = read_header(&*source, 1 << 16, parse_header)?;
            set.add(FORMAT, source, header.tensors, header.unsupported)?;
            metadata.get_or_insert(header.metadata);
        }
        let metadata =
            metadata.ok_or_else(|| crate::Error::invalid("a safetensors set of no files"))?;
        Ok(SafeTensors { set, metadata })
    }

    /// Joins a header that was parsed before (by [`parse_header`], from a download perhaps) with the source to read
    /// tensors from.
    ///
    /// # Errors
    /// None with a header of [`parse_header`].
    pub fn from_header(header: Header, source: Arc<dyn ByteSource>) -> Result<Self> {
        let mut set = TensorSet::default();
        set.add(FORMAT, source, header.tensors, header.unsupported)?;
        Ok(SafeTensors {
            set,
            metadata: header.metadata,
        })
    }

    /// Opens every shard that the index names, through `open`, which gets the plain file name.
    ///
    /// The index decides: a tensor is taken from the shard it names, and what the index does not list is left out.
    /// The metadata is the first shard's.
    ///
    /// # Errors
    /// What `open` gives; `Malformed` if a shard is malformed or lacks a tensor that the index promises.
    pub fn open_shards(
        index: &ShardIndex,
        open: impl Fn(&str) -> Result<Arc<dyn ByteSource>>,
    ) -> Result<Self> {
        let mut set = TensorSet::default();
        let mut metadata = None;
        let mut found = 0;
        for file in index.files() {
            let source = open(file)?;
            let header = read_header(&*source, 1 << 16, parse_header)?;
            let here = |name: &str| index.weight_map.get(name).is_some_and(|f| f == file);
            let tensors: Vec<_> = header
                .tensors
                .into_iter()
                .filter(|t| here(&t.name))
                .collect();
            let other: Vec<_> = header
                .unsupported
                .into_iter()
                .filter(|t| here(&t.name))
                .collect();
            found += tensors.len() + other.len();
            set.add(FORMAT, source, tensors, other)?;
            metadata.get_or_insert(header.metadata);
        }
        if found < index.weight_map.len() {
            return Err(index.missing(&set));
        }
        Ok(SafeTensors {
            set,
            metadata: metadata.unwrap_or_default(),
        })
    }

    /// Opens the shards beside an index file, which is commonly named `model.safetensors.index.json`.
    ///
    /// # Errors
    /// As [`SafeTensors::open_shards`]; a shard that is not there is an `Io` error with its path.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open_sharded(index_path: impl AsRef<std::path::Path>) -> Result<Self> {
        let path = index_path.as_ref();
        let source = crate::open_source(path)?;
        let index = index::read_index(&*source)?;
        let dir = path
            .parent()
            .map(std::path::Path::to_path_buf)
            .unwrap_or_default();
        Self::open_shards(&index, |file| crate::open_source(dir.join(file)))
    }

    /// The file's `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Every tensor of a known type, in the order of their bytes, shard after shard.
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

    /// Reads one tensor; a mapped file lends its bytes where they are aligned, without a copy.
    ///
    /// # Errors
    /// `InvalidInput` if there is none of this name, `Unsupported` if its type is not read, `Io`.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        self.set.read(name)
    }
}

impl fmt::Debug for SafeTensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SafeTensors({:?})", self.set)
    }
}
