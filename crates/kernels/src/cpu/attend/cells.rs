//! Caches of keys and values as they lie, in the types there are.

use super::ask;
#[cfg(not(target_arch = "wasm32"))]
use crate::cpu::matmul::simd::Kernel;
use crate::cpu::matmul::simd::Simd;
use firelight_tensor::DType;

/// False for types that these kernels are not built for: in browsers, where size counts, only f32.
pub(crate) fn reads(dtype: DType) -> bool {
    let others = cfg!(not(target_arch = "wasm32")) && matches!(dtype, DType::F16 | DType::Q8_0);
    dtype == DType::F32 || others
}

/// All heads of neighbouring positions of a cache.
#[derive(Clone, Copy)]
pub(crate) struct Cells<'a> {
    pub(crate) bytes: &'a [u8],
    /// f32, f16 or q8_0.
    pub(crate) dtype: DType,
    /// Element of the first head of the first position.
    pub(crate) first: usize,
    /// Positions there are.
    pub(crate) count: usize,
    pub(crate) heads: usize,
    /// Elements of a head, whole vectors of every level.
    pub(crate) hd: usize,
}

impl Cells<'_> {
    /// Panics unless all are inside, and heads are whole vectors.
    pub(super) fn check<S: Simd>(&self) {
        let end = self.first + self.count * self.heads * self.hd;
        let (block, size) = (self.dtype.block_len(), self.dtype.block_bytes());
        assert!(
            end.div_ceil(block) * size <= self.bytes.len(),
            "attention: beyond the cache"
        );
        assert!(self.first.is_multiple_of(block) && self.hd.is_multiple_of(block));
        assert!(self.hd.is_multiple_of(S::LANES));
    }

    /// Asks for head `h` of position `j`, there or not, to be brought near.
    #[inline(always)]
    pub(super) fn prefetch<T: Type>(&self, j: usize, h: usize) {
        let at = (self.first + (j * self.heads + h) * self.hd) / T::BLOCK * T::BYTES;
        let row = self.bytes.as_ptr().wrapping_add(at);
        for line in (0..self.hd / T::BLOCK * T::BYTES).step_by(64) {
            ask(row.wrapping_add(line));
        }
    }

    /// LANES elements of head `h` of position `j` from `d` on.
    ///
    /// # Safety
    /// [`Cells::check`] passed, `j` is below `count`, `h` below `heads`, `d` + LANES at most `hd`; `T` is the type.
    #[inline(always)]
    pub(super) unsafe fn load<S: Simd, T: Type>(
        &self,
        simd: S,
        j: usize,
        h: usize,
        d: usize,
    ) -> S::F {
        let at = self.first + (j * self.heads + h) * self.hd + d;
        // SAFETY: the caller's promise.
        unsafe { T::load(simd, self.bytes.as_ptr(), at) }
    }
}

/// An element type of caches.
pub(super) trait Type {
    /// Elements of a block.
    const BLOCK: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// LANES elements from element `at` on, a multiple of LANES.
    ///
    /// # Safety
    /// They are all there; `bytes` begins with a block.
    unsafe fn load<S: Simd>(simd: S, bytes: *const u8, at: usize) -> S::F;
}

pub(super) struct Float;
#[cfg(not(target_arch = "wasm32"))]
pub(super) struct Half;
#[cfg(not(target_arch = "wasm32"))]
pub(super) struct Q8;

impl Type for Float {
    const BLOCK: usize = 1;
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, bytes: *const u8, at: usize) -> S::F {
        // SAFETY: the caller's promise; loads need no alignment.
        unsafe { simd.load(bytes.add(4 * at).cast()) }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Type for Half {
    const BLOCK: usize = 1;
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, bytes: *const u8, at: usize) -> S::F {
        // SAFETY: the caller's promise; loads need no alignment.
        unsafe { simd.load_half(bytes.add(2 * at).cast()) }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Type for Q8 {
    const BLOCK: usize = 32;
    const BYTES: usize = 34;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, bytes: *const u8, at: usize) -> S::F {
        // SAFETY: the caller's promise: a block of 34 bytes has 32 elements, LANES of which are not of two blocks.
        unsafe {
            let block = bytes.add(at / 32 * 34);
            let scale = simd.splat(widened(block.cast::<u16>().read_unaligned()));
            simd.mul(simd.load_signed(block.add(2 + at % 32).cast()), scale)
        }
    }
}

/// An f16 as f32: its bits where f32 has them, and the exponents' bases put right; infinities become NaN.
#[cfg(not(target_arch = "wasm32"))]
#[inline(always)]
fn widened(half: u16) -> f32 {
    if half & 0x7c00 == 0x7c00 {
        return f32::NAN;
    }
    let sign = u32::from(half & 0x8000) << 16;
    f32::from_bits(sign | u32::from(half & 0x7fff) << 13) * f32::from_bits(0x7780_0000)
}

/// Head `head` of the positions of a cache as f32, `[count, hd]`: for many queries.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) struct Widen<'a> {
    pub(crate) cells: Cells<'a>,
    pub(crate) head: usize,
    pub(crate) to: &'a mut [f32],
}

#[cfg(not(target_arch = "wasm32"))]
impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.cells.check::<S>();
        assert!(self.head < self.cells.heads && self.to.len() >= self.cells.count * self.cells.hd);
        match self.cells.dtype {
            DType::F16 => self.all::<S, Half>(simd),
            DType::Q8_0 => self.all::<S, Q8>(simd),
            _ => self.all::<S, Float>(simd),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Widen<'_> {
    #[inline(always)]
    fn all<S: Simd, T: Type>(self, simd: S) {
        let Cells { count, hd, .. } = self.cells;
        for j in 0..count {
            for d in (0..hd).step_by(S::LANES) {
                // SAFETY: `run` checked the cells, the head, and `to`.
                unsafe {
                    let v = self.cells.load::<S, T>(simd, j, self.head, d);
                    simd.store(self.to.as_mut_ptr().add(j * hd + d), v);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_half_is_widened() {
        for bits in 0..=u16::MAX {
            let half = half::f16::from_bits(bits);
            if half.is_finite() {
                assert_eq!(super::widened(bits), half.to_f32(), "{bits:#x}");
            } else {
                assert!(super::widened(bits).is_nan(), "{bits:#x}");
            }
        }
    }
}
