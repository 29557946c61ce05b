//! What can go wrong between a model's name and its files.
#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;
use std::path::PathBuf;

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Failures of finding, fetching and checking model files. Every message ends with the fix where one is known.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the caller passed in cannot be used.
    #[error("{what}: expected {expected}, got {got:?}")]
    InvalidInput {
        /// Which input.
        what: String,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },
    /// No catalogue entry, file or folder has this name.
    #[error("unknown model {name:?}{}; known models: {}; or give a path, or hf:OWNER/REPO[/FILE][@REVISION]",
        closest.as_ref().map(|c| format!(", did you mean {c:?}?")).unwrap_or_default(), known.join(", "))]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// All names the catalogue has.
        known: Vec<String>,
        /// The most similar known name, when one is close.
        closest: Option<String>,
    },
    /// A file that should be there is not.
    #[error("{what} not found: {}{}", path.display(), hint(fix))]
    NotFound {
        /// What was looked for.
        what: String,
        /// Where.
        path: PathBuf,
        /// What to do about it; may be empty.
        fix: String,
    },
    /// The network is switched off by the user and the cache does not have it.
    #[error(
        "{what} is not in the cache and downloads are off ({switch}); unset it, or fetch the model once while online"
    )]
    Offline {
        /// What was wanted.
        what: String,
        /// The variable or option that says offline.
        switch: String,
    },
    /// The host cannot be reached (name lookup, connection, TLS, or no answer).
    #[error(
        "cannot reach {host}: {reason}; check the network, a proxy (HTTPS_PROXY) and its certificate (SSL_CERT_FILE), or set HF_ENDPOINT to a mirror"
    )]
    Unreachable {
        /// Scheme, host and port.
        host: String,
        /// What the network said.
        reason: String,
    },
    /// The connection broke off or stalled more often than the retries allow. What was fetched is kept.
    #[error("download of {file} broke off after {got} of {total} bytes: {reason}; run it again to resume", total = total.map_or("?".into(), |t| t.to_string()))]
    Interrupted {
        /// File being fetched.
        file: String,
        /// Bytes on disk.
        got: u64,
        /// Size of the file, when known.
        total: Option<u64>,
        /// The last failure.
        reason: String,
    },
    /// The server answered with an error status.
    #[error("{url} answered HTTP {status}{}", hint(fix))]
    Http {
        /// Address asked, without query.
        url: String,
        /// HTTP status.
        status: u16,
        /// What to do about it; may be empty.
        fix: String,
    },
    /// The bytes of an answer, an archive or a file are not what the format says.
    #[error("malformed {what}: {reason}{}", offset.map(|o| format!(" (at byte {o})")).unwrap_or_default())]
    Malformed {
        /// Which answer, archive or file.
        what: String,
        /// What was expected and found.
        reason: String,
        /// Byte offset, when known.
        offset: Option<u64>,
    },
    /// The content is not the one that was promised.
    #[error(
        "{file} has the wrong sha256: expected {expected}, got {got} (from {origin}); the bad data was discarded, nothing was installed"
    )]
    WrongHash {
        /// File checked.
        file: String,
        /// Pinned or announced hash, hex.
        expected: String,
        /// Computed hash, hex.
        got: String,
        /// Where the bytes came from.
        origin: String,
    },
    /// The file's length is not the one that was promised.
    #[error("{file} has {got} bytes, expected {expected} (from {origin})")]
    WrongSize {
        /// File checked.
        file: String,
        /// Promised bytes.
        expected: u64,
        /// Found bytes.
        got: u64,
        /// Where the bytes came from.
        origin: String,
    },
    /// A bound was passed.
    #[error("{what}: limit is {max}, got {got}")]
    Limit {
        /// What was counted.
        what: String,
        /// The bound.
        max: u64,
        /// What was found (at least).
        got: u64,
    },
    /// The disk has no room for it.
    #[error("not enough disk space in {}: {} needed, {} free; free some space or set FIRELIGHT_CACHE / HF_HUB_CACHE to another disk", dir.display(), bytes(*needed), bytes(*free))]
    NoSpace {
        /// Folder that was to take the files.
        dir: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// A package client is not installed.
    #[error("{tool} was not found; {fix}")]
    MissingTool {
        /// Client looked for.
        tool: String,
        /// What to install.
        fix: String,
    },
    /// A package client ran and failed.
    #[error("`{command}` failed ({status}): {output}")]
    ToolFailed {
        /// Command line.
        command: String,
        /// Exit status in words.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// No source of a catalogue entry could provide it.
    #[error("no source could provide {name}:{}", tried.iter().map(|(s, e)| format!("\n  {s}: {e}")).collect::<String>())]
    AllSourcesFailed {
        /// Model or file wanted.
        name: String,
        /// Each source, in the order tried, with its failure.
        tried: Vec<(String, Error)>,
    },
    /// A file of the cache is not what was installed.
    #[error("{} is corrupt: {reason}; fetch the model again to repair it", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Verb, as in "cannot create".
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The caller asked to stop. What was fetched is kept.
    #[error("cancelled; what was fetched is kept and the next run resumes")]
    Cancelled,
}

fn hint(fix: &str) -> String {
    if fix.is_empty() {
        String::new()
    } else {
        format!("; {fix}")
    }
}

/// A byte count for people: `93.8 MB`.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

impl Error {
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn malformed(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed {
            what: what.into(),
            reason: reason.into(),
            offset: None,
        }
    }

    /// Whether another source of the same model is worth a try after this failure: not after the user's own wish to
    /// stop, nor when this machine's disk is the obstacle.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn tries_next_source(&self) -> bool {
        !matches!(
            self,
            Self::Cancelled | Self::NoSpace { .. } | Self::Io { .. }
        )
    }
}
