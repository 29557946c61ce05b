//! The engine as the browser's worker sees it (`examples/web/api/worker.js`): JSON strings and JavaScript functions at the border,
//! `firelight-runtime` behind it, with the features that the build asks for. Plain `wasm32-unknown-unknown`, one thread an instance, every wait a promise.
//!
//! | module | what it is |
//! |---|---|
//! | `engine` | `WebEngine`: device, model, conversation |
//! | `chat` | an answer: request and events |
//! | `embed` | models that give vectors (feature `embed`) |
//! | `files` | files whose bytes JavaScript has, or will have |
//! | `media` | pictures of a conversation |
//! | `preprocess` | pictures as tensors, without a model |
//! | `pause` | giving the worker's messages a turn |
//! | `probe` | how fast this device is, without a model |
//! | `reports` | what is told about device and memory |
//! | `sound` | speech to text (feature `audio`) |
//! | `error` | errors as objects with a code and a remedy |
//! | `threads` | helpers of the processor's rung, and what a helper does |
//! | `hash` | sha256, piece by piece |
#![cfg(target_arch = "wasm32")]

mod chat;
#[cfg(feature = "embed")]
mod embed;
mod engine;
mod error;
mod files;
mod hash;
mod media;
mod pause;
mod preprocess;
mod probe;
mod reports;
#[cfg(feature = "audio")]
mod sound;
mod threads;
