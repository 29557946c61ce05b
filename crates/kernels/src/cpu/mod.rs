//! The CPU device: threads, SIMD level, and running a recorded call on host memory.

pub(crate) mod attend;
pub mod matmul;
mod memory;
mod pool;
pub mod vecmath;

pub use matmul::Isa;
use matmul::share::Shares;
pub use matmul::share::{Helper, Helpers, Sharing};
pub(crate) use memory::{Arena, Memory};
pub use pool::{SharedOut, ThreadPool};

use crate::kernel::{Access, Call, CpuCall, Kernel, View};
use crate::recorder::Binding;
use crate::tune::Tuning;
use crate::{Error, Result};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLockReadGuard, RwLockWriteGuard};

/// How the CPU device works.
#[derive(Clone, Debug, Default)]
pub struct CpuOptions {
    /// Threads in all; `None`: one per core.
    pub threads: Option<usize>,
    /// SIMD level; `None`: the best this processor has.
    pub isa: Option<Isa>,
    /// Keep activations in f32, instead of rounding them to about 15 bits (two 8-bit numbers) for block-quantised weights.
    pub exact: bool,
    /// Round activations to 8 bits, of whole prompts too: faster, and near ties may fall differently.
    pub fast: bool,
    /// Run every kernel's f64 reference instead of its SIMD version: slow, for checking.
    pub reference: bool,
}

/// What CPU kernels work with.
pub struct Cpu {
    /// Threads that share a kernel's tasks.
    pub pool: ThreadPool,
    /// The SIMD level kernels dispatch on.
    pub isa: Isa,
    /// Activations stay in f32.
    pub exact: bool,
    /// Activations are rounded to 8 bits.
    pub fast: bool,
    pub(crate) reference: bool,
    pub(crate) arena: Arena,
    /// Reused between calls.
    scratch: Mutex<Box<matmul::Scratch>>,
    shares: OnceLock<Arc<Shares>>,
}

impl Cpu {
    /// Starts the threads.
    ///
    /// # Errors
    /// `Unsupported` if the asked SIMD level is not there.
    pub fn new(options: &CpuOptions) -> Result<Self> {
        let isa = options.isa.unwrap_or_else(Isa::detect);
        if !Isa::available().contains(&isa) {
            let known: Vec<_> = Isa::available().iter().map(|i| i.name()).collect();
            return Err(Error::Unsupported(format!(
                "SIMD level {} on this processor; available: {}",
                isa.name(),
                known.join(", ")
            )));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Cpu {
            pool: ThreadPool::new(options.threads.unwrap_or(cores)),
            isa,
            exact: options.exact,
            fast: options.fast,
            reference: options.reference,
            arena: Arena::default(),
            scratch: Mutex::default(),
            shares: OnceLock::new(),
        })
    }

    /// Lets helpers compute their rows of large products from now on.
    ///
    /// # Errors
    /// `InvalidInput` if there are helpers already, or the device does not run on the best SIMD level: helpers do, and results would
    /// differ.
    pub fn share_with(&self, helpers: Box<dyn Helpers>) -> Result<()> {
        if self.isa != Isa::detect() || self.reference {
            return Err(Error::invalid("helpers of a device on another SIMD level"));
        }
        let shares = Arc::new(Shares::new(helpers));
        let set = self.shares.set(shares);
        set.map_err(|_| Error::invalid("a device that has helpers already"))
    }

    /// What helpers do.
    pub fn sharing(&self) -> Sharing {
        self.shares.get().map(|s| s.sharing()).unwrap_or_default()
    }

    pub(crate) fn shares(&self) -> Option<&Arc<Shares>> {
        self.shares.get().filter(|s| s.alive())
    }

    /// Runs `f` with the shared scratch memory.
    pub fn with_scratch<R>(&self, f: impl FnOnce(&mut matmul::Scratch) -> R) -> R {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut scratch)
    }
}

/// Runs one recorded call.
pub(crate) fn execute(
    cpu: &Cpu,
    tuning: &Tuning,
    kernel: &dyn Kernel,
    views: &[View],
    params: &[u32],
    bindings: &[Binding],
) -> Result<()> {
    let mut read_guards: Vec<(*const (), RwLockReadGuard<'_, Memory>)> = Vec::new();
    let mut write_guards: Vec<RwLockWriteGuard<'_, Memory>> = Vec::new();
    let not_here = || {
        Error::invalid(format!(
            "{}: an operand lives on another device",
            kernel.name()
        ))
    };
    for binding in bindings {
        let lock = binding.buffer.cpu().ok_or_else(not_here)?;
        let id = Arc::as_ptr(&binding.buffer).cast::<()>();
        if binding.access != Access::Read {
            write_guards.push(binding.buffer.cpu_mut().ok_or_else(not_here)?);
        } else if !read_guards.iter().any(|(p, _)| *p == id) {
            // One guard per buffer: the lock is not recursive.
            read_guards.push((id, lock.read().unwrap_or_else(PoisonError::into_inner)));
        }
    }
    let mut reads: Vec<&[u8]> = Vec::with_capacity(read_guards.len());
    for binding in bindings.iter().filter(|b| b.access == Access::Read) {
        let id = Arc::as_ptr(&binding.buffer).cast::<()>();
        let bytes = read_guards
            .iter()
            .find(|(p, _)| *p == id)
            .map(|(_, g)| &***g);
        let range = binding.offset as usize..(binding.offset + binding.size) as usize;
        reads.push(bytes.and_then(|b| b.get(range)).ok_or_else(not_here)?);
    }
    let mut writes: Vec<&mut [u8]> = Vec::with_capacity(write_guards.len());
    let written = bindings.iter().filter(|b| b.access != Access::Read);
    for (guard, binding) in write_guards.iter_mut().zip(written) {
        let range = binding.offset as usize..(binding.offset + binding.size) as usize;
        writes.push(guard.get_mut(range).ok_or_else(not_here)?);
    }
    let call = Call {
        operands: views,
        params,
    };
    match kernel.cpu() {
        Some(run) if !cpu.reference => {
            run(&mut CpuCall {
                cpu,
                call,
                tuning,
                reads: &reads,
                writes: &mut writes,
                bindings,
            });
            Ok(())
        }
        _ => crate::reference::run(kernel, &call, &reads, &mut writes),
    }
}
