//! What people do with models, one file each: glue only.

pub mod bench;
pub mod classify;
pub mod embed;
pub mod ner;
pub mod perplexity;
#[cfg(not(target_arch = "wasm32"))]
pub mod quantize;
pub mod synthetic;
#[cfg(not(target_arch = "wasm32"))]
pub mod verify;
