//! Where bytes come from: ranges of memory, of a file, of a mapped file, or of anything that can seek.
//!
//! Readers in this crate ask a [`ByteSource`] for the ranges they need, so a tensor is read without its file being in
//! memory. A source that has its bytes in the address space also lends them ([`ByteSource::as_slice`]).
//!
//! | source | needs | lends |
//! |---|---|---|
//! | [`MemSource`] | nothing | yes |
//! | `FileSource` | a native target | no |
//! | `MmapSource` | a native target, feature `mmap` | yes |

#[cfg(not(target_arch = "wasm32"))]
mod file;
#[cfg(all(feature = "mmap", not(target_arch = "wasm32")))]
mod mmap;

use crate::{Bytes, Error, Result};
#[cfg(not(target_arch = "wasm32"))]
pub use file::FileSource;
#[cfg(all(feature = "mmap", not(target_arch = "wasm32")))]
pub use mmap::MmapSource;
use std::ops::Range;
#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;
#[cfg(not(target_arch = "wasm32"))]
use std::sync::Arc;

/// Random access to a sequence of bytes that does not change.
pub trait ByteSource: Send + Sync {
    /// The number of bytes.
    fn len(&self) -> u64;

    /// True if there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// `InvalidInput` if the range is not inside, `Io` if reading fails.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// What to call this source in messages: a path, a URL.
    fn name(&self) -> &str;

    /// These bytes without a copy, if they are in memory anyway. A source that answers `Some` for a range must go on
    /// giving the same bytes for it.
    fn as_slice(&self, range: Range<u64>) -> Option<&[u8]> {
        let _ = range;
        None
    }
}

/// Opens a file: mapped with the feature `mmap`, otherwise with positioned reads.
///
/// # Errors
/// `Io` if the file cannot be opened.
#[cfg(not(target_arch = "wasm32"))]
pub fn open_source(path: impl AsRef<Path>) -> Result<Arc<dyn ByteSource>> {
    #[cfg(feature = "mmap")]
    {
        Ok(Arc::new(MmapSource::open(path)?))
    }
    #[cfg(not(feature = "mmap"))]
    {
        Ok(Arc::new(FileSource::open(path)?))
    }
}

/// A source over bytes in memory.
pub struct MemSource {
    name: String,
    bytes: Bytes,
}

impl MemSource {
    /// `name` appears in messages.
    pub fn new(name: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        MemSource {
            name: name.into(),
            bytes: bytes.into(),
        }
    }
}

impl ByteSource for MemSource {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        buf.copy_from_slice(&self.bytes[checked_range(self, offset, buf.len())?]);
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn as_slice(&self, range: Range<u64>) -> Option<&[u8]> {
        let start = usize::try_from(range.start).ok()?;
        self.bytes.get(start..usize::try_from(range.end).ok()?)
    }
}

/// The range as indices, if it is inside the source.
fn checked_range(source: &dyn ByteSource, offset: u64, len: usize) -> Result<Range<usize>> {
    let end = offset
        .checked_add(len as u64)
        .filter(|&end| end <= source.len());
    match (usize::try_from(offset), end.map(usize::try_from)) {
        (Ok(start), Some(Ok(end))) => Ok(start..end),
        _ => Err(Error::invalid(format!(
            "{}: bytes {offset} to {offset}+{len} of a source of {} bytes",
            source.name(),
            source.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn every_source_reads_the_same() {
        let data: Vec<u8> = (0..10_000u32).map(|i| (i * 7) as u8).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.bin");
        std::fs::write(&path, &data).unwrap();
        let sources: Vec<Arc<dyn ByteSource>> = vec![
            Arc::new(MemSource::new("mem", data.clone())),
            Arc::new(FileSource::open(&path).unwrap()),
            open_source(&path).unwrap(),
        ];
        for source in sources {
            assert_eq!(source.len(), 10_000);
            let mut buf = [0; 100];
            for offset in [0, 1, 4_095, 9_900] {
                source.read_at(offset, &mut buf).unwrap();
                assert_eq!(buf, data[offset as usize..offset as usize + 100]);
                if let Some(slice) = source.as_slice(offset..offset + 100) {
                    assert_eq!(slice, buf);
                }
            }
            for offset in [9_901, 10_000, 1 << 60, u64::MAX] {
                let error = source.read_at(offset, &mut buf).unwrap_err();
                assert!(matches!(error, Error::InvalidInput(_)), "{error}");
                assert!(
                    source
                        .as_slice(offset..offset.saturating_add(100))
                        .is_none()
                );
            }
            #[expect(clippy::reversed_empty_ranges)]
            let backwards = 5..3;
            assert!(source.as_slice(backwards).is_none());
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn empty_and_missing_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        std::fs::write(&path, b"").unwrap();
        for source in [
            open_source(&path).unwrap(),
            Arc::new(FileSource::open(&path).unwrap()),
        ] {
            assert!(source.is_empty());
            source.read_at(0, &mut []).unwrap();
            assert!(source.read_at(0, &mut [0]).is_err());
        }
        let missing = dir.path().join("missing");
        let error = open_source(&missing).err().unwrap().to_string();
        assert!(error.contains("missing"), "{error}");
    }
}
