#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod boxes;
mod decode;
#[cfg(feature = "draw")]
pub mod draw;
mod encode;
mod error;
mod frames;
mod image;
mod normalize;
mod patchify;
mod pixels;
mod processor;
mod resize;
mod samples;
mod threads;

pub use boxes::{BoxFormat, Rect, nms};
pub use decode::{Alpha, DecodeOptions, Format, decode, decode_with, dimensions, dimensions_with};
pub use error::{Error, Result};
pub use frames::{Frame, frames};
pub use image::Image;
pub use normalize::Normalize;
pub use patchify::{PatchLayout, PatchOrder, Patches, patchify};
pub use processor::{
    Layout, Overrides, Plan, Processed, ProcessedVideo, Processor, Size, VideoProcessor,
};
pub use resize::{Filter, Reference, resize};
