//! Ctrl-C: the first one ends what is running (an answer, a download), a second one within two seconds the program.
//!
//! Where nothing listens for a gentle end (loading, measuring), the first one ends the program.

use crate::{INTERRUPTED, progress};
use anyhow::{Context, Result};
use firelight_runtime::CancelToken;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What is said when a run was interrupted.
pub(crate) const MESSAGE: &str = "interrupted";

const TWICE: Duration = Duration::from_secs(2);

static TOKEN: OnceLock<CancelToken> = OnceLock::new();
static LISTENERS: AtomicUsize = AtomicUsize::new(0);
static LAST: Mutex<Option<Instant>> = Mutex::new(None);

fn token() -> &'static CancelToken {
    TOKEN.get_or_init(CancelToken::new)
}

/// Takes Ctrl-C over. Call once, after anything else that takes signals over.
pub(crate) fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        let again = pressed_again();
        if again || LISTENERS.load(Ordering::SeqCst) == 0 {
            progress::leave_line();
            std::process::exit(i32::from(INTERRUPTED));
        }
        token().cancel();
    })
    .context("cannot listen for Ctrl-C")
}

/// Counts a Ctrl-C. True if it is the second within two seconds.
pub(crate) fn pressed_again() -> bool {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let again = last.is_some_and(|t| t.elapsed() < TWICE);
    *last = Some(Instant::now());
    again
}

/// While this lives, the first Ctrl-C cancels its token instead of ending the program.
pub(crate) struct Listening(&'static CancelToken);

/// Listens for Ctrl-C from now on.
pub(crate) fn listen() -> Listening {
    token().reset();
    LISTENERS.fetch_add(1, Ordering::SeqCst);
    Listening(token())
}

impl Deref for Listening {
    type Target = CancelToken;

    fn deref(&self) -> &CancelToken {
        self.0
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENERS.fetch_sub(1, Ordering::SeqCst);
    }
}
