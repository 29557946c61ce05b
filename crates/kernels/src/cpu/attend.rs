//! Attention of four queries over keys and values: the inner products of `span_attention` and `attention`.
//!
//! Keys are packed by columns (`[HD, keys]`), so that a vector holds the same dimension of neighbouring keys and no sums across
//! lanes are needed; values by rows. Both are padded to [`PAD`], a multiple of two vectors at every level. Four queries share
//! what is loaded of both.
//!
//! One of the crate's listed `unsafe` modules: vector loads and stores inside bounds that are asserted.
#![allow(unsafe_code)]
// An index names the same query in several arrays.
#![allow(clippy::needless_range_loop)]

use super::matmul::Isa;
pub(crate) use super::matmul::simd::dispatch;
use super::matmul::simd::{Kernel, Simd};
use super::vecmath;

/// Queries at a time.
pub(crate) const QUERIES: usize = 4;

/// Packed rows are a multiple of this.
pub(crate) const PAD: usize = 32;

/// Keys that are packed together; divides [`PAD`].
const BLOCK: usize = 16;

/// Keys and values of one head that a run of queries sees, and room for the scores.
#[derive(Default)]
pub(crate) struct Packed {
    keys: usize,
    hd: usize,
    /// `[hd, width(keys)]`.
    k: Vec<f32>,
    /// `[keys, width(hd)]`.
    v: Vec<f32>,
    /// `[QUERIES, width(keys)]`.
    scores: Vec<f32>,
    /// `[QUERIES, width(hd)]`.
    sums: Vec<f32>,
}

fn width(n: usize) -> usize {
    n.next_multiple_of(PAD)
}

impl Packed {
    /// Packs `keys` keys and values of `hd` elements; `row(j)` gives both of key `j`.
    pub(crate) fn fill<'a>(
        &mut self,
        keys: usize,
        hd: usize,
        row: impl Fn(usize) -> (&'a [f32], &'a [f32]),
    ) {
        (self.keys, self.hd) = (keys, hd);
        let (wide, deep) = (width(keys), width(hd));
        self.k.resize(hd * wide, 0.0);
        self.v.resize(keys * deep, 0.0);
        self.scores.resize(QUERIES * wide, 0.0);
        self.sums.resize(QUERIES * deep, 0.0);
        // A block of keys at a time, so that a line of `k` is written at once.
        for first in (0..keys).step_by(BLOCK) {
            let n = BLOCK.min(keys - first);
            let mut block: [&[f32]; BLOCK] = [&[]; BLOCK];
            for (i, block) in block.iter_mut().enumerate() {
                let j = first + i.min(n - 1);
                let (k, v) = row(j);
                *block = &k[..hd];
                let to = &mut self.v[j * deep..][..deep];
                to[..hd].copy_from_slice(&v[..hd]);
                to[hd..].fill(0.0);
            }
            for d in 0..hd {
                let to = &mut self.k[d * wide + first..][..BLOCK];
                for (to, k) in to.iter_mut().zip(&block) {
                    *to = k[d];
                }
            }
        }
        // What an earlier head left beyond the last key may be NaN, and is computed with, though not used.
        for row in self.k.chunks_exact_mut(wide.max(1)) {
            row[keys..].fill(0.0);
        }
    }

    /// `scores[i][j] = q_i · k_j` for up to [`QUERIES`] queries; unspecified beyond the last key.
    pub(crate) fn scores(&mut self, isa: Isa, queries: &[&[f32]]) {
        let Some(last) = queries.len().checked_sub(1) else {
            return;
        };
        let q: [&[f32]; QUERIES] = std::array::from_fn(|i| queries[i.min(last)]);
        dispatch(isa, Scores { packed: self, q });
    }

    /// The scores of query `i`, one for each key.
    pub(crate) fn row(&mut self, i: usize) -> &mut [f32] {
        let wide = width(self.keys);
        &mut self.scores[i * wide..][..self.keys]
    }

    /// The sums of the values weighted with [`Packed::row`]; `result(i)` gives query `i`'s.
    pub(crate) fn sum(&mut self, isa: Isa) {
        dispatch(isa, Sums { packed: self });
    }

    /// See [`Packed::sum`].
    pub(crate) fn result(&self, i: usize) -> &[f32] {
        &self.sums[i * width(self.hd)..][..self.hd]
    }

    /// The attention of up to [`QUERIES`] queries: `out(i, sums, by)` gets the result of query `i` as `sums · by`.
    pub(crate) fn attend(
        &mut self,
        isa: Isa,
        scale: f32,
        queries: &[&[f32]],
        mut out: impl FnMut(usize, &[f32], f32),
    ) {
        let (Some(last), true) = (queries.len().checked_sub(1), self.keys > 0) else {
            return;
        };
        self.scores(isa, queries);
        let (wide, deep) = (width(self.keys), width(self.hd));
        let mut totals = [1.0; QUERIES];
        for i in 0..=last {
            let row = &mut self.scores[i * wide..][..wide];
            // Whole vectors: what is beyond the last key weighs nothing.
            row[self.keys..].fill(f32::NEG_INFINITY);
            totals[i] = vecmath::softmax_sum(isa, scale, row);
        }
        dispatch(isa, Sums { packed: self });
        for i in 0..=last {
            out(i, &self.sums[i * deep..][..self.hd], 1.0 / totals[i]);
        }
    }
}

/// `scores[i, j] = q_i · k_j`.
struct Scores<'a> {
    packed: &'a mut Packed,
    q: [&'a [f32]; QUERIES],
}

impl Kernel for Scores<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Packed {
            hd,
            k,
            scores,
            keys,
            ..
        } = self.packed;
        let (hd, wide) = (*hd, width(*keys));
        assert!(PAD.is_multiple_of(2 * S::LANES) && k.len() >= hd * wide);
        assert!(scores.len() >= QUERIES * wide && self.q.iter().all(|q| q.len() >= hd));
        for j in (0..wide).step_by(2 * S::LANES) {
            let mut acc = [[simd.splat(0.0); 2]; QUERIES];
            for d in 0..hd {
                // SAFETY: `j` is at most `wide` less two vectors, `d` below `hd`: inside `k` by the assertions.
                let (k0, k1) = unsafe {
                    let at = k.as_ptr().add(d * wide + j);
                    (simd.load(at), simd.load(at.add(S::LANES)))
                };
                for i in 0..QUERIES {
                    // SAFETY: `d` is below `hd`, and every query has `hd` elements.
                    let q = simd.splat(unsafe { *self.q[i].get_unchecked(d) });
                    acc[i] = [
                        simd.mul_add(q, k0, acc[i][0]),
                        simd.mul_add(q, k1, acc[i][1]),
                    ];
                }
            }
            for i in 0..QUERIES {
                // SAFETY: row `i` of the scores has `wide` elements.
                unsafe {
                    let at = scores.as_mut_ptr().add(i * wide + j);
                    simd.store(at, acc[i][0]);
                    simd.store(at.add(S::LANES), acc[i][1]);
                }
            }
        }
    }
}

/// `sums[i] = Σ_j scores[i, j] · v_j`.
struct Sums<'a> {
    packed: &'a mut Packed,
}

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Packed {
            hd,
            keys,
            v,
            scores,
            sums,
            ..
        } = self.packed;
        let (keys, wide, deep) = (*keys, width(*keys), width(*hd));
        assert!(PAD.is_multiple_of(2 * S::LANES) && v.len() >= keys * deep);
        assert!(scores.len() >= QUERIES * wide && sums.len() >= QUERIES * deep);
        for d in (0..deep).step_by(2 * S::LANES) {
            let mut acc = [[simd.splat(0.0); 2]; QUERIES];
            for j in 0..keys {
                // SAFETY: `d` is at most `deep` less two vectors, `j` below `keys`: inside `v` by the assertions.
                let (v0, v1) = unsafe {
                    let at = v.as_ptr().add(j * deep + d);
                    (simd.load(at), simd.load(at.add(S::LANES)))
                };
                for i in 0..QUERIES {
                    // SAFETY: row `i` of the scores has `wide` elements, at least `keys`.
                    let w = simd.splat(unsafe { *scores.get_unchecked(i * wide + j) });
                    acc[i] = [
                        simd.mul_add(w, v0, acc[i][0]),
                        simd.mul_add(w, v1, acc[i][1]),
                    ];
                }
            }
            for i in 0..QUERIES {
                // SAFETY: row `i` of the sums has `deep` elements.
                unsafe {
                    let at = sums.as_mut_ptr().add(i * deep + d);
                    simd.store(at, acc[i][0]);
                    simd.store(at.add(S::LANES), acc[i][1]);
                }
            }
        }
    }
}

/// Rows that are asked for ahead.
const AHEAD: usize = 16;

/// Rows of a cache, where they lie: row `j` begins at element `first + j · stride`.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// f32, or f16 if `half`.
    pub(crate) bytes: &'a [u8],
    pub(crate) half: bool,
    pub(crate) first: usize,
    pub(crate) stride: usize,
    /// Rows there are.
    pub(crate) count: usize,
    /// Elements of a row, whole vectors of every level.
    pub(crate) hd: usize,
}

impl Rows<'_> {
    /// Panics unless all rows are inside.
    fn check(&self) {
        let end = self.first + self.count.saturating_sub(1) * self.stride + self.hd;
        let size = if self.half { 2 } else { 4 };
        assert!(
            self.count == 0 || end * size <= self.bytes.len(),
            "attention: rows beyond the cache"
        );
    }

    /// Asks for row `j`, there or not, to be brought near: rows of one head lie too far apart for the processor to guess the next.
    #[inline(always)]
    fn prefetch(&self, j: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let size = if self.half { 2 } else { 4 };
            let row = self
                .bytes
                .as_ptr()
                .wrapping_add((self.first + j * self.stride) * size);
            for line in (0..self.hd * size).step_by(64) {
                // SAFETY: a hint; no address is invalid for it.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(line).cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = j;
    }

    /// LANES elements of row `j` from `d` on.
    ///
    /// # Safety
    /// [`Rows::check`] passed, `j` is below `count`, `d` + LANES at most `hd`; `HALF` is `half`.
    #[inline(always)]
    unsafe fn load<S: Simd, const HALF: bool>(&self, simd: S, j: usize, d: usize) -> S::F {
        let at = self.first + j * self.stride + d;
        // SAFETY: the caller's promise; loads need no alignment.
        unsafe {
            match HALF {
                true => simd.load_half(self.bytes.as_ptr().add(2 * at).cast()),
                false => simd.load(self.bytes.as_ptr().add(4 * at).cast()),
            }
        }
    }
}

/// `scores[i · step + j] = q_i · k_j` for `N` queries, the keys read where they lie: for a token, whose keys packing would only
/// move.
pub(crate) struct FewScores<'a, const N: usize> {
    pub(crate) q: [&'a [f32]; N],
    pub(crate) k: Rows<'a>,
    pub(crate) scores: &'a mut [f32],
    pub(crate) step: usize,
}

impl<const N: usize> Kernel for FewScores<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        self.k.check();
        let Rows { hd, count, .. } = self.k;
        assert!(hd.is_multiple_of(S::LANES) && self.q.iter().all(|q| q.len() >= hd));
        assert!(count <= self.step && self.scores.len() >= N * self.step);
        match self.k.half {
            true => self.keys::<S, true>(simd),
            false => self.keys::<S, false>(simd),
        }
    }
}

impl<const N: usize> FewScores<'_, N> {
    #[inline(always)]
    fn keys<S: Simd, const HALF: bool>(&mut self, simd: S) {
        let count = self.k.count;
        let mut j = 0;
        // Four keys share what is loaded of the queries, and their sums are found together.
        while j < count {
            let four: [usize; 4] = std::array::from_fn(|i| (j + i).min(count - 1));
            (0..4).for_each(|i| self.k.prefetch(j + AHEAD + i));
            let mut acc = [[simd.splat(0.0); 4]; N];
            for d in (0..self.k.hd).step_by(S::LANES) {
                // SAFETY: `run` checked the rows and the queries; all keys are below `count`.
                unsafe {
                    let k = four.map(|j| self.k.load::<S, HALF>(simd, j, d));
                    for i in 0..N {
                        let q = simd.load(self.q[i].as_ptr().add(d));
                        for u in 0..4 {
                            acc[i][u] = simd.mul_add(q, k[u], acc[i][u]);
                        }
                    }
                }
            }
            for i in 0..N {
                let sums = simd.four_sums(acc[i]);
                let there = (count - j).min(4);
                self.scores[i * self.step + j..][..there].copy_from_slice(&sums[..there]);
            }
            j += 4;
        }
    }
}

/// `sums[i · hd + d] = Σ_j weights[i · step + j] · v_j[d]` for `N` queries.
pub(crate) struct FewSums<'a, const N: usize> {
    pub(crate) weights: &'a [f32],
    pub(crate) step: usize,
    pub(crate) v: Rows<'a>,
    pub(crate) sums: &'a mut [f32],
}

impl<const N: usize> Kernel for FewSums<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        self.v.check();
        let Rows { hd, count, .. } = self.v;
        assert!(hd.is_multiple_of(S::LANES) && self.sums.len() >= N * hd);
        assert!(count <= self.step && self.weights.len() >= N * self.step);
        match self.v.half {
            true => self.columns::<S, true>(simd),
            false => self.columns::<S, false>(simd),
        }
    }
}

impl<const N: usize> FewSums<'_, N> {
    #[inline(always)]
    fn columns<S: Simd, const HALF: bool>(&mut self, simd: S) {
        let mut d = 0;
        while d < self.v.hd {
            d += match self.v.hd - d >= 4 * S::LANES {
                true => self.part::<S, HALF, 4>(simd, d),
                false => self.part::<S, HALF, 1>(simd, d),
            };
        }
    }

    /// `VECS` vectors of columns from `d` on; how many columns that were.
    #[inline(always)]
    fn part<S: Simd, const HALF: bool, const VECS: usize>(&mut self, simd: S, d: usize) -> usize {
        let mut acc = [[simd.splat(0.0); VECS]; N];
        for j in 0..self.v.count {
            if d == 0 {
                self.v.prefetch(j + AHEAD);
            }
            // SAFETY: `run` checked the rows and the weights; `d` + VECS · LANES is at most `hd`.
            unsafe {
                let mut v = [simd.splat(0.0); VECS];
                for (i, v) in v.iter_mut().enumerate() {
                    *v = self.v.load::<S, HALF>(simd, j, d + i * S::LANES);
                }
                for i in 0..N {
                    let w = simd.splat(*self.weights.get_unchecked(i * self.step + j));
                    for u in 0..VECS {
                        acc[i][u] = simd.mul_add(w, v[u], acc[i][u]);
                    }
                }
            }
        }
        for i in 0..N {
            for u in 0..VECS {
                // SAFETY: `sums` has N rows of `hd`.
                unsafe {
                    let to = self.sums.as_mut_ptr().add(i * self.v.hd + d + u * S::LANES);
                    simd.store(to, acc[i][u]);
                }
            }
        }
        VECS * S::LANES
    }
}
