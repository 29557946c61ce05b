#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod decode;
mod error;
mod mel;
mod resample;
mod stft;
mod whisper;

pub use decode::{Audio, DecodeOptions, Decoder, decode, decode_with};
pub use error::{Error, Result};
pub use mel::MelFilters;
pub use resample::{Resampler, resample};
pub use stft::Stft;
pub use whisper::{Whisper, WhisperStream};
