//! What Firelight's own tests share: reading goldens, seeded inputs, and skips that are counted.
//!
//! ```
//! use firelight_testing::{seeded, gpu::GpuTests};
//!
//! let x = seeded::normal(7, 2 * 33);          // [2, 33], mean 0, standard deviation 1
//! assert_eq!(x, seeded::normal(7, 2 * 33));   // the same seed gives the same numbers
//! assert_ne!(x, seeded::normal(8, 2 * 33));
//! assert_eq!("require".parse(), Ok(GpuTests::Require));
//! ```
//!
//! This crate is dev-only and depends on nothing else in the workspace, so that a fault in the code under test cannot also sit
//! in the code that checks it. For the same reason goldens are read by the `safetensors` crate and not by `firelight-tensor`.
#![forbid(unsafe_code)]

pub mod golden;
pub mod gpu;
pub mod seeded;

pub use golden::{Golden, GoldenError, GoldenTensor, Values};
pub use gpu::{GpuTests, gpu_or_skip};
