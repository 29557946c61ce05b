//! Few queries against keys and values where they lie in a cache: for a token, whose keys packing would only move.
//!
//! All heads of a few neighbouring positions are done before the next ones, since that is how they lie in memory: read in order, they
//! come as fast as memory gives them.

use super::cells::{Cells, Float, Type};
#[cfg(not(target_arch = "wasm32"))]
use super::cells::{Half, Q8};
use crate::cpu::matmul::simd::{Kernel, Simd};
#[cfg(not(target_arch = "wasm32"))]
use firelight_tensor::DType;

/// Positions that are asked for ahead.
const AHEAD: usize = 64;
/// Positions whose values are added up before the sums go back to memory.
const TOGETHER: usize = 16;

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
