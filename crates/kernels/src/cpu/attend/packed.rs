//! Many queries: keys and values of one head, packed.
//!
//! Keys are packed by columns, so that a vector holds the same dimension of neighbouring keys and no sums across lanes are needed;
//! values by rows. Both lie in panels [`PAD`] wide, each of which stays in the first cache while all queries go over it; some queries
//! share what is loaded of it.

use super::dispatch;
use crate::cpu::matmul::Isa;
use crate::cpu::matmul::simd::PANEL as PAD;
use crate::cpu::matmul::simd::{Kernel, Simd};
use crate::cpu::vecmath;

/// Queries of [`Packed::attend`] at most.
pub(crate) const TOGETHER: usize = 16;

/// The most queries that share a load of keys or values, at any level.
const TILE: usize = 8;

/// Rows of numbers that begin `stride` apart, the first at `first`.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) first: usize,
    pub(crate) stride: usize,
}

impl Rows<'_> {
    /// Panics unless `n` rows of `len` numbers are there.
    fn check(&self, n: usize, len: usize) {
        let last = n.saturating_sub(1).checked_mul(self.stride);
        let end = last.and_then(|last| last.checked_add(self.first)?.checked_add(len));
        let there = end.is_some_and(|end| end <= self.data.len());
        assert!(n == 0 || there, "attention: missing rows");
    }

    /// Where row `i` begins.
    fn row(&self, i: usize) -> *const f32 {
        self.data
            .as_ptr()
            .wrapping_add(self.first + i * self.stride)
    }
}

/// Keys and values of one head that some queries see, and room for the scores.
#[derive(Default)]
pub(crate) struct Packed {
    keys: usize,
    hd: usize,
    /// `[keys / PAD, hd, PAD]`.
    k: Vec<f32>,
    /// `[hd / PAD, keys, PAD]`.
    v: Vec<f32>,
    /// `[queries, width(keys)]`.
    scores: Vec<f32>,
    /// `[queries, width(hd)]`.
    sums: Vec<f32>,
}

fn width(n: usize) -> usize {
    n.next_multiple_of(PAD)
}

/// Makes room for `n` numbers.
fn grow(numbers: &mut Vec<f32>, n: usize) {
    if numbers.len() < n {
        numbers.resize(n, 0.0);
    }
}

impl Packed {
    /// Packs `keys` keys and values of `hd` elements.
    pub(crate) fn fill(&mut self, isa: Isa, (keys, hd): (usize, usize), k: Rows<'_>, v: Rows<'_>) {
        (self.keys, self.hd) = (keys, hd);
        self.k.resize(hd * width(keys), 0.0);
        self.v.resize(keys * width(hd), 0.0);
        dispatch(isa, Fill { packed: self, k, v });
    }

    /// `scores[i][j] = q_i · k_j` for `n` queries; unspecified beyond the last key.
    pub(crate) fn scores(&mut self, isa: Isa, n: usize, queries: Rows<'_>) {
        let wide = width(self.keys);
        grow(&mut self.scores, n.next_multiple_of(TILE) * wide);
        dispatch(
            isa,
            Product {
                rows: queries,
                n,
                depth: self.hd,
                panels: &self.k,
                out: &mut self.scores,
            },
        );
    }

    /// The scores of query `i`, one for each key.
    pub(crate) fn row(&mut self, i: usize) -> &mut [f32] {
        &mut self.scores[i * width(self.keys)..][..self.keys]
    }

    /// The sums of the values weighted with [`Packed::row`] of `n` queries; [`Packed::result`] gives them.
    pub(crate) fn sum(&mut self, isa: Isa, n: usize) {
        grow(&mut self.sums, n.next_multiple_of(TILE) * width(self.hd));
        let rows = Rows {
            data: &self.scores,
            first: 0,
            stride: width(self.keys),
        };
        dispatch(
            isa,
            Product {
                rows,
                n,
                depth: self.keys,
                panels: &self.v,
                out: &mut self.sums,
            },
        );
    }

    /// See [`Packed::sum`].
    pub(crate) fn result(&self, i: usize) -> &[f32] {
        &self.sums[i * width(self.hd)..][..self.hd]
    }

    /// The attention of `n` queries, at most [`TOGETHER`]: `out(i, sums, by)` gets the result of query `i` as `sums · by`.
    pub(crate) fn attend(
        &mut self,
        isa: Isa,
        scale: f32,
        n: usize,
        queries: Rows<'_>,
        mut out: impl FnMut(usize, &[f32], f32),
    ) {
        assert!(n <= TOGETHER, "attention: too many queries");
        if self.keys == 0 {
            return;
        }
        self.scores(isa, n, queries);
        let mut totals = [1.0; TOGETHER];
        let wide = width(self.keys);
        for (i, total) in totals.iter_mut().enumerate().take(n) {
            let row = &mut self.scores[i * wide..][..wide];
            // Whole vectors: what is beyond the last key weighs nothing.
            row[self.keys..].fill(f32::NEG_INFINITY);
            (_, *total) = vecmath::softmax_sum(isa, scale, row);
        }
        self.sum(isa, n);
        for (i, total) in totals.iter().enumerate().take(n) {
            out(i, self.result(i), 1.0 / total);
        }
    }
}

/// See [`Packed::fill`].
struct Fill<'a> {
    packed: &'a mut Packed,
    k: Rows<'a>,
    v: Rows<'a>,
}

impl Kernel for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Packed { keys, hd, k, v, .. } = self.packed;
        let (keys, hd) = (*keys, *hd);
        self.k.check(keys, hd);
        self.v.check(keys, hd);
        let turned = hd / S::LANES * S::LANES;
        for (panel, to) in k.chunks_exact_mut((hd * PAD).max(1)).enumerate() {
            for lane in (0..PAD).step_by(S::LANES) {
                let j = panel * PAD + lane;
                let there = keys.saturating_sub(j).min(S::LANES);
                let whole = if there == S::LANES { turned } else { 0 };
                for d in (0..whole).step_by(S::LANES) {
                    // SAFETY: LANES numbers of LANES keys are there, by `check`; `to` has `hd` rows of PAD numbers.
                    unsafe {
                        let from = self.k.row(j).add(d).cast();
                        simd.transpose(
                            from,
                            self.k.stride,
                            to.as_mut_ptr().add(d * PAD + lane).cast(),
                        );
                    }
                }
                for d in whole..hd {
                    let to = &mut to[d * PAD + lane..][..S::LANES];
                    for (i, to) in to.iter_mut().enumerate() {
                        let at = self.k.first + (j + i) * self.k.stride + d;
                        *to = if i < there { self.k.data[at] } else { 0.0 };
                    }
                }
            }
        }
        for (panel, to) in v.chunks_exact_mut((keys * PAD).max(1)).enumerate() {
            let there = (hd - panel * PAD).min(PAD);
            for (j, to) in to.as_chunks_mut::<PAD>().0.iter_mut().enumerate() {
                let from = &self.v.data[self.v.first + j * self.v.stride + panel * PAD..][..there];
                if let Ok(from) = <&[f32; PAD]>::try_from(from) {
                    *to = *from;
                } else {
                    to[..there].copy_from_slice(from);
                    to[there..].fill(0.0);
                }
            }
        }
    }
}

/// `out[i, j] = Σ_d rows[i, d] · panels[j / PAD, d, j % PAD]`.
struct Product<'a> {
    rows: Rows<'a>,
    /// Rows; the last are computed more than once where they are no whole tiles, and `out` has room for that.
    n: usize,
    depth: usize,
    /// `[panels, depth, PAD]`.
    panels: &'a [f32],
    /// `[n, panels, PAD]`.
    out: &'a mut [f32],
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match S::LANES {
            16.. => self.tiles::<S, TILE>(simd),
            _ => self.tiles::<S, { TILE / 2 }>(simd),
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const TILE: usize>(self, simd: S) {
        let Product {
            rows,
            n,
            depth,
            panels,
            out,
        } = self;
        if n == 0 || depth == 0 {
            return;
        }
        rows.check(n, depth);
        let wide = panels.len() / depth;
        assert!(PAD.is_multiple_of(2 * S::LANES) && wide.is_multiple_of(PAD));
        assert!(out.len() >= n.next_multiple_of(TILE) * wide);
        for (p, panel) in panels.chunks_exact(depth * PAD).enumerate() {
            for i in (0..n).step_by(TILE) {
                let mut x = [rows.row(i); TILE];
                for (t, x) in x.iter_mut().enumerate() {
                    *x = rows.row((i + t).min(n - 1));
                }
                for strip in (0..PAD).step_by(2 * S::LANES) {
                    let mut acc = [[simd.splat(0.0); 2]; TILE];
                    for d in 0..depth {
                        // SAFETY: a panel has `depth` rows of PAD numbers; every row has `depth`, by `check`.
                        unsafe {
                            let at = panel.as_ptr().add(d * PAD + strip);
                            let (first, second) = (simd.load(at), simd.load(at.add(S::LANES)));
                            for t in 0..TILE {
                                let x = simd.splat(*x[t].add(d));
                                acc[t] = [
                                    simd.mul_add(x, first, acc[t][0]),
                                    simd.mul_add(x, second, acc[t][1]),
                                ];
                            }
                        }
                    }
                    for t in 0..TILE {
                        // SAFETY: `out` has `wide` numbers for each row up to whole tiles, as asserted.
                        unsafe {
                            let to = out.as_mut_ptr().add((i + t) * wide + p * PAD + strip);
                            simd.store(to, acc[t][0]);
                            simd.store(to.add(S::LANES), acc[t][1]);
                        }
                    }
                }
            }
        }
    }
}
