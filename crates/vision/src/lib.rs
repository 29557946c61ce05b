#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod error;
mod image;
pub mod resize;

pub use error::{Error, Result};
pub use image::Image;
pub use resize::{Filter, Reference, resize};
