//! A file read with positioned reads, so one handle serves many threads.

use super::{ByteSource, checked_range};
use crate::{Error, Result};
use std::fs::File;
use std::path::Path;

/// A source over a file; every read is one system call or more, none moves a shared cursor.
pub struct FileSource {
    file: File,
    len: u64,
    name: String,
}

impl FileSource {
    /// Opens the file and notes its length.
    ///
    /// # Errors
    /// `Io` if it cannot be opened, or is a folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let name = path.as_ref().display().to_string();
        let (file, len) = open_file(path.as_ref()).map_err(|e| Error::io(&name, e))?;
        Ok(FileSource { file, len, name })
    }
}

/// The open file and its length; folders are refused here because opening one succeeds on some systems.
pub(super) fn open_file(path: &Path) -> std::io::Result<(File, u64)> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    Ok((file, meta.len()))
}

impl ByteSource for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        checked_range(self, offset, buf.len())?;
        read_exact_at(&self.file, offset, buf).map_err(|e| Error::io(&self.name, e))
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buf, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut buf: &mut [u8]) -> std::io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buf.is_empty() {
        match file.seek_read(buf, offset) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buf = &mut buf[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
