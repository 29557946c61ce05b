//! A fork-join thread pool for kernels: short jobs, thousands a second, no spinning when idle.
//!
//! A job is a function of a task index. The caller takes part, workers join while tasks are left, and a worker that is
//! asleep when the last task is taken is not waited for. After a job a worker watches for the next one for a few tens of
//! microseconds (the gap between two kernels of a token), offers its core to others for a few hundred more (the last task of
//! another worker), and then sleeps on a condition variable: being woken takes longer than most kernels of a token.
//!
//! This module is one of the crate's listed `unsafe` modules: a job's function is borrowed, and workers see it through a
//! pointer whose validity is argued where it is used.
#![allow(unsafe_code)]
// Without threads the workers' half is not called.
#![cfg_attr(target_arch = "wasm32", allow(dead_code))]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many times a worker looks for new work before it lets others run.
const SPINS: u32 = 4_000;
/// How many times it lets them before it sleeps.
const YIELDS: u32 = 500;

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// A job that is open to workers.
#[derive(Clone, Copy)]
struct Job {
    /// The task function; its lifetime is erased, see [`ThreadPool::run`].
    task: *const Task<'static>,
    tasks: usize,
}

// SAFETY: the pointer is only followed between `enter` and `leave`, while `run` keeps the function alive.
unsafe impl Send for Job {}

#[derive(Default)]
struct Shared {
    /// The open job, if any; taking part is only possible under this lock.
    job: Mutex<Option<Job>>,
    wake: Condvar,
    /// Changes whenever a job opens, so that spinning workers need not take the lock.
    generation: AtomicUsize,
    /// Next task index to hand out.
    next: AtomicUsize,
    /// Workers inside the current job.
    inside: AtomicUsize,
    sleepers: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Job>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the open job, if there is one.
    fn enter(&self) -> Option<Job> {
        let job = self.lock();
        if job.is_some() {
            self.inside.fetch_add(1, Ordering::Relaxed);
        }
        *job
    }

    fn work(&self, task: &Task<'_>, tasks: usize) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= tasks {
                return;
            }
            task(index);
        }
    }

    fn worker(&self) {
        let mut seen = 0;
        loop {
            let mut spins = 0;
            while self.generation.load(Ordering::Acquire) == seen {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                spins += 1;
                if spins < SPINS {
                    std::hint::spin_loop();
                    continue;
                }
                if spins < SPINS + YIELDS {
                    std::thread::yield_now();
                    continue;
                }
                let mut guard = self.lock();
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                while self.generation.load(Ordering::SeqCst) == seen
                    && !self.stop.load(Ordering::SeqCst)
                {
                    guard = self
                        .wake
                        .wait(guard)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
            seen = self.generation.load(Ordering::Acquire);
            if let Some(job) = self.enter() {
                // SAFETY: `run` does not return, and so the function lives, until `inside` is 0 again; this worker
                // raised it under the lock while the job was open.
                let task = unsafe { &*job.task };
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    self.work(task, job.tasks);
                }));
                if result.is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
                self.inside.fetch_sub(1, Ordering::Release);
            }
        }
    }
}

/// Threads that share the tasks of one job at a time.
pub struct ThreadPool {
    shared: Arc<Shared>,
    threads: usize,
    /// Held while a job runs: jobs of several callers take turns.
    turn: Mutex<()>,
    #[cfg(not(target_arch = "wasm32"))]
    workers: Vec<std::thread::JoinHandle<()>>,
}

impl ThreadPool {
    /// A pool of `threads` threads in all, the caller included. On wasm32 there is only the caller.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = if cfg!(target_arch = "wasm32") {
            1
        } else {
            threads.clamp(1, 256)
        };
        #[cfg(not(target_arch = "wasm32"))]
        let workers: Vec<_> = (1..threads)
            .filter_map(|i| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("firelight-{i}"))
                    .spawn(move || shared.worker())
                    .ok()
            })
            .collect();
        #[cfg(not(target_arch = "wasm32"))]
        let threads = workers.len() + 1;
        ThreadPool {
            shared,
            threads,
            turn: Mutex::new(()),
            #[cfg(not(target_arch = "wasm32"))]
            workers,
        }
    }

    /// Threads that share a job, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `task(0)` … `task(tasks - 1)`, each once, on any thread, and returns when all are done.
    ///
    /// # Panics
    /// If a task panics.
    pub fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        if self.threads == 1 || tasks < 2 {
            (0..tasks).for_each(task);
            return;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        let borrowed: &Task<'_> = &task;
        // SAFETY: only the lifetime changes. The pointer is reachable through `shared.job` alone, which `Close` empties,
        // waiting for every worker inside, before this function returns or unwinds.
        let erased: *const Task<'static> =
            unsafe { std::mem::transmute::<&Task<'_>, &'static Task<'static>>(borrowed) };
        {
            let mut job = shared.lock();
            shared.next.store(0, Ordering::Relaxed);
            *job = Some(Job {
                task: erased,
                tasks,
            });
            shared.generation.fetch_add(1, Ordering::SeqCst);
            if shared.sleepers.load(Ordering::SeqCst) > 0 {
                shared.wake.notify_all();
            }
        }
        let close = Close(shared);
        shared.work(borrowed, tasks);
        drop(close);
        assert!(
            !shared.panicked.swap(false, Ordering::Relaxed),
            "a task of this job panicked"
        );
    }

    /// Splits `out` into chunks of `chunk` elements (the last may be shorter) and calls `f(index, chunk)` for each.
    pub fn for_chunks<T: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let chunk = chunk.max(1);
        let (len, tasks) = (out.len(), out.len().div_ceil(chunk));
        let shared = SharedOut::new(out);
        self.run(tasks, |i| {
            let start = i * chunk;
            // SAFETY: task `i` alone touches `start..start + chunk`, and `i < tasks` keeps it inside.
            f(i, unsafe { shared.range(start, chunk.min(len - start)) });
        });
    }
}

/// Closes the job and waits for the workers inside, also when the caller's own task unwinds.
struct Close<'a>(&'a Shared);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
        let mut spins = 0u32;
        while self.0.inside.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins < 100_000 {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        {
            let _guard = self.shared.lock();
            self.shared.stop.store(true, Ordering::SeqCst);
            self.shared.wake.notify_all();
        }
        #[cfg(not(target_arch = "wasm32"))]
        for worker in self.workers.drain(..) {
            // A worker only ends by returning; a panic inside a task was already reported by `run`.
            let _ = worker.join();
        }
    }
}

/// A mutable slice that several tasks write to at disjoint places.
#[derive(Clone, Copy)]
pub struct SharedOut<'a, T> {
    start: *mut T,
    len: usize,
    borrow: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: the only way to an element is `range`, whose contract makes the accesses of different threads disjoint.
unsafe impl<T: Send> Send for SharedOut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedOut<'_, T> {}

impl<'a, T> SharedOut<'a, T> {
    /// Borrows `out` for as long as this lives.
    pub fn new(out: &'a mut [T]) -> Self {
        SharedOut {
            start: out.as_mut_ptr(),
            len: out.len(),
            borrow: std::marker::PhantomData,
        }
    }

    /// Elements in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the elements from `start` on are; who uses them has to keep to what is theirs.
    ///
    /// # Panics
    /// If `len` elements from there on leave the slice.
    #[inline(always)]
    pub(crate) fn pointer(&self, start: usize, len: usize) -> *mut T {
        assert!(
            start <= self.len && len <= self.len - start,
            "range leaves the shared slice"
        );
        self.start.wrapping_add(start)
    }

    /// The elements `start..start + len`.
    ///
    /// # Safety
    /// While the returned slice lives, no other call may return an overlapping one.
    ///
    /// # Panics
    /// If the range leaves the slice.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn range(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(
            start <= self.len && len <= self.len - start,
            "range leaves the shared slice"
        );
        // SAFETY: inside the borrowed slice by the assertion, disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_over_many_jobs() {
        for threads in [1, 2, 3, 8] {
            let pool = ThreadPool::new(threads);
            for tasks in [0usize, 1, 2, 7, 100] {
                for _ in 0..50 {
                    let counts: Vec<AtomicUsize> =
                        (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(tasks, |i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn sleeping_workers_wake_and_chunks_cover_the_slice() {
        let pool = ThreadPool::new(3);
        for round in 0..5u32 {
            std::thread::sleep(std::time::Duration::from_millis(3));
            let mut out = vec![0u32; 1001];
            pool.for_chunks(&mut out, 10, |i, chunk| {
                chunk
                    .iter_mut()
                    .enumerate()
                    .for_each(|(j, v)| *v = (i * 10 + j) as u32 + round);
            });
            assert!(out.iter().enumerate().all(|(i, &v)| v == i as u32 + round));
        }
    }

    #[test]
    fn a_panicking_task_is_reported_and_the_pool_goes_on() {
        let pool = ThreadPool::new(2);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(16, |i| assert!(i != 11, "task 11"));
        }));
        assert!(result.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(16, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 120);
    }

    #[test]
    fn several_callers_take_turns() {
        let pool = ThreadPool::new(2);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..100 {
                        pool.run(8, |i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.load(Ordering::Relaxed), 4 * 100 * 28);
    }
}
