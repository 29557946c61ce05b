//! Device memory: raw storage, its accounting, and reuse.

use crate::cpu::Memory;
use crate::cpu::matmul::share::Copies;
use crate::memory::{Holder, Ledger};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};

/// Where the bytes are.
pub(crate) enum Storage {
    #[cfg(feature = "gpu")]
    Gpu(GpuMemory),
    Cpu(RwLock<Memory>),
}

/// A wgpu buffer.
#[cfg(feature = "gpu")]
pub(crate) struct GpuMemory {
    buffer: wgpu::Buffer,
    /// False for a buffer that belongs to the application.
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
    owned: bool,
}

#[cfg(feature = "gpu")]
impl GpuMemory {
    pub(crate) fn new(buffer: wgpu::Buffer) -> Self {
        let owned = true;
        GpuMemory { buffer, owned }
    }
}

/// In browsers a dropped handle frees nothing before the garbage collector comes by.
#[cfg(all(feature = "gpu", target_arch = "wasm32"))]
impl Drop for GpuMemory {
    fn drop(&mut self) {
        if self.owned {
            self.buffer.destroy();
        }
    }
}

/// One allocation on a device. Freed, or kept for reuse if it came from a [`Pool`], when the last user drops it.
pub(crate) struct Buffer {
    /// Always present until `drop` takes it.
    storage: Option<Storage>,
    /// Allocated bytes (at least what was asked for).
    pub(crate) bytes: u64,
    holder: Holder,
    ledger: Arc<Ledger>,
    pool: Option<Arc<Pool>>,
    /// False for a buffer that belongs to the application.
    owned: bool,
    /// What the CPU's helpers hold of it, if it is a weight.
    copies: Copies,
}

impl Buffer {
    pub(crate) fn new(
        storage: Storage,
        bytes: u64,
        holder: Holder,
        ledger: &Arc<Ledger>,
        pool: Option<Arc<Pool>>,
    ) -> Self {
        ledger.add(holder, bytes);
        Buffer {
            storage: Some(storage),
            bytes,
            holder,
            ledger: Arc::clone(ledger),
            pool,
            owned: true,
            copies: Copies::default(),
        }
    }

    /// An application's buffer: not accounted, not freed by us.
    #[cfg(feature = "gpu")]
    pub(crate) fn foreign(buffer: wgpu::Buffer, ledger: &Arc<Ledger>) -> Self {
        Buffer {
            bytes: buffer.size(),
            storage: Some(Storage::Gpu(GpuMemory {
                buffer,
                owned: false,
            })),
            holder: Holder::User,
            ledger: Arc::clone(ledger),
            pool: None,
            owned: false,
            copies: Copies::default(),
        }
    }

    #[cfg(feature = "gpu")]
    pub(crate) fn gpu(&self) -> Option<&wgpu::Buffer> {
        match &self.storage {
            Some(Storage::Gpu(memory)) => Some(&memory.buffer),
            _ => None,
        }
    }

    pub(crate) fn cpu(&self) -> Option<&RwLock<Memory>> {
        match &self.storage {
            Some(Storage::Cpu(bytes)) => Some(bytes),
            #[cfg(feature = "gpu")]
            _ => None,
            #[cfg(not(feature = "gpu"))]
            None => None,
        }
    }

    /// Host memory to be changed: copies of it are void.
    pub(crate) fn cpu_mut(&self) -> Option<RwLockWriteGuard<'_, Memory>> {
        let host = self.cpu()?.write().unwrap_or_else(PoisonError::into_inner);
        if self.holder == Holder::Weights {
            self.copies.forget();
        }
        Some(host)
    }

    /// Where copies of a weight are noted; other buffers have none.
    pub(crate) fn copies(&self) -> Option<&Copies> {
        (self.holder == Holder::Weights).then_some(&self.copies)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(storage) = self.storage.take() else {
            return;
        };
        if !self.owned {
            return;
        }
        self.ledger.sub(self.holder, self.bytes);
        if let Some(pool) = &self.pool {
            pool.put(storage, self.bytes);
        }
    }
}

/// Free buffers by size, ready for reuse.
pub(crate) struct Pool {
    ledger: Arc<Ledger>,
    free: Mutex<BTreeMap<u64, Vec<Storage>>>,
}

impl Pool {
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Self {
        Pool {
            ledger: Arc::clone(ledger),
            free: Mutex::new(BTreeMap::new()),
        }
    }

    /// The size a request is rounded up to, so that near sizes share buffers: an eighth of the power of two below.
    pub(crate) fn size_class(bytes: u64) -> u64 {
        let step = (bytes.max(1).next_power_of_two() / 8).max(256);
        bytes.max(1).next_multiple_of(step)
    }

    pub(crate) fn take(&self, bytes: u64) -> Option<Storage> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let storage = free.get_mut(&bytes)?.pop()?;
        self.ledger.sub(Holder::Pool, bytes);
        Some(storage)
    }

    fn put(&self, storage: Storage, bytes: u64) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.entry(bytes).or_default().push(storage);
        self.ledger.add(Holder::Pool, bytes);
    }

    /// Frees everything that nobody uses.
    pub(crate) fn trim(&self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        for (bytes, buffers) in std::mem::take(&mut *free) {
            self.ledger.sub(Holder::Pool, bytes * buffers.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_pooled_buffer_is_reused_and_trim_frees_it() {
        let ledger = Arc::new(Ledger::default());
        let pool = Arc::new(Pool::new(&ledger));
        let storage = Storage::Cpu(RwLock::new(
            crate::cpu::Arena::default()
                .zeroed(512, Holder::Activations)
                .expect("512 bytes"),
        ));
        let buffer = Buffer::new(
            storage,
            512,
            Holder::Activations,
            &ledger,
            Some(Arc::clone(&pool)),
        );
        assert_eq!(ledger.report().bytes(Holder::Activations), 512);
        drop(buffer);
        assert_eq!(ledger.report().bytes(Holder::Pool), 512);
        assert!(pool.take(256).is_none());
        let again = pool.take(512).expect("the buffer is there");
        drop(Buffer::new(
            again,
            512,
            Holder::Activations,
            &ledger,
            Some(Arc::clone(&pool)),
        ));
        pool.trim();
        assert_eq!(ledger.report().total_bytes(), 0);
    }

    #[test]
    fn size_classes_grow_and_waste_at_most_an_eighth_above_two_kib() {
        for bytes in [
            1u64,
            255,
            256,
            257,
            5000,
            1 << 20,
            (1 << 20) + 1,
            123_456_789,
        ] {
            let class = Pool::size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(256));
            assert!(
                bytes < 2048 || class - bytes <= bytes / 4,
                "{bytes} -> {class}"
            );
        }
    }
}
