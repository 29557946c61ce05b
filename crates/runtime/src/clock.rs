//! Elapsed time, also in browsers, where the standard library has no clock.

use std::time::Duration;
#[cfg(not(target_arch = "wasm32"))]
use std::time::Instant;
#[cfg(target_arch = "wasm32")]
use web_time::Instant;

/// A moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment(Instant);

/// The present.
pub fn now() -> Moment {
    Moment(Instant::now())
}

impl Moment {
    /// Time since.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
