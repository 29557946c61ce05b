//! Work of the host, done on threads of its own ahead of a device.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

/// The most threads: the device's own work wants its share.
const MOST: usize = 4;

/// Calls `make` for 0 … `count`, about `ahead` results ahead of who receives them, which come with their numbers and in any order.
/// Ends when the receiver is dropped.
pub(super) fn start<T: Send + 'static>(
    count: usize,
    ahead: usize,
    make: impl Fn(usize) -> T + Send + Sync + 'static,
) -> Receiver<(usize, T)> {
    let (sender, receiver) = sync_channel(ahead);
    let (next, make) = (Arc::new(AtomicUsize::new(0)), Arc::new(make));
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    for _ in 0..cores.min(MOST).min(count) {
        let (sender, next, make) = (sender.clone(), Arc::clone(&next), Arc::clone(&make));
        std::thread::spawn(move || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count || sender.send((i, make(i))).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

#[cfg(test)]
mod tests {
    use super::start;

    #[test]
    fn every_number_comes_once() {
        let mut all: Vec<usize> = start(100, 3, |i| i * i)
            .iter()
            .map(|(i, v)| {
                assert_eq!(v, i * i);
                i
            })
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert_eq!(start(0, 3, |i| i).iter().count(), 0);
        // Nobody waits for a receiver that is gone.
        drop(start(1000, 1, |i| i));
    }
}
