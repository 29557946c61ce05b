//! Where model files come from, and how they get here.
//!
//! [`Resolver::resolve`] turns what a user typed ([`ModelRef`]: a catalogue name, a path, a hub reference) into files on this
//! machine ([`LocalModel`]), fetching what is missing:
//! ```text
//! name ──► catalogue entry ──► own cache ──► hub file (hub cache) ──► package of the user's own mirror
//! path ──► the file or folder                 └─ in the order of Options::sources, next one when one cannot ─┘
//! hf:… ──► hub cache ──► hub
//! ```
//! What holds for every source: the disk is checked before the first byte; partial files survive an interruption and are
//! resumed; content with a known sha256 is used only after that was computed; two processes do not write the same file;
//! progress never goes back; a [`CancelToken`] stops within a fraction of a second. Nothing is printed.
//!
//! | part | what it does |
//! |---|---|
//! | `model_ref`, [`catalogue`](crate::catalogue) | what is meant |
//! | `resolver`, `store` | the order of sources; the own cache with list, verify, remove |
//! | `hub`, `fetch`, `ranges`, `http` | hub layout; parallel resumable download |
//! | `package` | pip and npm archives, unpacked without running them |
//! | `progress`, `report`, `disk`, `options`, `cancel`, `error` | what they share |
//!
//! On wasm the parts that need files, processes and threads are absent.
mod cancel;
mod error;
mod model_ref;
mod progress;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod disk;
#[cfg(not(target_arch = "wasm32"))]
mod fetch;
#[cfg(not(target_arch = "wasm32"))]
mod http;
#[cfg(not(target_arch = "wasm32"))]
mod hub;
#[cfg(not(target_arch = "wasm32"))]
mod options;
#[cfg(not(target_arch = "wasm32"))]
mod package;
#[cfg(not(target_arch = "wasm32"))]
mod ranges;
#[cfg(not(target_arch = "wasm32"))]
mod report;
#[cfg(not(target_arch = "wasm32"))]
mod resolver;
#[cfg(not(target_arch = "wasm32"))]
mod store;

pub use cancel::{CancelToken, Pause};
pub use error::{Error, Result};
pub use model_ref::{HubRef, ModelRef};
pub use progress::{Meter, Phase, ProgressEvent};

#[cfg(not(target_arch = "wasm32"))]
pub use options::{FreeSpace, HubOptions, Options, SourceKind};
#[cfg(not(target_arch = "wasm32"))]
pub use resolver::{LocalModel, Resolver};
#[cfg(not(target_arch = "wasm32"))]
pub use store::{CatalogueStatus, FileCheck, FileState};
