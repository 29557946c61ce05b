//! The bytes as symphonia reads them: counted, and with a WAV header's lengths set right.

use std::io::{Read, Result, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use symphonia::core::io::MediaSource;

/// A slice as a media source. `patches` are read in place of what lies at their offsets.
pub(super) struct Source<'a> {
    bytes: &'a [u8],
    at: u64,
    reached: Arc<AtomicU64>,
    patches: Vec<(u64, [u8; 4])>,
}

impl<'a> Source<'a> {
    pub(super) fn new(bytes: &'a [u8], patches: Vec<(u64, [u8; 4])>) -> Self {
        Source {
            bytes,
            at: 0,
            reached: Arc::default(),
            patches,
        }
    }

    /// How far the bytes have been read, for messages.
    pub(super) fn reached(&self) -> Arc<AtomicU64> {
        self.reached.clone()
    }
}

impl Read for Source<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let start = usize::try_from(self.at)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        let n = (&self.bytes[start..]).read(out)?;
        for (at, patch) in &self.patches {
            for (i, &b) in patch.iter().enumerate() {
                let at = (at + i as u64).wrapping_sub(self.at);
                if let Some(o) = usize::try_from(at).ok().and_then(|at| out[..n].get_mut(at)) {
                    *o = b;
                }
            }
        }
        self.at += n as u64;
        self.reached.fetch_max(self.at, Ordering::Relaxed);
        Ok(n)
    }
}

impl Seek for Source<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let mut cursor = std::io::Cursor::new(self.bytes);
        cursor.set_position(self.at);
        self.at = cursor.seek(to)?;
        Ok(self.at)
    }
}

impl MediaSource for Source<'_> {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }
}
