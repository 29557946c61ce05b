//! Elapsed time, also where `std::time::Instant` is not there (wasm32 without a clock: always zero).

use std::time::Duration;

/// A moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment(#[cfg(not(target_arch = "wasm32"))] std::time::Instant);

/// The present.
pub fn now() -> Moment {
    Moment(
        #[cfg(not(target_arch = "wasm32"))]
        std::time::Instant::now(),
    )
}

impl Moment {
    /// Time since.
    pub fn elapsed(self) -> Duration {
        #[cfg(not(target_arch = "wasm32"))]
        return self.0.elapsed();
        #[cfg(target_arch = "wasm32")]
        Duration::ZERO
    }
}
