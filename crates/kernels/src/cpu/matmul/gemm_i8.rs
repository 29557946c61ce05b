//! Many tokens, 8-bit activations: a panel of weight rows is unpacked to bytes and interleaved once, then multiplied with all
//! tokens by a register-blocked integer micro-kernel; each group's integer sums are scaled into f32 accumulators.
//!
//! With `w = s·u + m` and `x ≈ d·q` a group adds `s·d·Σ u·q + m·(d·Σ q)`. Where `m = -ZERO·s` the integer sum starts at
//! `-ZERO·Σ q` instead, which saves the second term. With two passes a token has two rows of integers, the second with what rounding
//! left of the first; both meet the weights while they are in registers.

use super::prepare::{Buffer, Prepared};
use super::simd::{Kernel, MAX_LANES, PANEL, Simd, dispatch};
use super::unpack::{CHUNK, Chunk, Format, GROUPS};
use super::{Columns, MatmulArgs};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

/// Elements of K that are packed at a time: a panel of them (32 KiB, and up to 16 KiB of scales) is at home in the second
/// cache and mostly in the first.
const DEPTH: usize = 1024;

#[derive(Default)]
struct Packed {
    /// `words[k / 4 · PANEL + r]`: four consecutive weights of row r.
    words: Buffer,
    /// `scales[g · PANEL + r]`, `mins` likewise.
    scales: Buffer,
    mins: Buffer,
}

thread_local! {
    static PACKED: Cell<Packed> = Cell::default();
}

/// The rows of a product by panels.
pub(super) struct Panels<'a, F> {
    pub(super) args: &'a MatmulArgs<'a>,
    pub(super) prepared: &'a Prepared,
    /// Rows of `prepared` for each token, 1 or 2.
    pub(super) passes: usize,
    pub(super) rows: Range<usize>,
    pub(super) out: &'a Columns<'a>,
    pub(super) format: PhantomData<F>,
}

impl<F: Format> Kernel for Panels<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // Taken out, since a closure would be compiled without the level's instructions.
        let mut packed = PACKED.take();
        let words = packed.words.resize::<u32>(PANEL * DEPTH / 4);
        let scales = packed
            .scales
            .resize::<f32>(PANEL * (DEPTH / F::GROUP + GROUPS));
        let mins = packed
            .mins
            .resize::<f32>(PANEL * (DEPTH / F::GROUP + GROUPS));
        let chunks = self.args.k.div_ceil(CHUNK);
        for row in self.rows.clone().step_by(PANEL) {
            let rows = row..self.rows.end.min(row + PANEL);
            for first in (0..chunks).step_by(DEPTH / CHUNK) {
                let chunks = first..chunks.min(first + DEPTH / CHUNK);
                let depth = (self.args.k - first * CHUNK).min(DEPTH);
                pack::<S, F>(simd, self.args, rows.clone(), chunks, words, scales, mins);
                let panel = Panel {
                    prepared: self.prepared,
                    tokens: self.args.t,
                    passes: self.passes,
                    out: self.out,
                    rows: rows.clone(),
                    start: first * CHUNK,
                    depth,
                    words,
                    scales,
                    mins,
                    signed: F::WIDE && S::SIGNED_BYTES,
                };
                // Not a plain call, so that it is compiled once per level and kind of scales, not once per format.
                let isa = self.args.isa;
                match (F::GROUP, F::HAS_MIN) {
                    (32, false) => dispatch(isa, Tiles::<32, false>(panel)),
                    (32, true) => dispatch(isa, Tiles::<32, true>(panel)),
                    (_, false) => dispatch(isa, Tiles::<16, false>(panel)),
                    (_, true) => dispatch(isa, Tiles::<16, true>(panel)),
                }
            }
        }
        PACKED.set(packed);
    }
}

/// Packs `chunks` of `rows`; beyond the last row of a short panel that row is repeated.
#[inline(always)]
fn pack<S: Simd, F: Format>(
    simd: S,
    args: &MatmulArgs<'_>,
    rows: Range<usize>,
    chunks: Range<usize>,
    words: &mut [u32],
    scales: &mut [f32],
    mins: &mut [f32],
) {
    const WORDS: usize = CHUNK / 4;
    const { assert!(size_of::<Chunk>().is_multiple_of(4) && MAX_LANES >= S::LANES) };
    let groups = CHUNK / F::GROUP;
    // The last transposition of scales may write 16 rows where there are 8.
    assert!(words.len() >= chunks.len() * WORDS * PANEL);
    assert!(scales.len().min(mins.len()) >= (chunks.len() * groups + GROUPS - groups) * PANEL);
    let mut unpacked = [const { Chunk::zeroed() }; MAX_LANES];
    let stride = size_of::<Chunk>() / 4;
    for r in (0..PANEL).step_by(S::LANES) {
        for chunk in chunks.clone() {
            for (i, to) in unpacked.iter_mut().enumerate().take(S::LANES) {
                let bytes = &args.row((rows.start + r + i).min(rows.end - 1));
                let bytes = &bytes[chunk * F::CHUNK_BYTES..];
                F::unpack(simd, &bytes[..bytes.len().min(F::CHUNK_BYTES)], to);
                if F::WIDE && S::SIGNED_BYTES {
                    to.q.iter_mut().for_each(|q| *q ^= 0x80);
                }
            }
            let at = chunk - chunks.start;
            let first = &unpacked[0];
            // SAFETY: LANES chunks lie one after the other; a chunk has WORDS words and GROUPS scales and minima; the assertions
            // above are about the last rows that are written.
            unsafe {
                for i in (0..WORDS).step_by(S::LANES) {
                    let to = words.as_mut_ptr().add((at * WORDS + i) * PANEL + r);
                    simd.transpose(first.q.as_ptr().cast::<u32>().add(i), stride, to);
                }
                for i in (0..groups).step_by(S::LANES) {
                    let to = (at * groups + i) * PANEL + r;
                    let from = first.scale.as_ptr().cast::<u32>().add(i);
                    simd.transpose(from, stride, scales.as_mut_ptr().add(to).cast());
                    if F::HAS_MIN {
                        let from = first.min.as_ptr().cast::<u32>().add(i);
                        simd.transpose(from, stride, mins.as_mut_ptr().add(to).cast());
                    }
                }
            }
        }
    }
}

/// A packed panel and what it is multiplied with.
struct Panel<'a> {
    prepared: &'a Prepared,
    tokens: usize,
    passes: usize,
    out: &'a Columns<'a>,
    rows: Range<usize>,
    start: usize,
    depth: usize,
    words: &'a [u32],
    scales: &'a [f32],
    mins: &'a [f32],
    /// The weights are signed: sums begin at 0.
    signed: bool,
}

/// One packed panel times all tokens; groups of `GROUP`, with minima if `MIN`.
pub(crate) struct Tiles<'a, const GROUP: usize, const MIN: bool>(Panel<'a>);

impl<const GROUP: usize, const MIN: bool> Kernel for Tiles<'_, GROUP, MIN> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        simd.int8_tiles(&self);
    }
}

impl<const GROUP: usize, const MIN: bool> Tiles<'_, GROUP, MIN> {
    /// All rows of the activations by `TILE` at a time (an even number for two passes), `VECS` vectors of the weights' rows at a time.
    #[inline(always)]
    pub(super) fn all<S: Simd, const VECS: usize, const TILE: usize>(&self, simd: S) {
        const { assert!(!S::FAST_BYTES || TILE.is_multiple_of(2)) };
        let mut x = 0;
        if S::FAST_BYTES && self.0.passes == 2 {
            let rows = 2 * self.0.tokens;
            while x + TILE <= rows {
                self.tile::<S, VECS, TILE, 2>(simd, x);
                x += TILE;
            }
            while x < rows {
                self.tile::<S, VECS, 2, 2>(simd, x);
                x += 2;
            }
            return;
        }
        while x + TILE <= self.0.tokens {
            self.tile::<S, VECS, TILE, 1>(simd, x);
            x += TILE;
        }
        while x + 2 <= self.0.tokens {
            self.tile::<S, VECS, 2, 1>(simd, x);
            x += 2;
        }
        while x < self.0.tokens {
            self.tile::<S, VECS, 1, 1>(simd, x);
            x += 1;
        }
    }

    /// Rows `x .. x + TILE` of the activations, `PASSES` for each token.
    #[inline(always)]
    fn tile<S: Simd, const VECS: usize, const TILE: usize, const PASSES: usize>(
        &self,
        simd: S,
        x: usize,
    ) {
        let panel = &self.0;
        let p = panel.prepared;
        let groups = panel.depth / GROUP;
        let group = panel.start / GROUP;
        let mut q = [p.q(x); TILE];
        for (t, q) in q.iter_mut().enumerate() {
            *q = &p.q(x + t)[panel.start..][..panel.depth];
        }
        let words = &panel.words[..panel.depth / 4 * PANEL];
        let scales = &panel.scales[..groups * PANEL];
        let mins = &panel.mins[..groups * PANEL];
        for strip in (0..panel.rows.len()).step_by(VECS * S::LANES) {
            let mut acc = [[simd.splat(0.0); VECS]; TILE];
            for g in 0..groups {
                let (d, sum, begin) = p.of_group(group + g);
                let (d, sum, begin) = (&d[x..x + TILE], &sum[x..x + TILE], &begin[x..x + TILE]);
                // SAFETY: `strip` + VECS · LANES <= PANEL (a multiple of VECS · LANES at every level), the panel has depth / 4
                // rows of PANEL words and `groups` rows of PANEL scales and minima, `q` has `depth` bytes.
                unsafe {
                    // Loops, no closures: those would be compiled without the level's instructions.
                    let mut dots = [[simd.splat_int(0); VECS]; TILE];
                    if !MIN && !panel.signed {
                        for (dots, begin) in dots.iter_mut().zip(begin) {
                            *dots = [simd.splat_int(*begin); VECS];
                        }
                    }
                    for k in g * (GROUP / 4)..(g + 1) * (GROUP / 4) {
                        let w = words.as_ptr().add(k * PANEL + strip);
                        let mut weights = [simd.splat_int(0); VECS];
                        for (v, weights) in weights.iter_mut().enumerate() {
                            *weights = simd.load_int(w.add(v * S::LANES));
                        }
                        for t in 0..TILE {
                            let four = q[t].as_ptr().add(4 * k).cast::<i32>().read_unaligned();
                            let four = simd.splat_int(four);
                            for v in 0..VECS {
                                dots[t][v] = simd.dot_bytes(dots[t][v], weights[v], four);
                            }
                        }
                    }
                    let at = g * PANEL + strip;
                    let (mut scale, mut min) = ([simd.splat(0.0); VECS], [simd.splat(0.0); VECS]);
                    for v in 0..VECS {
                        scale[v] = simd.load(scales.as_ptr().add(at + v * S::LANES));
                        if MIN {
                            min[v] = simd.load(mins.as_ptr().add(at + v * S::LANES));
                        }
                    }
                    for t in (0..TILE).step_by(PASSES) {
                        let first = simd.splat(d[t]);
                        if PASSES == 1 {
                            for v in 0..VECS {
                                let dots = simd.to_float(dots[t][v]);
                                acc[t][v] =
                                    simd.mul_add(dots, simd.mul(scale[v], first), acc[t][v]);
                            }
                        } else {
                            let second = simd.splat(d[t + 1]);
                            for v in 0..VECS {
                                let one = simd.mul(simd.to_float(dots[t][v]), first);
                                let both = simd.mul_add(simd.to_float(dots[t + 1][v]), second, one);
                                acc[t][v] = simd.mul_add(both, scale[v], acc[t][v]);
                            }
                        }
                        if MIN {
                            let sum = simd.splat(sum[t]);
                            for v in 0..VECS {
                                acc[t][v] = simd.mul_add(min[v], sum, acc[t][v]);
                            }
                        }
                    }
                }
            }
            let row = panel.rows.start + strip;
            let valid = (panel.rows.end - row).min(VECS * S::LANES);
            for (t, acc) in acc.iter().step_by(PASSES).enumerate() {
                let mut sums = [0f32; PANEL];
                for (v, acc) in acc.iter().enumerate() {
                    // SAFETY: VECS · LANES <= PANEL.
                    unsafe { simd.store(sums.as_mut_ptr().add(v * S::LANES), *acc) };
                }
                // SAFETY: `rows`'s caller gave these rows to this call alone.
                unsafe {
                    panel
                        .out
                        .put(x / PASSES + t, row, &sums[..valid], panel.start > 0)
                };
            }
        }
    }
}
