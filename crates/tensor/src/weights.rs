//! One face for every weight file.

use crate::ct2::Ct2;
use crate::ggml::{Ggml, GgmlHead};
use crate::gguf::{Gguf, Metadata};
use crate::header::TensorSet;
use crate::safetensors::SafeTensors;
use crate::{ByteSource, Error, Result, Shape, Tensor, TensorInfo, UnsupportedTensor};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The tensors of a model, whatever file format they are in.
#[derive(Clone)]
pub struct Weights {
    set: TensorSet,
    origin: Origin,
}

#[derive(Clone)]
enum Origin {
    SafeTensors(BTreeMap<String, String>),
    Gguf(Metadata),
    Ct2(String),
    Ggml(Arc<GgmlHead>),
}

impl Weights {
    /// Opens a `.gguf` file (of a split set any part), a `.safetensors` file, an index of shards (`.json`), or a folder
    /// with `model.safetensors`, `model.safetensors.index.json`, one `.gguf` file or set, one `.safetensors` file, or
    /// CTranslate2's `model.bin`.
    ///
    /// # Errors
    /// `InvalidInput` if the path is none of these; otherwise as [`Gguf::open_path`] and [`SafeTensors::open`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open_path(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            return Self::open_path(weights_in_folder(path)?);
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("gguf") => Ok(Gguf::open_path(path)?.into()),
            Some("safetensors") => Ok(SafeTensors::open(crate::open_source(path)?)?.into()),
            Some("json") => Ok(SafeTensors::open_sharded(path)?.into()),
            _ => Self::open(crate::open_source(path)?),
        }
    }

    /// Opens a single file by its first bytes: GGUF and GGML by their magic, CTranslate2's layout by its head, otherwise safetensors.
    ///
    /// # Errors
    /// As [`Gguf::open`], [`Ggml::open`], [`Ct2::open`] and [`SafeTensors::open`].
    pub fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        Self::open_parts(vec![source])
    }

    /// Opens the files of one model by their first bytes: a `.gguf` file, the parts of a split one in order, or `.safetensors`
    /// files in any order, without an index.
    ///
    /// # Errors
    /// As [`Gguf::open_parts`], [`Ct2::open`] and [`SafeTensors::open`]; `InvalidInput` for no file, `Malformed` if two hold the
    /// same tensor.
    pub fn open_parts(sources: Vec<Arc<dyn ByteSource>>) -> Result<Self> {
        let mut head = [0; 8];
        if let Some(first) = sources.first().filter(|s| s.len() >= 8) {
            first.read_at(0, &mut head)?;
        }
        match sources.as_slice() {
            _ if head.starts_with(b"GGUF") => Ok(Gguf::open_parts(sources)?.into()),
            [one] if Ggml::is(&head) => Ok(Ggml::open(Arc::clone(one))?.into()),
            [one] if Ct2::is(&head) => Ok(Ct2::open(Arc::clone(one))?.into()),
            _ => Ok(SafeTensors::open_parts(sources)?.into()),
        }
    }

    /// The same files under other names: `of` says which tensors each becomes, by name and range of its first dimension; none: it
    /// is left out. Nothing is read.
    ///
    /// # Errors
    /// `InvalidInput` for rows that a tensor does not have, `Malformed` if a name comes twice.
    pub fn map(&self, of: impl Fn(&TensorInfo) -> Vec<(String, Range<usize>)>) -> Result<Self> {
        let mut parts = vec![Vec::new(); self.sources().len()];
        for info in self.tensors() {
            let dims = info.shape.dims();
            let all = dims.first().copied().unwrap_or(1);
            for (name, rows) in of(info) {
                let row = info.nbytes / all.max(1);
                let part = parts.get_mut(info.part);
                let (Some(part), true) = (part, rows.start <= rows.end && rows.end <= all) else {
                    return Err(Error::invalid(format!(
                        "rows {rows:?} of tensor `{}` {dims:?}",
                        info.name
                    )));
                };
                let shape = match dims {
                    [_, rest @ ..] => [&[rows.len()], rest].concat(),
                    [] => Vec::new(),
                };
                part.push(TensorInfo {
                    name,
                    shape: Shape::new(shape)?,
                    nbytes: row * rows.len(),
                    offset: info.offset + (row * rows.start) as u64,
                    ..info.clone()
                });
            }
        }
        let mut set = TensorSet::default();
        for (source, tensors) in self.sources().iter().zip(parts) {
            set.add("weights", Arc::clone(source), tensors, Vec::new())?;
        }
        Ok(Weights {
            set,
            origin: self.origin.clone(),
        })
    }

    /// The names of all tensors that can be read, in file order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.set.tensors().iter().map(|t| t.name.as_str())
    }

    /// The records of all tensors that can be read, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.set.tensors()
    }

    /// The tensors whose types this crate does not read.
    pub fn unsupported(&self) -> &[UnsupportedTensor] {
        self.set.unsupported()
    }

    /// One tensor's record; `None` also for a tensor of a type not read.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.set.info(name)
    }

    /// One tensor's record, which must be there.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such tensor, `Unsupported` naming its type if it is of one not read.
    pub fn require(&self, name: &str) -> Result<&TensorInfo> {
        self.set.require(name)
    }

    /// Reads one tensor. A mapped file lends its bytes without a copy where they are aligned for the type.
    ///
    /// # Errors
    /// As [`Weights::require`]; `Io` if reading fails.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        self.set.read(name)
    }

    /// Reads one tensor's bytes into `buf`, which must have exactly its size.
    ///
    /// # Errors
    /// As [`Weights::read`]; `InvalidInput` if the size differs.
    pub fn read_into(&self, name: &str, buf: &mut [u8]) -> Result<()> {
        self.set.read_into(name, buf)
    }

    /// Reads a part of one tensor's bytes, from byte `start` of it on: some rows of a table, a piece of an upload.
    ///
    /// # Errors
    /// As [`Weights::read`]; `InvalidInput` if the part is not inside the tensor.
    pub fn read_part(&self, name: &str, start: usize, buf: &mut [u8]) -> Result<()> {
        self.set.read_part(name, start, buf)
    }

    /// The same tensors under other names, the file's metadata kept; those that `name` gives none are left out.
    #[must_use]
    pub fn renamed(&self, name: impl Fn(&str) -> Option<String>) -> Weights {
        Weights {
            set: self.set.renamed(name),
            origin: self.origin.clone(),
        }
    }

    /// The bytes of all tensors that can be read.
    pub fn total_bytes(&self) -> u64 {
        self.set.tensors().iter().map(|t| t.nbytes as u64).sum()
    }

    /// The files, in the order that [`TensorInfo::part`] counts.
    pub fn sources(&self) -> &[Arc<dyn ByteSource>] {
        self.set.sources()
    }

    /// The metadata of a GGUF file; `None` for other formats.
    pub fn gguf_metadata(&self) -> Option<&Metadata> {
        match &self.origin {
            Origin::Gguf(metadata) => Some(metadata),
            _ => None,
        }
    }

    /// The `__metadata__` of a safetensors file; `None` for other formats.
    pub fn safetensors_metadata(&self) -> Option<&BTreeMap<String, String>> {
        match &self.origin {
            Origin::SafeTensors(metadata) => Some(metadata),
            _ => None,
        }
    }

    /// The kind of model that a CTranslate2 file names; `None` for other formats.
    pub fn ct2_spec(&self) -> Option<&str> {
        match &self.origin {
            Origin::Ct2(spec) => Some(spec),
            _ => None,
        }
    }

    /// What is in a GGML file beside its tensors; `None` for other formats.
    pub fn ggml_head(&self) -> Option<&GgmlHead> {
        match &self.origin {
            Origin::Ggml(head) => Some(head),
            _ => None,
        }
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weights({:?})", self.set)
    }
}

impl From<Gguf> for Weights {
    fn from(file: Gguf) -> Self {
        Weights {
            set: file.set,
            origin: Origin::Gguf(file.metadata),
        }
    }
}

impl From<Ggml> for Weights {
    fn from(file: Ggml) -> Self {
        Weights {
            set: file.set,
            origin: Origin::Ggml(file.head),
        }
    }
}

impl From<Ct2> for Weights {
    fn from(file: Ct2) -> Self {
        Weights {
            set: file.set,
            origin: Origin::Ct2(file.spec),
        }
    }
}

impl From<SafeTensors> for Weights {
    fn from(file: SafeTensors) -> Self {
        Weights {
            set: file.set,
            origin: Origin::SafeTensors(file.metadata),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn weights_in_folder(dir: &std::path::Path) -> Result<std::path::PathBuf> {
    for name in ["model.safetensors", "model.safetensors.index.json"] {
        let path = dir.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    let here = dir.display().to_string();
    let (mut gguf, mut safetensors) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(dir).map_err(|e| crate::Error::io(&here, e))? {
        let path = entry.map_err(|e| crate::Error::io(&here, e))?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        // Of a split set the first part stands for all.
        let later_part = crate::gguf::split_name(name).is_some_and(|(_, no, _)| no > 1);
        // The tower of a vision-language model is opened beside it.
        let projector = name.to_ascii_lowercase().contains("mmproj");
        if name.ends_with(".gguf") && !later_part && !projector {
            gguf.push(path);
        } else if name.ends_with(".safetensors") {
            safetensors.push(path);
        }
    }
    let counts = (gguf.len(), safetensors.len());
    let ct2 = dir.join("model.bin");
    if counts == (0, 0) && ct2.is_file() {
        return Ok(ct2);
    }
    match (counts, gguf.pop(), safetensors.pop()) {
        ((1, _), Some(path), _) | ((0, 1), _, Some(path)) => Ok(path),
        _ => Err(crate::Error::invalid(format!(
            "{here}: expected model.safetensors, model.safetensors.index.json, one .gguf or one .safetensors file, \
             found {} .gguf and {} .safetensors files: name the one to open",
            counts.0, counts.1
        ))),
    }
}
