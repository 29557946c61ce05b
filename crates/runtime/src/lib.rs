#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod adapter;
mod batch;
pub mod cache;
pub mod catalogue;
pub mod checkpoint;
pub mod clock;
mod dtypes;
pub mod encoder;
mod engine;
mod error;
mod fill;
mod layers;
pub mod loader;
pub mod media;
pub mod models;
mod narrow;
pub mod norm;
pub mod pipelines;
pub mod rope;
pub mod sentence;
mod session;
pub mod source;
mod speculate;
#[cfg(feature = "audio")]
pub mod speech;
mod state;
pub mod stream;
mod text_side;
#[cfg(not(target_arch = "wasm32"))]
pub mod tuning;

pub use adapter::{Adapter, AdapterUse};
pub use batch::{BatchAnswer, MAX_SEQUENCES, generate_batch};
pub use dtypes::Dtypes;
pub use encoder::LoadedEncoder;
pub use engine::{Attempt, DeviceChoice, Engine, EngineOptions, LoadedModel, Report};
pub use error::{Error, Result};
pub use firelight_kernels::sample::SampleSettings;
pub use firelight_kernels::{Device, Rung};
pub use firelight_text::{Grammar, Message, ToolCall};
pub use media::{MediaKind, Medium};
pub use session::{Answer, Event, Finish, GenerateOptions, Session};
pub use source::{CancelToken, Pause};
pub use speculate::{DRAFT, Draft};
#[cfg(feature = "audio")]
pub use speech::LoadedSpeech;
pub use state::{CHUNK, State};
pub use text_side::{Rendering, TextSide};
