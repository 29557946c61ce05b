#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[cfg(target_endian = "big")]
compile_error!(
    "firelight-tensor uses little-endian data in place: big-endian targets are not supported"
);

mod bytes;
mod cast;
pub mod compare;
pub mod convert;
pub mod ct2;
mod dtype;
mod error;
pub mod ggml;
pub mod gguf;
mod header;
mod layout;
pub mod quant;
pub mod safetensors;
mod shape;
mod source;
mod tensor;
mod weights;

pub use bytes::{AlignedBuf, Bytes};
pub use compare::{Comparison, Tolerance, compare};
pub use ct2::Ct2;
pub use dtype::DType;
pub use error::{Error, Result};
pub use ggml::Ggml;
pub use gguf::Gguf;
pub use header::{HeaderStep, MAX_RANK, MAX_TENSORS, TensorInfo, UnsupportedTensor};
pub use layout::Layout;
pub use safetensors::SafeTensors;
pub use shape::Shape;
#[cfg(all(feature = "mmap", not(target_arch = "wasm32")))]
pub use source::MmapSource;
pub use source::{ByteSource, MemSource};
#[cfg(not(target_arch = "wasm32"))]
pub use source::{FileSource, open_source};
pub use tensor::Tensor;
pub use weights::Weights;
