//! Finding and fetching models, against servers and package clients made here; nothing leaves this machine.
//!
//! `server` is a small HTTP server that can misbehave, `hub` and `broken` fetch from it, `package` runs scripts in the place
//! of pip and npm, `cache` is about what stays on disk.
mod broken;
mod cache;
mod hub;
#[cfg(unix)]
mod package;
mod server;

use firelight_runtime::source::{
    CancelToken, Error, LocalModel, Options, Phase, ProgressEvent, Resolver,
};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// A temporary home with its own caches, and options that wait for nothing.
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn options(&self, endpoint: &str) -> Options {
        self.options_with(endpoint, &[])
    }

    pub(crate) fn options_with(&self, endpoint: &str, vars: &[(&str, &str)]) -> Options {
        let mut options = Options::from_vars(|name| match name {
            "HF_HOME" => Some(self.path("hf").into()),
            "FIRELIGHT_CACHE" => Some(self.path("cache").into()),
            "HF_ENDPOINT" => Some(endpoint.into()),
            _ => vars.iter().find(|v| v.0 == name).map(|v| v.1.into()),
        })
        .unwrap();
        options.range_bytes = 64 << 10;
        options.backoff = Duration::from_millis(5);
        options.connect_timeout = Duration::from_secs(2);
        options.read_timeout = Duration::from_secs(5);
        options.free_space = Arc::new(|_| Ok(1 << 40));
        options
    }

    /// The hub cache folder of repository `o/r`.
    pub(crate) fn repo(&self) -> PathBuf {
        self.path("hf/hub/models--o--r")
    }

    /// Names of all files under a folder, sorted.
    pub(crate) fn files(&self, under: &str) -> Vec<String> {
        let root = self.path(under);
        let mut names = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => names.push(
                        entry
                            .path()
                            .strip_prefix(&root)
                            .unwrap()
                            .to_str()
                            .unwrap()
                            .to_owned(),
                    ),
                }
            }
        }
        names.sort();
        names
    }
}

/// Bytes that look like nothing and differ everywhere.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

pub(crate) fn sha256(data: &[u8]) -> String {
    Sha256::digest(data)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Resolves, checking that progress behaves whatever happens.
pub(crate) fn get(resolver: &Resolver, model: &str) -> Result<LocalModel> {
    get_with(resolver, model, &CancelToken::new(), |_| ())
}

pub(crate) fn get_with(
    resolver: &Resolver,
    model: &str,
    cancel: &CancelToken,
    mut also: impl FnMut(&ProgressEvent),
) -> Result<LocalModel> {
    let mut best: Vec<(Phase, u64)> = Vec::new();
    let mut sink = |e: ProgressEvent| {
        match best.iter_mut().find(|b| b.0 == e.phase) {
            Some(b) => {
                assert!(e.bytes_done >= b.1, "{e:?} after {}", b.1);
                b.1 = e.bytes_done;
            }
            None => best.push((e.phase, e.bytes_done)),
        }
        assert!(e.bytes_total.is_none_or(|t| t >= e.bytes_done), "{e:?}");
        assert!(e.eta_s.is_none_or(|s| s.is_finite() && s >= 0.0), "{e:?}");
        also(&e);
    };
    resolver.resolve(&resolver.parse(model)?, &mut sink, cancel)
}

/// A list that a handler on another thread can fill.
pub(crate) type Shared<T> = Arc<Mutex<T>>;

pub(crate) fn read(path: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
