//! A memory-mapped file. The only module of this crate with `unsafe`.
#![allow(unsafe_code)]

use super::file::open_file;
use super::{ByteSource, checked_range};
use crate::{Error, Result};
use memmap2::Mmap;
use std::ops::Range;
use std::path::Path;

/// A source over a mapped file: reads are copies from the page cache, and slices are lent without one.
///
/// The file must stay as it is while mapped. Where that cannot be promised (a file that another program rewrites in
/// place or cuts short), use [`FileSource`](super::FileSource): the system kills a program that touches mapped pages
/// which are no longer there.
pub struct MmapSource {
    map: Mmap,
    name: String,
}

impl MmapSource {
    /// Maps the whole file.
    ///
    /// # Errors
    /// `Io` if it cannot be opened or mapped.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let name = path.as_ref().display().to_string();
        let (file, _) = open_file(path.as_ref()).map_err(|e| Error::io(&name, e))?;
        // SAFETY: the mapping is private to this struct, read-only, and handed out only as shared slices bound to it. That
        // the file is not changed meanwhile is the documented duty of whoever opens it, as with every mapped file.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(&name, e))?;
        Ok(MmapSource { map, name })
    }
}

impl ByteSource for MmapSource {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        buf.copy_from_slice(&self.map[checked_range(self, offset, buf.len())?]);
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn as_slice(&self, range: Range<u64>) -> Option<&[u8]> {
        let start = usize::try_from(range.start).ok()?;
        self.map.get(start..usize::try_from(range.end).ok()?)
    }
}
