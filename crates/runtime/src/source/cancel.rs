//! A flag that asks long work to stop.
use super::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lets the rest of the program run for a moment; see [`CancelToken::with_pause`].
pub type Pause = fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// Asks a running download, load or generation to stop at its next safe point.
///
/// Clones share one flag. Cancelling a download keeps what was fetched, so the next call resumes.
#[derive(Clone, Debug, Default)]
pub struct CancelToken {
    flag: Arc<AtomicBool>,
    pause: Option<Pause>,
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token for a program of one thread, where a stop can only be asked for while this work pauses: between two steps
    /// `pause` is awaited. In a browser it lets the worker's messages in.
    pub fn with_pause(pause: Pause) -> Self {
        let pause = Some(pause);
        CancelToken {
            pause,
            ..Self::default()
        }
    }

    /// Pauses if that was asked for, then tells whether a stop was.
    pub async fn heard(&self) -> bool {
        if let Some(pause) = self.pause {
            pause().await;
        }
        self.is_cancelled()
    }

    /// Asks for a stop. Safe to call from any thread, any number of times.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::SeqCst);
    }

    /// Takes the request back, so that the same token serves the next run.
    pub fn reset(&self) {
        self.flag.store(false, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }

    /// [`Error::Cancelled`] once a stop was asked for.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }
}
