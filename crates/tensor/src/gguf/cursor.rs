//! Reading little-endian values from a prefix of a file whose full length is known.

use super::{FORMAT, MAX_HEADER};
use crate::{Error, Result};

/// Why reading stopped.
pub(super) enum Stop {
    /// The prefix is too short: the header needs at least this many bytes of the file.
    NeedMore(u64),
    /// The file is wrong.
    Fault(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Stop::Fault(e)
    }
}

/// The rest of the prefix. Every length is compared with the file's before a byte is asked for or allocated.
pub(super) struct Cursor<'a> {
    prefix: &'a [u8],
    pos: usize,
    total: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(prefix: &'a [u8], total: u64) -> Self {
        let known = usize::try_from(total)
            .unwrap_or(usize::MAX)
            .min(prefix.len());
        Cursor {
            prefix: &prefix[..known],
            pos: 0,
            total,
        }
    }

    pub(super) fn pos(&self) -> u64 {
        self.pos as u64
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// A fault at the current position.
    pub(super) fn fault(&self, what: impl Into<String>) -> Stop {
        Stop::Fault(Error::malformed(FORMAT, self.pos(), what))
    }

    /// Makes sure that `len` more bytes are in the file and in the prefix.
    pub(super) fn need(&self, len: u64, what: &str) -> Result<(), Stop> {
        let left = self.total - self.pos();
        if len > left {
            return Err(self.fault(format!(
                "{what} of {len} bytes where the file has {left} left"
            )));
        }
        let end = self.pos() + len;
        if end > MAX_HEADER {
            return Err(Error::Limit {
                what: "bytes of a GGUF header",
                max: MAX_HEADER,
                got: end,
            }
            .into());
        }
        if end > self.prefix.len() as u64 {
            return Err(Stop::NeedMore(end));
        }
        Ok(())
    }

    pub(super) fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8], Stop> {
        self.need(len, what)?;
        let start = self.pos;
        self.pos += len as usize; // `need` found the end inside the prefix
        Ok(&self.prefix[start..self.pos])
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Stop> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, Stop> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, Stop> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A length-prefixed UTF-8 string of at most `max` bytes.
    pub(super) fn str(&mut self, max: u64, what: &'static str) -> Result<&'a str, Stop> {
        let len = self.u64(what)?;
        if len > max && len <= self.total - self.pos() {
            return Err(Error::Limit {
                what,
                max,
                got: len,
            }
            .into());
        }
        let start = self.pos();
        std::str::from_utf8(self.take(len, what)?).map_err(|e| {
            let at = start + e.valid_up_to() as u64;
            Stop::Fault(Error::malformed(FORMAT, at, format!("{what} is not UTF-8")))
        })
    }
}
