//! Host tensors, dtypes, quantised blocks and weight files.
#![deny(unsafe_code)]
mod dtype;
mod error;
pub use dtype::DType;
pub use error::{Error, Result};
