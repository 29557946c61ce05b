//! What people do with models, one file each: glue only.

pub mod bench;
pub mod classify;
#[cfg(feature = "audio")]
pub mod commands;
pub mod embed;
#[cfg(feature = "audio")]
pub mod features;
#[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
mod feed;
#[cfg(feature = "audio")]
pub mod listen;
pub mod ner;
pub mod perplexity;
#[cfg(feature = "vision")]
pub mod pictures;
#[cfg(not(target_arch = "wasm32"))]
pub mod profile;
#[cfg(not(target_arch = "wasm32"))]
pub mod quantize;
#[cfg(feature = "audio")]
pub mod scribe;
#[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
pub mod search;
pub mod synthetic;
#[cfg(feature = "audio")]
pub mod transcribe;
#[cfg(not(target_arch = "wasm32"))]
pub mod verify;
