//! Work shared among threads where there are any.

/// Work below this many bytes of input is not worth a thread.
#[cfg(all(feature = "threads", not(target_arch = "wasm32")))]
const WORTH: usize = 1 << 18;

/// The most threads: decoding before and after does not get faster, and other work wants its share.
#[cfg(all(feature = "threads", not(target_arch = "wasm32")))]
const MOST: usize = 8;

/// Calls `work(first row, rows)` for bands of whole rows that make up `out`; `bytes` says how much is read for it.
pub(crate) fn bands<T: Send>(
    out: &mut [T],
    row: usize,
    bytes: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    if out.is_empty() || row == 0 {
        return;
    }
    #[cfg(all(feature = "threads", not(target_arch = "wasm32")))]
    {
        let threads = available().min(MOST);
        let rows = out.len() / row;
        let bands = threads.min(bytes / WORTH).min(rows);
        if bands > 1 {
            let band = rows.div_ceil(bands);
            std::thread::scope(|scope| {
                let mut parts = out.chunks_mut(band * row).enumerate();
                let own = parts.next();
                for (i, part) in parts {
                    let work = &work;
                    scope.spawn(move || work(i * band, part));
                }
                if let Some((_, part)) = own {
                    work(0, part);
                }
            });
            return;
        }
    }
    let _ = bytes;
    work(0, out);
}

#[cfg(all(feature = "threads", not(target_arch = "wasm32")))]
fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Whether [`both`] does two things at a time.
pub(crate) fn several() -> bool {
    #[cfg(all(feature = "threads", not(target_arch = "wasm32")))]
    return available() > 1;
    #[cfg(not(all(feature = "threads", not(target_arch = "wasm32"))))]
    false
}

/// Does two things, at the same time where there are threads.
pub(crate) fn both<A: Send, B>(
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B,
) -> (A, B) {
    #[cfg(all(feature = "threads", not(target_arch = "wasm32")))]
    return std::thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        match first.join() {
            Ok(first) => (first, second),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    #[cfg(not(all(feature = "threads", not(target_arch = "wasm32"))))]
    (first(), second())
}
