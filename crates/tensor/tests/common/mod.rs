//! What the tests of both formats share.
#![allow(dead_code)] // each test program uses a part of it

use firelight_tensor::{ByteSource, Error, HeaderStep, MemSource, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of these bytes that lends slices.
pub(crate) fn lending(bytes: &[u8]) -> Arc<dyn ByteSource> {
    Arc::new(MemSource::new("test file", bytes))
}

/// A source of these bytes that only reads, and counts the bytes read.
pub(crate) struct Reading {
    inner: MemSource,
    pub(crate) read: AtomicU64,
}

impl Reading {
    pub(crate) fn new(bytes: &[u8]) -> Arc<Self> {
        Arc::new(Reading {
            inner: MemSource::new("test file", bytes),
            read: AtomicU64::new(0),
        })
    }
}

impl ByteSource for Reading {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.inner.read_at(offset, buf)
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}

/// Runs an incremental parser the way a download does, giving exactly what it asks for; checks that it keeps its word.
pub(crate) fn step_by_step<H: std::fmt::Debug>(
    file: &[u8],
    parse: impl Fn(&[u8], u64) -> Result<HeaderStep<H>>,
) -> Result<H> {
    let mut have = 0;
    loop {
        match parse(&file[..have], file.len() as u64)? {
            HeaderStep::Done(header) => return Ok(header),
            HeaderStep::NeedMore(n) => {
                assert!(
                    n > have as u64 && n <= file.len() as u64,
                    "asked for {n} after {have}"
                );
                have = n as usize;
            }
        }
    }
}

/// The error of something that must fail with `Malformed` and these words.
#[track_caller]
pub(crate) fn malformed<T>(result: Result<T>, words: &str) -> u64 {
    match result.map(|_| ()) {
        Err(Error::Malformed {
            offset, ref what, ..
        }) if what.contains(words) => offset,
        other => panic!("expected Malformed with {words:?}, got {other:?}"),
    }
}

/// The same for `Limit`.
#[track_caller]
pub(crate) fn over_limit<T>(result: Result<T>, words: &str) {
    match result.map(|_| ()) {
        Err(Error::Limit { what, .. }) if what.contains(words) => {}
        other => panic!("expected Limit with {words:?}, got {other:?}"),
    }
}
