#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod chat;
mod config;
mod decode;
mod error;
mod tokenizer;

pub use chat::{ChatInput, ChatTemplate, Content, DateTime, Message, Part, PartKind, RenderLimits};
pub use config::TokenizerConfig;
pub use decode::{StopMatcher, StreamDecoder};
pub use error::{Error, Result};
pub use tokenizer::{GgufVocab, Tokenizer};
