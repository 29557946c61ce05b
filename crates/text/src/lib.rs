#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod chat;
mod config;
mod decode;
mod error;
mod grammar;
mod tokenizer;

pub use chat::{
    ChatInput, ChatTemplate, Content, DateTime, Message, Part, PartKind, RenderLimits, ToolCall,
    tool_calls,
};
pub use config::TokenizerConfig;
pub use decode::{StopMatcher, StreamDecoder};
pub use error::{Error, Result};
pub use grammar::{Grammar, Matcher, Vocabulary};
pub use tokenizer::{GgufVocab, Tokenizer};
