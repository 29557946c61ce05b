//! Parts of a piece of work, shared among threads.

use std::sync::{Mutex, PoisonError};

/// Calls `work` for each part, in order, on up to `threads` threads: whoever is free takes the next one.
pub(crate) fn share<P: Send>(threads: usize, parts: Vec<P>, work: impl Fn(P) + Sync) {
    if threads.min(parts.len()) < 2 {
        return parts.into_iter().for_each(work);
    }
    let parts = Mutex::new(parts.into_iter());
    let run = || {
        loop {
            let part = lock(&parts).next();
            match part {
                Some(part) => work(part),
                None => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Where no thread is to be had, the others do its part.
            let _ = std::thread::Builder::new().spawn_scoped(scope, run);
        }
        run();
    });
}

/// The value, whoever panicked with it: the scope hands their panic on.
pub(crate) fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
