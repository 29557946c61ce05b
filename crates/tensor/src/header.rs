//! What the two weight formats share: tensor records, incremental header parsing, and reading by name.

use crate::bytes::AlignedBuf;
use crate::{ByteSource, Bytes, DType, Error, Result, Shape, Tensor};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The most tensors one file may list.
pub const MAX_TENSORS: u64 = 1 << 18;
/// The most dimensions one tensor may have.
pub const MAX_RANK: u64 = 8;

/// One tensor of a weight file: what it is and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Row-major dimensions, outermost first; a weight matrix is `[rows, columns]` in every format.
    pub shape: Shape,
    /// Its size in the file, in bytes.
    pub nbytes: usize,
    /// Which file of a set it is in; 0 for a single file.
    pub part: usize,
    /// The absolute offset of its first byte in that file.
    pub offset: u64,
}

/// A tensor that a file lists in a type this crate does not read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnsupportedTensor {
    /// Its name in the file.
    pub name: String,
    /// The format's own name for the type, such as `IQ4_XS` or `F8_E4M3`.
    pub type_name: String,
    /// Row-major dimensions, outermost first.
    pub shape: Shape,
}

/// The outcome of parsing a header of which perhaps only a prefix is at hand.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderStep<H> {
    /// Call again with at least this many bytes from the start of the file. Never more than the file has, and always
    /// more than were given, by enough that the whole costs no more than a few passes.
    NeedMore(u64),
    /// The whole header.
    Done(H),
}

/// What a reader refuses is not written either.
pub(crate) fn check_rank(shape: &[usize]) -> Result<()> {
    match shape.len() as u64 {
        rank if rank > MAX_RANK => Err(Error::Limit {
            what: "dimensions of a tensor",
            max: MAX_RANK,
            got: rank,
        }),
        _ => Ok(()),
    }
}

/// Drives an incremental header parser over a source: mapped bytes in place, others by growing reads.
pub(crate) fn read_header<H>(
    source: &dyn ByteSource,
    first: u64,
    parse: impl Fn(&[u8], u64) -> Result<HeaderStep<H>>,
) -> Result<H> {
    let total = source.len();
    if let Some(all) = source.as_slice(0..total)
        && let HeaderStep::Done(header) = parse(all, total)?
    {
        return Ok(header);
    }
    let mut prefix = Vec::new();
    let mut want = first.min(total);
    loop {
        let have = prefix.len();
        prefix.resize(to_usize(want)?, 0);
        source.read_at(have as u64, &mut prefix[have..])?;
        match parse(&prefix, total)? {
            HeaderStep::Done(header) => return Ok(header),
            HeaderStep::NeedMore(more) if more > want && more <= total => want = more,
            HeaderStep::NeedMore(more) => {
                return Err(Error::invalid(format!(
                    "{}: the header asks for {more} bytes of {total}, {want} are read",
                    source.name()
                )));
            }
        }
    }
}

/// Reads forward through a source.
pub(crate) struct Cursor<'a> {
    format: &'static str,
    pub(crate) source: &'a dyn ByteSource,
    pub(crate) at: u64,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(format: &'static str, source: &'a dyn ByteSource) -> Self {
        Cursor {
            format,
            source,
            at: 0,
        }
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        let left = self.source.len().saturating_sub(self.at);
        if bytes.len() as u64 > left {
            return Err(Error::malformed(
                self.format,
                self.at,
                format!("{} bytes expected, {left} left (truncated?)", bytes.len()),
            ));
        }
        self.source.read_at(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn word(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }
}

/// A file quantity as an index: a file may be longer than a 32-bit address space.
pub(crate) fn to_usize(n: u64) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::Limit {
        what: "bytes addressable on this target",
        max: usize::MAX as u64,
        got: n,
    })
}

/// Tensors by name over one or more sources: what every weight file comes down to.
#[derive(Clone, Default)]
pub(crate) struct TensorSet {
    tensors: Vec<TensorInfo>,
    unsupported: Vec<UnsupportedTensor>,
    index: HashMap<String, usize>,
    sources: Vec<Arc<dyn ByteSource>>,
}

impl TensorSet {
    /// Adds the tensors of one more source, which must not repeat a name. Their `part` is set here.
    pub(crate) fn add(
        &mut self,
        format: &'static str,
        source: Arc<dyn ByteSource>,
        tensors: Vec<TensorInfo>,
        unsupported: Vec<UnsupportedTensor>,
    ) -> Result<()> {
        let part = self.sources.len();
        for tensor in tensors {
            let at = self.tensors.len();
            if self.index.insert(tensor.name.clone(), at).is_some() {
                return Err(Error::malformed(
                    format,
                    tensor.offset,
                    format!(
                        "tensor `{}` of {} is in another part too",
                        tensor.name,
                        source.name()
                    ),
                ));
            }
            self.tensors.push(TensorInfo { part, ..tensor });
        }
        self.unsupported.extend(unsupported);
        self.sources.push(source);
        Ok(())
    }

    /// The tensors under other names; those without one are left out, and of two with the same name the first stays.
    pub(crate) fn renamed(&self, name: impl Fn(&str) -> Option<String>) -> TensorSet {
        let mut set = TensorSet {
            sources: self.sources.clone(),
            ..TensorSet::default()
        };
        for tensor in &self.tensors {
            if let Some(new) = name(&tensor.name)
                && !set.index.contains_key(&new)
            {
                set.index.insert(new.clone(), set.tensors.len());
                set.tensors.push(TensorInfo {
                    name: new,
                    ..tensor.clone()
                });
            }
        }
        for tensor in &self.unsupported {
            if let Some(new) = name(&tensor.name) {
                set.unsupported.push(UnsupportedTensor {
                    name: new,
                    ..tensor.clone()
                });
            }
        }
        set
    }

    pub(crate) fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    pub(crate) fn unsupported(&self) -> &[UnsupportedTensor] {
        &self.unsupported
    }

    pub(crate) fn sources(&self) -> &[Arc<dyn ByteSource>] {
        &self.sources
    }

    pub(crate) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).and_then(|&i| self.tensors.get(i))
    }

    /// The record, or an error that says whether the tensor is missing or of a type not read.
    pub(crate) fn require(&self, name: &str) -> Result<&TensorInfo> {
        if let Some(info) = self.info(name) {
            return Ok(info);
        }
        if let Some(other) = self.unsupported.iter().find(|t| t.name == name) {
            return Err(Error::Unsupported(format!(
                "tensor `{name}` has the type {}; types read: {}",
                other.type_name,
                DType::ALL
                    .iter()
                    .map(|d| d.name())
                    .collect::<Vec<_>>()
                    .join(", ")
            )));
        }
        let of = self.sources.first().map_or("no file", |s| s.name());
        Err(Error::invalid(format!(
            "no tensor `{name}` among the {} of {of}",
            self.tensors.len()
        )))
    }

    fn source_of(&self, info: &TensorInfo) -> Result<&Arc<dyn ByteSource>> {
        self.sources.get(info.part).ok_or_else(|| {
            Error::invalid(format!(
                "tensor `{}`: part {} is not open",
                info.name, info.part
            ))
        })
    }

    pub(crate) fn read(&self, name: &str) -> Result<Tensor> {
        let info = self.require(name)?;
        let source = self.source_of(info)?;
        let range = info.offset..info.offset.saturating_add(info.nbytes as u64);
        let bytes = match Bytes::lent(source, range, info.dtype.align()) {
            Some(bytes) => bytes,
            None => {
                let mut buf = AlignedBuf::zeroed(info.nbytes)?;
                source.read_at(info.offset, &mut buf)?;
                buf.into()
            }
        };
        Tensor::new(info.dtype, info.shape.dims(), bytes)
    }

    pub(crate) fn read_part(&self, name: &str, start: usize, buf: &mut [u8]) -> Result<()> {
        let info = self.require(name)?;
        if start
            .checked_add(buf.len())
            .is_none_or(|end| end > info.nbytes)
        {
            return Err(Error::invalid(format!(
                "tensor `{name}` has {} bytes, asked for {} from {start}",
                info.nbytes,
                buf.len()
            )));
        }
        self.source_of(info)?
            .read_at(info.offset + start as u64, buf)
    }

    pub(crate) fn read_into(&self, name: &str, buf: &mut [u8]) -> Result<()> {
        let info = self.require(name)?;
        if buf.len() != info.nbytes {
            return Err(Error::invalid(format!(
                "tensor `{name}` has {} bytes, the buffer {}",
                info.nbytes,
                buf.len()
            )));
        }
        self.source_of(info)?.read_at(info.offset, buf)
    }
}

impl fmt::Debug for TensorSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.sources.iter().map(|s| s.name()).collect();
        write!(
            f,
            "{} tensors and {} unsupported of {names:?}",
            self.tensors.len(),
            self.unsupported.len()
        )
    }
}

/// Refuses ranges `(start, end, index)` of the data section that share bytes; sorts them.
pub(crate) fn check_overlaps(
    format: &'static str,
    ranges: &mut [(u64, u64, usize)],
    name: impl Fn(usize) -> String,
) -> Result<()> {
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        if let &[(_, end, a), (start, _, b)] = pair
            && start < end
        {
            return Err(Error::malformed(
                format,
                start,
                format!(
                    "tensors `{}` and `{}` share bytes {start} to {end}",
                    name(a),
                    name(b)
                ),
            ));
        }
    }
    Ok(())
}
