//! The crate's error type.

/// What can go wrong between audio bytes and model input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's arguments, or a front end's configuration, do not fit together.
    #[error("invalid input: {0}")]
    InvalidInput(String),
    /// A valid request that this version does not serve.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The bytes are not what the format says.
    #[error("malformed {format} near byte {offset}: {what}")]
    Malformed {
        /// The format being read: `audio`, `WAV`, …
        format: &'static str,
        /// How far the bytes had been read when the fault showed.
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
    /// The result could not be made into a tensor.
    #[error(transparent)]
    Tensor(#[from] firelight_tensor::Error),
}

impl Error {
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Error::InvalidInput(what.into())
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Error::Unsupported(what.into())
    }

    pub(crate) fn malformed(format: &'static str, offset: u64, what: impl Into<String>) -> Self {
        Error::Malformed {
            format,
            offset,
            what: what.into(),
        }
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
