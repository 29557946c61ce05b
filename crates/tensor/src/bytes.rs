//! Byte buffers: owned and 64-byte aligned, or borrowed from a mapped file.

use crate::{ByteSource, Error, Result};
use bytemuck::{Pod, Zeroable};
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// One cache line: the unit owned buffers are made of, which aligns them for every element type and SIMD width.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A growable-once, writable buffer aligned to 64 bytes; becomes a [`Bytes`] without a copy.
pub struct AlignedBuf {
    memory: Memory,
    len: usize,
}

enum Memory {
    Lines(Vec<Line>),
    /// A mapping of whole pages.
    #[cfg(all(feature = "mmap", target_os = "linux"))]
    Pages(memmap2::MmapMut),
}

impl AlignedBuf {
    /// The alignment of the first byte.
    pub const ALIGN: usize = 64;

    /// A buffer of `len` zero bytes.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn zeroed(len: usize) -> Result<Self> {
        #[cfg(all(feature = "mmap", target_os = "linux"))]
        if let Some(memory) = pages(len).map(Memory::Pages) {
            return Ok(AlignedBuf { memory, len });
        }
        let lines = bytemuck::allocation::try_zeroed_vec(len.div_ceil(64))
            .map_err(|()| Error::OutOfMemory { bytes: len as u64 })?;
        let memory = Memory::Lines(lines);
        Ok(AlignedBuf { memory, len })
    }
}

/// Large buffers in huge pages: a buffer of 36 MB is 9,000 small ones, each of which costs the kernel a microsecond or two when it is
/// first touched.
#[cfg(all(feature = "mmap", target_os = "linux"))]
fn pages(len: usize) -> Option<memmap2::MmapMut> {
    const HUGE: usize = 2 << 20;
    const LEAST: usize = 4 * HUGE;
    if len < LEAST {
        return None;
    }
    // Whole huge pages are what the kernel aligns to them.
    let map = memmap2::MmapMut::map_anon(len.checked_next_multiple_of(HUGE)?).ok()?;
    // A wish: where there are none, small pages do.
    let _ = map.advise(memmap2::Advice::HugePage);
    Some(map)
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Lines(lines) => &bytemuck::cast_slice(lines)[..self.len],
            #[cfg(all(feature = "mmap", target_os = "linux"))]
            Memory::Pages(map) => &map[..self.len],
        }
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Lines(lines) => &mut bytemuck::cast_slice_mut(lines)[..self.len],
            #[cfg(all(feature = "mmap", target_os = "linux"))]
            Memory::Pages(map) => &mut map[..self.len],
        }
    }
}

/// Cheaply cloned, immutable bytes.
///
/// Owned bytes start at a 64-byte boundary, so `bytemuck::cast_slice` to any element type works. Bytes lent by a mapped
/// file keep the file's own alignment; the readers in this crate lend them only where the element type's alignment holds.
#[derive(Clone)]
pub struct Bytes(Repr);

#[derive(Clone)]
enum Repr {
    Owned {
        buf: Arc<AlignedBuf>,
        start: usize,
        len: usize,
    },
    Lent {
        source: Arc<dyn ByteSource>,
        range: Range<u64>,
    },
}

impl Bytes {
    /// Bytes `range` of a source that has them in memory; `None` if it has not, or if they do not start at a multiple of
    /// `align`.
    pub fn lent(source: &Arc<dyn ByteSource>, range: Range<u64>, align: usize) -> Option<Self> {
        let slice = source.as_slice(range.clone())?;
        (slice.as_ptr() as usize)
            .is_multiple_of(align.max(1))
            .then(|| {
                Bytes(Repr::Lent {
                    source: source.clone(),
                    range,
                })
            })
    }

    /// A part of these bytes, sharing the memory.
    ///
    /// # Errors
    /// `InvalidInput` if the range is not inside.
    pub fn slice(&self, range: Range<usize>) -> Result<Self> {
        if range.start > range.end || range.end > self.len() {
            return Err(Error::invalid(format!(
                "bytes {range:?} of a buffer of {}",
                self.len()
            )));
        }
        Ok(Bytes(match &self.0 {
            Repr::Owned { buf, start, .. } => Repr::Owned {
                buf: buf.clone(),
                start: start + range.start,
                len: range.len(),
            },
            Repr::Lent {
                source,
                range: outer,
            } => Repr::Lent {
                source: source.clone(),
                range: outer.start + range.start as u64..outer.start + range.end as u64,
            },
        }))
    }

    /// True if the bytes belong to a mapped source, not to memory of our own.
    pub fn is_lent(&self) -> bool {
        matches!(self.0, Repr::Lent { .. })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Owned { buf, start, len } => &buf[*start..*start + *len],
            // `ByteSource::as_slice` must keep its answer, and it was `Some` when this was made.
            Repr::Lent { source, range } => source.as_slice(range.clone()).unwrap_or_default(),
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_lent() { "lent" } else { "owned" };
        write!(f, "Bytes({} {kind})", self.len())
    }
}

impl From<AlignedBuf> for Bytes {
    fn from(buf: AlignedBuf) -> Self {
        let len = buf.len;
        Bytes(Repr::Owned {
            buf: Arc::new(buf),
            start: 0,
            len,
        })
    }
}

/// Copies, to gain the alignment.
impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        let mut lines = vec![Line::zeroed(); bytes.len().div_ceil(64)];
        bytemuck::cast_slice_mut(&mut lines)[..bytes.len()].copy_from_slice(bytes);
        AlignedBuf {
            memory: Memory::Lines(lines),
            len: bytes.len(),
        }
        .into()
    }
}

/// Copies, to gain the alignment.
impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

/// Copies the values in native (little-endian) order.
impl From<&[f32]> for Bytes {
    fn from(values: &[f32]) -> Self {
        bytemuck::cast_slice::<f32, u8>(values).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_bytes_are_aligned_and_slice_without_copying() {
        for len in [0, 1, 63, 64, 65, 1000] {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let bytes = Bytes::from(data.clone());
            assert_eq!(&*bytes, &data[..]);
            assert!(len == 0 || (bytes.as_ptr() as usize).is_multiple_of(AlignedBuf::ALIGN));
            let part = bytes.slice(len / 3..len).unwrap();
            assert_eq!(&*part, &data[len / 3..]);
            assert_eq!(part.as_ptr(), bytes[len / 3..].as_ptr());
            assert!(bytes.slice(0..len + 1).is_err());
        }
    }

    #[test]
    fn a_large_buffer_is_zero_and_whole() {
        let len = (9 << 20) + 7;
        let mut buf = AlignedBuf::zeroed(len).unwrap();
        assert!(buf.len() == len && buf.iter().all(|&b| b == 0));
        assert!((buf.as_ptr() as usize).is_multiple_of(AlignedBuf::ALIGN));
        buf.fill(7);
        buf[len - 1] = 8;
        let bytes = Bytes::from(buf);
        assert!(
            bytes.len() == len && bytes[..len - 1].iter().all(|&b| b == 7) && bytes[len - 1] == 8
        );
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(matches!(
            AlignedBuf::zeroed(usize::MAX - 64),
            Err(Error::OutOfMemory { .. })
        ));
    }
}
