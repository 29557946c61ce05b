//! Few queries against keys and values where they lie in a cache: for a token, whose keys packing would only move.
//!
//! All heads of a few neighbouring positions are done before the next ones, since that is how they lie in memory: read in order, they
//! come as fast as memory gives them.

use super::ask;
use crate::cpu::matmul::simd::{Kernel, Simd};
use firelight_tensor::DType;

/// Positions that are asked for ahead.
const AHEAD: usize = 64;
/// Positions whose values are added up before the sums go back to memory.
const TOGETHER: usize = 16;

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
    fn check<S: Simd>(&self) {
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
    fn prefetch<T: Type>(&self, j: usize, h: usize) {
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
    unsafe fn load<S: Simd, T: Type>(&self, simd: S, j: usize, h: usize, d: usize) -> S::F {
        let at = self.first + (j * self.heads + h) * self.hd + d;
        // SAFETY: the caller's promise.
        unsafe { T::load(simd, self.bytes.as_ptr(), at) }
    }
}

/// An element type of caches.
trait Type {
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

struct Float;
#[cfg(not(target_arch = "wasm32"))]
struct Half;
#[cfg(not(target_arch = "wasm32"))]
struct Q8;

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

/// `scores[h, i, j] = q[h, i] · k[j, h]` for `N` queries of each head.
pub(crate) struct FewScores<'a, const N: usize> {
    /// `[heads, N, hd]`.
    pub(crate) q: &'a [f32],
    pub(crate) k: Cells<'a>,
    /// `[heads, N, step]`.
    pub(crate) scores: &'a mut [f32],
    pub(crate) step: usize,
}

impl<const N: usize> Kernel for FewScores<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let Cells {
            hd, count, heads, ..
        } = self.k;
        self.k.check::<S>();
        assert!(self.q.len() >= heads * N * hd);
        assert!(count <= self.step && self.scores.len() >= heads * N * self.step);
        match self.k.dtype {
            #[cfg(not(target_arch = "wasm32"))]
            DType::F16 => self.keys::<S, Half>(simd),
            #[cfg(not(target_arch = "wasm32"))]
            DType::Q8_0 => self.keys::<S, Q8>(simd),
            _ => self.keys::<S, Float>(simd),
        }
    }
}

impl<const N: usize> FewScores<'_, N> {
    #[inline(always)]
    fn keys<S: Simd, T: Type>(&mut self, simd: S) {
        let Cells {
            hd, count, heads, ..
        } = self.k;
        // Four keys share what is loaded of the queries, and their sums are found together.
        for j in (0..count).step_by(4) {
            let four: [usize; 4] = std::array::from_fn(|i| (j + i).min(count - 1));
            for h in 0..heads {
                for i in 0..4 {
                    self.k.prefetch::<T>(j + AHEAD + i, h);
                }
                let mut acc = [[simd.splat(0.0); 4]; N];
                for d in (0..hd).step_by(S::LANES) {
                    // SAFETY: `run` checked the cells and the queries; all keys are below `count`.
                    unsafe {
                        // No closure: what it called would not be compiled for the level.
                        let mut k = [simd.splat(0.0); 4];
                        for u in 0..4 {
                            k[u] = self.k.load::<S, T>(simd, four[u], h, d);
                        }
                        for i in 0..N {
                            let q = simd.load(self.q.as_ptr().add((h * N + i) * hd + d));
                            for u in 0..4 {
                                acc[i][u] = simd.mul_add(q, k[u], acc[i][u]);
                            }
                        }
                    }
                }
                for i in 0..N {
                    let sums = simd.four_sums(acc[i]);
                    let there = (count - j).min(4);
                    let to = &mut self.scores[(h * N + i) * self.step + j..];
                    to[..there].copy_from_slice(&sums[..there]);
                }
            }
        }
    }
}

/// `sums[h, i] = Σ_j weights[h, i, j] · v[j, h]` for `N` queries of each head.
pub(crate) struct FewSums<'a, const N: usize> {
    /// `[heads, N, step]`.
    pub(crate) weights: &'a [f32],
    pub(crate) step: usize,
    pub(crate) v: Cells<'a>,
    /// `[heads, N, hd]`.
    pub(crate) sums: &'a mut [f32],
}

impl<const N: usize> Kernel for FewSums<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let Cells {
            hd, count, heads, ..
        } = self.v;
        self.v.check::<S>();
        assert!(self.sums.len() >= heads * N * hd);
        assert!(count <= self.step && self.weights.len() >= heads * N * self.step);
        self.sums[..heads * N * hd].fill(0.0);
        match self.v.dtype {
            #[cfg(not(target_arch = "wasm32"))]
            DType::F16 => self.values::<S, Half>(simd),
            #[cfg(not(target_arch = "wasm32"))]
            DType::Q8_0 => self.values::<S, Q8>(simd),
            _ => self.values::<S, Float>(simd),
        }
    }
}

impl<const N: usize> FewSums<'_, N> {
    #[inline(always)]
    fn values<S: Simd, T: Type>(&mut self, simd: S) {
        let Cells {
            hd, count, heads, ..
        } = self.v;
        for first in (0..count).step_by(TOGETHER) {
            let last = count.min(first + TOGETHER);
            for h in 0..heads {
                let mut d = 0;
                while d < hd {
                    d += match hd - d >= 4 * S::LANES {
                        true => self.part::<S, T, 4>(simd, (first, last), h, d),
                        false => self.part::<S, T, 1>(simd, (first, last), h, d),
                    };
                }
            }
        }
    }

    /// `VECS` vectors of head `h` from `d` on; how many elements that were.
    #[inline(always)]
    fn part<S: Simd, T: Type, const VECS: usize>(
        &mut self,
        simd: S,
        (first, last): (usize, usize),
        h: usize,
        d: usize,
    ) -> usize {
        let (hd, step) = (self.v.hd, self.step);
        let mut acc = [[simd.splat(0.0); VECS]; N];
        // SAFETY: `run` checked the cells, the weights and the sums; `d` + VECS · LANES is at most `hd`.
        unsafe {
            for i in 0..N {
                for u in 0..VECS {
                    acc[i][u] =
                        simd.load(self.sums.as_ptr().add((h * N + i) * hd + d + u * S::LANES));
                }
            }
            for j in first..last {
                if d == 0 {
                    self.v.prefetch::<T>(j + AHEAD, h);
                }
                let mut v = [simd.splat(0.0); VECS];
                for (u, v) in v.iter_mut().enumerate() {
                    *v = self.v.load::<S, T>(simd, j, h, d + u * S::LANES);
                }
                for i in 0..N {
                    let w = simd.splat(*self.weights.get_unchecked((h * N + i) * step + j));
                    for u in 0..VECS {
                        acc[i][u] = simd.mul_add(w, v[u], acc[i][u]);
                    }
                }
            }
            for i in 0..N {
                for u in 0..VECS {
                    let to = self
                        .sums
                        .as_mut_ptr()
                        .add((h * N + i) * hd + d + u * S::LANES);
                    simd.store(to, acc[i][u]);
                }
            }
        }
        VECS * S::LANES
    }
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
