#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod decode;
mod error;
mod lanes;
mod level;
mod logmel;
mod mel;
mod resample;
mod silero;
mod stft;
mod threads;
mod vad;
mod whisper;

pub use decode::{Audio, DecodeOptions, Decoder, Downmix, decode, decode_with};
pub use error::{Error, Result};
pub use level::{Chunks, Level, chunks, trim_silence};
pub use logmel::{LogMel, LogMelConfig, LogMelStream, LogRule, Padding, Preset, Spectrum};
pub use mel::{MelConfig, MelFilters, MelScale};
pub use resample::{Resampler, resample};
pub use silero::SileroVad;
pub use stft::{Stft, Window};
pub use vad::{EnergyVad, Vad};
pub use whisper::{Whisper, WhisperStream};
