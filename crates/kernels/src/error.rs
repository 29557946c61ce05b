//! The crate's error type.

/// What a device did instead of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceFault {
    /// No adapter of the asked kind is there.
    NoAdapter,
    /// The device was lost (driver reset, unplugged, destroyed).
    Lost,
    /// The device had no memory for an allocation.
    OutOfMemory,
    /// The driver or the shader compiler refused a request.
    Refused,
}

impl std::fmt::Display for DeviceFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DeviceFault::NoAdapter => "no adapter",
            DeviceFault::Lost => "device lost",
            DeviceFault::OutOfMemory => "out of device memory",
            DeviceFault::Refused => "refused by the driver",
        })
    }
}

/// What can go wrong on a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's arrays or arguments do not fit together.
    #[error("invalid input: {0}")]
    InvalidInput(String),
    /// A valid request that this version does not serve.
    #[error("unsupported: {0}")]
    Unsupported(String),
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
    /// The device failed.
    #[error("{fault}: {message}")]
    Device {
        /// The kind of failure.
        fault: DeviceFault,
        /// What was asked, and what the driver said.
        message: String,
    },
    /// An error of the tensor crate.
    #[error(transparent)]
    Tensor(#[from] firelight_tensor::Error),
}

impl Error {
    /// An [`Error::InvalidInput`] with this message.
    pub fn invalid(what: impl Into<String>) -> Self {
        Error::InvalidInput(what.into())
    }

    /// An [`Error::Device`].
    pub fn device(fault: DeviceFault, message: impl Into<String>) -> Self {
        Error::Device {
            fault,
            message: message.into(),
        }
    }

    /// True when another device could do what this one could not: lost, out of memory, refused.
    pub fn is_device_fault(&self) -> bool {
        matches!(self, Error::Device { .. })
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
