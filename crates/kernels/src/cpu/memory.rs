//! Memory of the CPU device. On Linux weights and caches lie in large mappings for which huge pages are asked: a token reads all of
//! them once, and with pages of 4 KiB the processor would spend a good part of that time on finding out where each one lies.
//!
//! One of the crate's listed `unsafe` modules: a mapping is handed out in pieces that do not overlap.
#![allow(unsafe_code)]

use crate::memory::Holder;
use crate::{DeviceFault, Error, Result};
use firelight_tensor::AlignedBuf;
use std::ops::{Deref, DerefMut};

/// Bytes that are writable and begin at a border of 64.
pub(crate) enum Memory {
    /// An allocation of its own.
    Own(AlignedBuf),
    /// A part of a mapping.
    #[cfg(target_os = "linux")]
    Piece(mapped::Piece),
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Memory::Own(bytes) => bytes,
            #[cfg(target_os = "linux")]
            Memory::Piece(piece) => piece,
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Memory::Own(bytes) => bytes,
            #[cfg(target_os = "linux")]
            Memory::Piece(piece) => piece,
        }
    }
}

/// Where a device's memory comes from.
#[derive(Default)]
pub(crate) struct Arena {
    #[cfg(target_os = "linux")]
    weights: std::sync::Mutex<Option<mapped::Slab>>,
    #[cfg(target_os = "linux")]
    caches: std::sync::Mutex<Option<mapped::Slab>>,
}

impl Arena {
    /// `size` zeroes.
    ///
    /// # Errors
    /// `Device` if memory runs out.
    pub(crate) fn zeroed(&self, size: usize, holder: Holder) -> Result<Memory> {
        #[cfg(target_os = "linux")]
        if let Some(piece) = self.piece(size, holder) {
            return Ok(Memory::Piece(piece));
        }
        let _ = holder;
        let own = AlignedBuf::zeroed(size);
        own.map(Memory::Own)
            .map_err(|e| Error::device(DeviceFault::OutOfMemory, e.to_string()))
    }

    /// `None`: better an allocation of its own.
    #[cfg(target_os = "linux")]
    fn piece(&self, size: usize, holder: Holder) -> Option<mapped::Piece> {
        use std::sync::PoisonError;
        // What is freed together lies together: a mapping goes when its last piece does.
        let (slab, least) = match holder {
            Holder::Weights => (&self.weights, 64 << 20),
            Holder::Cache => (&self.caches, 16 << 20),
            _ if size >= mapped::HUGE => return Some(mapped::Slab::begin(size, size)?.1),
            _ => return None,
        };
        if size < mapped::SMALL {
            return None;
        }
        let mut slab = slab.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(piece) = slab.as_mut().and_then(|slab| slab.cut(size)) {
            return Some(piece);
        }
        let (begun, piece) = mapped::Slab::begin(size.max(least), size)?;
        *slab = Some(begun);
        Some(piece)
    }
}

#[cfg(target_os = "linux")]
mod mapped {
    use memmap2::{Advice, MmapMut};
    use std::ops::{Deref, DerefMut};
    use std::ptr::NonNull;
    use std::sync::{Arc, Weak};

    /// A huge page, as x86-64 and most of AArch64 have them.
    pub(super) const HUGE: usize = 2 << 20;
    /// Less than this is not worth a piece.
    pub(super) const SMALL: usize = 4 << 10;

    /// A mapping, of which `used` bytes are handed out.
    pub(crate) struct Slab {
        /// Lives as long as a piece of it. Only its pieces are read or written.
        map: Weak<MmapMut>,
        first: NonNull<u8>,
        len: usize,
        used: usize,
    }

    // SAFETY: `first` points into `map`, which may be used from any thread.
    unsafe impl Send for Slab {}

    impl Slab {
        /// A mapping of at least `len` zeroes from a border of huge pages on, and its first piece; memory is taken where it is first
        /// touched.
        pub(super) fn begin(len: usize, size: usize) -> Option<(Slab, Piece)> {
            let mut map = MmapMut::map_anon(len.checked_add(HUGE)?).ok()?;
            // A wish: where there are none, small pages do.
            let _ = map.advise(Advice::HugePage);
            let skip = map.as_ptr().align_offset(HUGE).min(HUGE);
            let first = NonNull::new(map[skip..].as_mut_ptr())?;
            let map = Arc::new(map);
            let mut slab = Slab {
                map: Arc::downgrade(&map),
                first,
                len,
                used: 0,
            };
            let piece = slab.cut(size)?;
            Some((slab, piece))
        }

        /// The next `size` bytes, if there is room for them and the mapping is still there.
        pub(super) fn cut(&mut self, size: usize) -> Option<Piece> {
            let map = self.map.upgrade()?;
            if size > self.len - self.used {
                return None;
            }
            // SAFETY: `used + size` is at most `len`, and from `first` on the mapping has so many bytes.
            let at = unsafe { self.first.add(self.used) };
            self.used = (self.used + size).next_multiple_of(64).min(self.len);
            Some(Piece {
                at,
                len: size,
                _map: map,
            })
        }
    }

    /// Bytes of a mapping that nobody else has.
    pub(crate) struct Piece {
        at: NonNull<u8>,
        len: usize,
        _map: Arc<MmapMut>,
    }

    // SAFETY: a piece is the only way to its bytes, like a box.
    unsafe impl Send for Piece {}
    // SAFETY: as above; shared, it is only read.
    unsafe impl Sync for Piece {}

    impl Deref for Piece {
        type Target = [u8];

        fn deref(&self) -> &[u8] {
            // SAFETY: the mapping lives as long as the piece; its bytes are initialised, inside, and of no other piece.
            unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
        }
    }

    impl DerefMut for Piece {
        fn deref_mut(&mut self) -> &mut [u8] {
            // SAFETY: as above, and borrowed exclusively.
            unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_aligned_and_apart() {
        let arena = Arena::default();
        let sizes = [1usize, 64, 4096, 5000, 65_537, 3 << 20, 70 << 20, 0];
        for holder in [Holder::Weights, Holder::Cache, Holder::Activations] {
            let mut all: Vec<Memory> = sizes
                .iter()
                .map(|&size| arena.zeroed(size, holder).expect("memory"))
                .collect();
            for (i, memory) in all.iter_mut().enumerate() {
                assert_eq!(memory.len(), sizes[i]);
                assert!(memory.is_empty() || (memory.as_ptr() as usize).is_multiple_of(64));
                assert!(memory.iter().all(|&b| b == 0), "{holder:?} {}", sizes[i]);
                memory.fill(i as u8 + 1);
            }
            for (i, memory) in all.iter().enumerate() {
                assert!(
                    memory.iter().all(|&b| b == i as u8 + 1),
                    "{holder:?} {}",
                    sizes[i]
                );
            }
        }
    }

    #[test]
    fn a_piece_outlives_its_arena() {
        let arena = Arena::default();
        let memory = arena.zeroed(10_000, Holder::Weights).expect("memory");
        drop(arena);
        assert!(memory.iter().all(|&b| b == 0));
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        let arena = Arena::default();
        for holder in [Holder::Weights, Holder::Activations] {
            assert!(arena.zeroed(usize::MAX - 4096, holder).is_err());
            assert!(arena.zeroed(1 << 60, holder).is_err());
        }
    }
}
