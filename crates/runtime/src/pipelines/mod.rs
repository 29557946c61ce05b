//! What people do with models, one file each: glue only.

pub mod bench;
pub mod classify;
#[cfg(feature = "audio")]
pub mod commands;
pub mod embed;
#[cfg(feature = "audio")]
pub mod features;
#[cfg(feature = "audio")]
pub mod listen;
pub mod ner;
pub mod perplexity;
#[cfg(not(target_arch = "wasm32"))]
pub mod quantize;
#[cfg(feature = "audio")]
pub mod scribe;
pub mod synthetic;
#[cfg(feature = "audio")]
pub mod transcribe;
#[cfg(not(target_arch = "wasm32"))]
pub mod verify;
