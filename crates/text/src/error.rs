//! The crate's error type.

/// What can go wrong with tokenizers and chat templates.
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
        /// The format being read: `tokenizer.json`, `GGUF vocabulary`, `chat template`, …
        format: &'static str,
        /// Byte offset of the fault; 0 where the fault is in the meaning, not at one place.
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
        /// The value found (a lower bound of it, where work stopped at the limit).
        got: u64,
    },
    /// A chat template refused these messages (`raise_exception`) or failed while rendering.
    #[error("chat template: {0}")]
    Template(String),
}

impl Error {
    /// An [`Error::InvalidInput`] with this message.
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Error::InvalidInput(what.into())
    }

    /// An [`Error::Unsupported`] with this message.
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Error::Unsupported(what.into())
    }

    /// An [`Error::Malformed`] about the meaning of the file as a whole.
    pub(crate) fn malformed(format: &'static str, what: impl Into<String>) -> Self {
        Error::Malformed {
            format,
            offset: 0,
            what: what.into(),
        }
    }

    /// A JSON error with the byte offset its line and column stand for.
    pub(crate) fn json(format: &'static str, bytes: &[u8], error: &serde_json::Error) -> Self {
        let before: usize = bytes
            .split_inclusive(|&b| b == b'\n')
            .take(error.line().saturating_sub(1))
            .map(<[u8]>::len)
            .sum();
        Error::Malformed {
            format,
            offset: (before + error.column().saturating_sub(1)) as u64,
            what: error.to_string(),
        }
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
