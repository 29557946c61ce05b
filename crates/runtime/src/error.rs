//! The crate's error type.

/// What can go wrong between a model's files and its answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's arguments do not fit together.
    #[error("invalid input: {0}")]
    InvalidInput(String),
    /// A valid request that this version does not serve.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// A model's files are not what they should be.
    #[error("{file}: {what}")]
    Malformed {
        /// The file or tensor.
        file: String,
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
    /// The model answered with NaN: damaged weights, or a device that computes wrong.
    #[error(
        "the model gave no valid logits at position {position}: its weights are damaged or the device computes wrong; \
         check the file with `firelight models verify`, the device with `firelight doctor`"
    )]
    BadLogits {
        /// The token position.
        position: usize,
    },
    /// An answer ended before its grammar was fulfilled.
    #[error("the answer does not fulfil its grammar: {why}, after {tokens} tokens")]
    Unfinished {
        /// What ended it, and what helps.
        why: String,
        /// Tokens generated.
        tokens: usize,
        /// The text so far.
        text: String,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// An error of the device or a kernel.
    #[error(transparent)]
    Kernels(#[from] firelight_kernels::Error),
    /// An error of a weight file.
    #[error(transparent)]
    Tensor(#[from] firelight_tensor::Error),
    /// An error of the tokenizer or chat template.
    #[error(transparent)]
    Text(#[from] firelight_text::Error),
    /// An error of a picture or its processor.
    #[cfg(feature = "vision")]
    #[error(transparent)]
    Vision(#[from] firelight_vision::Error),
    /// An error of samples or audio files.
    #[cfg(feature = "audio")]
    #[error(transparent)]
    Audio(#[from] firelight_audio::Error),
    /// An error of finding or fetching a model.
    #[error(transparent)]
    Source(#[from] crate::source::Error),
}

impl Error {
    /// An [`Error::InvalidInput`] with this message.
    pub fn invalid(what: impl Into<String>) -> Self {
        Error::InvalidInput(what.into())
    }

    /// An [`Error::Malformed`].
    pub fn malformed(file: impl Into<String>, what: impl Into<String>) -> Self {
        Error::Malformed {
            file: file.into(),
            what: what.into(),
        }
    }

    /// True when a lower rung of the ladder could go on: the device was lost, ran out of memory or refused.
    pub fn is_device_fault(&self) -> bool {
        matches!(self, Error::Kernels(e) if e.is_device_fault())
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
