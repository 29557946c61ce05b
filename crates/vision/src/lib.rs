#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod decode;
mod error;
mod image;
mod normalize;
mod patchify;
mod pixels;
mod processor;
mod resize;

pub use decode::{Alpha, DecodeOptions, Format, decode, decode_with};
pub use error::{Error, Result};
pub use image::Image;
pub use normalize::Normalize;
pub use patchify::{PatchLayout, PatchOrder, Patches, patchify};
pub use processor::{Layout, Overrides, Plan, Processed, Processor, Size};
pub use resize::{Filter, Reference, resize};
