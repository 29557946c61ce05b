//! The crate's error type.

/// What can go wrong with tensors and weight files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's arguments do not fit together.
    #[error("invalid input: {0}")]
    InvalidInput(String),
    /// A valid request that this version does not serve.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The bytes are not what the format says.
    #[error("malformed {format} at byte {offset}: {what}")]
    Malformed {
        /// The format being read: `safetensors`, `gguf`, …
        format: &'static str,
        /// Byte offset of the fault in the file.
        offset: u64,
        /// What was expected and what was found.
        what: String,
    },
    /// A stated bound was exceeded.
    #[error("limit: {what} is at most {max}, got {got}")]
    Limit {
        /// The bounded quantity.
        what: &'static str,
        /// Its largest allowed value.
        max: u64,
        /// The value found.
        got: u64,
    },
    /// Memory of this size is not to be had.
    #[error("out of memory: {bytes} bytes could not be allocated")]
    OutOfMemory {
        /// The bytes asked for.
        bytes: u64,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// File or source name.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl Error {
    /// An [`Error::InvalidInput`] with this message.
    pub fn invalid(what: impl Into<String>) -> Self {
        Error::InvalidInput(what.into())
    }

    /// An [`Error::Malformed`] of this format at this byte offset.
    pub fn malformed(format: &'static str, offset: u64, what: impl Into<String>) -> Self {
        Error::Malformed {
            format,
            offset,
            what: what.into(),
        }
    }

    /// An [`Error::Io`] on this file or source.
    pub fn io(path: impl Into<String>, source: std::io::Error) -> Self {
        Error::Io {
            path: path.into(),
            source,
        }
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
