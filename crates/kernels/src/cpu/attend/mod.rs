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

mod few;
#[cfg(target_arch = "x86_64")]
mod few_vnni;

pub(crate) use few::{Cells, FewScores, FewSums, reads};
#[cfg(target_arch = "x86_64")]
pub(crate) use few_vnni::{Dots, Scratch as DotsScratch};

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
            (_, totals[i]) = vecmath::softmax_sum(isa, scale, row);
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
