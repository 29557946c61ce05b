//! Many tokens, f32 activations: a panel of weight rows is dequantised and packed once, then multiplied with all tokens by a
//! register-blocked micro-kernel.

// An index names the same sum in several arrays.
#![allow(clippy::needless_range_loop)]

use super::prepare::Buffer;
use super::simd::{Kernel, MAX_LANES, PANEL, Simd, dispatch};
use super::unpack::{CHUNK, Chunk, Format, bhalf_to_f32, half_to_f32, halves};
use super::vec::dequantize;
use super::{Columns, MatmulArgs};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

/// Elements of K that are packed at a time: a panel of them (128 KiB) stays in the second cache.
const DEPTH: usize = 1024;

/// Bytes of a line of the caches; where lines are longer, some are asked for twice.
const LINE: usize = 64;

thread_local! {
    static PACKED: Cell<Buffer> = Cell::default();
}

/// Where a row's weights come from, 256 at a time.
pub(super) trait Source {
    /// Weights `chunk · 256 ..` of a row's bytes as f32; those beyond the row's end are unspecified.
    fn chunk<S: Simd>(
        simd: S,
        row: &[u8],
        chunk: usize,
        scratch: &mut Chunk,
        weights: &mut [f32; CHUNK],
    );

    /// The rows are f32 as they lie: they are turned without a copy.
    const PLAIN: bool = false;
}

/// Weights of a block format.
pub(super) struct Quantized<F>(PhantomData<F>);

impl<F: Format> Source for Quantized<F> {
    #[inline(always)]
    fn chunk<S: Simd>(
        simd: S,
        row: &[u8],
        chunk: usize,
        scratch: &mut Chunk,
        weights: &mut [f32; CHUNK],
    ) {
        let bytes = &row[chunk * F::CHUNK_BYTES..];
        dequantize::<S, F>(
            simd,
            &bytes[..bytes.len().min(F::CHUNK_BYTES)],
            scratch,
            weights,
        );
    }
}

macro_rules! float_source {
    ($($name:ident, $bytes:literal, $doc:literal, |$b:ident| $values:expr;)*) => {$(
        #[doc = $doc]
        pub(super) struct $name;
        impl Source for $name {
            #[inline(always)]
            fn chunk<S: Simd>(_: S, row: &[u8], chunk: usize, _: &mut Chunk, weights: &mut [f32; CHUNK]) {
                let $b = &row[chunk * CHUNK * $bytes..];
                for (w, value) in weights.iter_mut().zip($values) {
                    *w = value;
                }
            }
            const PLAIN: bool = $bytes == 4 && cfg!(target_endian = "little");
        }
    )*};
}
float_source! {
    Single, 4, "f32 weights.", |b| b.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    Half, 2, "f16 weights.", |b| halves(b).map(half_to_f32);
    BHalf, 2, "bf16 weights.", |b| halves(b).map(bhalf_to_f32);
}

/// The rows of a product by panels.
pub(super) struct Panels<'a, W> {
    pub(super) args: &'a MatmulArgs<'a>,
    pub(super) rows: Range<usize>,
    pub(super) out: &'a Columns<'a>,
    pub(super) source: PhantomData<W>,
}

impl<W: Source> Kernel for Panels<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // Taken out, since a closure would be compiled without the level's instructions.
        let mut buffer = PACKED.take();
        let packed = buffer.resize::<f32>(PANEL * DEPTH);
        for row in self.rows.clone().step_by(PANEL) {
            let rows = row..self.rows.end.min(row + PANEL);
            for start in (0..self.args.k).step_by(DEPTH) {
                let depth = DEPTH.min(self.args.k - start);
                self.pack(simd, rows.clone(), start, depth, packed);
                let (args, out, rows) = (self.args, self.out, rows.clone());
                let ahead = self.ahead(&rows, start + depth);
                let tiles = Tiles {
                    args,
                    out,
                    rows,
                    start,
                    depth,
                    packed,
                    ahead,
                };
                // Not a plain call, so that it is compiled once per level, not once per weight type.
                dispatch(self.args.isa, tiles);
            }
        }
        PACKED.set(buffer);
    }
}

impl<'a, W: Source> Panels<'a, W> {
    /// The bytes of the panel that is packed after the elements before `start` of `rows`.
    #[inline(always)]
    fn ahead(&self, rows: &Range<usize>, start: usize) -> &'a [u8] {
        let bytes = self.args.row_bytes();
        match start < self.args.k {
            // Of the rows now read, the rest; near enough to what is next.
            true => &self.args.weight[rows.start * bytes..rows.end * bytes],
            false => {
                let end = self.rows.end.min(rows.end + PANEL);
                &self.args.weight[rows.end * bytes..end * bytes]
            }
        }
    }

    /// `packed[k · PANEL + r]` = weight `start + k` of row `rows.start + r`; beyond the last row of a short panel that row is
    /// repeated.
    #[inline(always)]
    fn pack<S: Simd>(
        &self,
        simd: S,
        rows: Range<usize>,
        start: usize,
        depth: usize,
        packed: &mut [f32],
    ) {
        let mut scratch = Chunk::zeroed();
        let mut weights = [[0f32; CHUNK]; MAX_LANES];
        let mut first = 0;
        if W::PLAIN {
            // Whole vectors of whole rows; what is left goes the longer way.
            let bytes = self.args.row_bytes();
            let wide = depth / S::LANES * S::LANES;
            while first + S::LANES <= rows.len() && wide == depth {
                let from =
                    self.args.weight[(rows.start + first) * bytes..][..S::LANES * bytes].as_ptr();
                for k in (0..wide).step_by(S::LANES) {
                    assert!(
                        (start + k + S::LANES) * 4 <= bytes
                            && (k + S::LANES) * PANEL <= packed.len()
                    );
                    // SAFETY: LANES rows of `bytes` bytes, in each LANES words from `start + k` on, are inside the slice; so
                    // are LANES rows of PANEL numbers from row k on.
                    unsafe {
                        let from = from.cast::<u32>().add(start + k);
                        let to = packed.as_mut_ptr().add(k * PANEL + first);
                        simd.transpose(from, bytes / 4, to.cast());
                    }
                }
                first += S::LANES;
            }
        }
        for r in (first..PANEL).step_by(S::LANES) {
            for (i, packed) in packed[..depth * PANEL]
                .chunks_mut(CHUNK * PANEL)
                .enumerate()
            {
                for (j, to) in weights.iter_mut().enumerate().take(S::LANES) {
                    let row = self.args.row((rows.start + r + j).min(rows.end - 1));
                    W::chunk(simd, row, start / CHUNK + i, &mut scratch, to);
                }
                let mut k = 0;
                while (k + S::LANES) * PANEL <= packed.len() {
                    // SAFETY: LANES rows of CHUNK weights; LANES rows of PANEL numbers from row k on.
                    unsafe {
                        let from = weights[0].as_ptr().add(k).cast();
                        let to = packed.as_mut_ptr().add(k * PANEL + r);
                        simd.transpose(from, CHUNK, to.cast());
                    }
                    k += S::LANES;
                }
                for (k, packed) in packed
                    .as_chunks_mut::<PANEL>()
                    .0
                    .iter_mut()
                    .enumerate()
                    .skip(k)
                {
                    for (packed, weights) in packed[r..r + S::LANES].iter_mut().zip(&weights) {
                        *packed = weights[k];
                    }
                }
            }
        }
    }
}

/// One packed panel times all tokens.
pub(crate) struct Tiles<'a> {
    args: &'a MatmulArgs<'a>,
    out: &'a Columns<'a>,
    rows: Range<usize>,
    start: usize,
    depth: usize,
    packed: &'a [f32],
    /// Weights that are wanted next.
    ahead: &'a [u8],
}

impl Kernel for Tiles<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        simd.tiles(&self);
    }
}

impl Tiles<'_> {
    /// All tokens by `TILE` at a time, `VECS` vectors of rows at a time.
    #[inline(always)]
    pub(super) fn all<S: Simd, const VECS: usize, const TILE: usize>(&self, simd: S) {
        // They come while the tiles are computed: a share with each.
        let tiles = (self.args.t / TILE).max(1);
        let share = self.ahead.len().div_ceil(tiles).next_multiple_of(LINE);
        let mut token = 0;
        while token + TILE <= self.args.t {
            let first = token / TILE * share;
            for at in (first..self.ahead.len().min(first + share)).step_by(LINE) {
                simd.prefetch(self.ahead.as_ptr().wrapping_add(at));
            }
            self.tile::<S, VECS, TILE>(simd, token);
            token += TILE;
        }
        while token + 4 <= self.args.t {
            self.tile::<S, VECS, 4>(simd, token);
            token += 4;
        }
        while token < self.args.t {
            self.tile::<S, VECS, 1>(simd, token);
            token += 1;
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const VECS: usize, const TILE: usize>(&self, simd: S, token: usize) {
        // A loop, no closure: that would be a call.
        let mut x: [&[f32]; TILE] = [&[]; TILE];
        for (t, x) in x.iter_mut().enumerate() {
            *x = &self.args.token(token + t)[self.start..][..self.depth];
        }
        let packed = &self.packed[..self.depth * PANEL];
        for strip in (0..self.rows.len()).step_by(VECS * S::LANES) {
            let mut acc = [[simd.splat(0.0); VECS]; TILE];
            for k in 0..self.depth {
                // SAFETY: row k of the panel has PANEL floats from k · PANEL on, and `strip` + VECS · LANES <= PANEL (PANEL is a
                // multiple of VECS · LANES for every level); each of `x` has `depth` elements.
                unsafe {
                    let w = packed.as_ptr().add(k * PANEL + strip);
                    // Loops, no closures: those would be compiled without the level's instructions.
                    let mut weights = [simd.splat(0.0); VECS];
                    for (v, weights) in weights.iter_mut().enumerate() {
                        *weights = simd.load(w.add(v * S::LANES));
                    }
                    for t in 0..TILE {
                        let x = simd.splat(*x[t].get_unchecked(k));
                        for v in 0..VECS {
                            acc[t][v] = simd.mul_add(x, weights[v], acc[t][v]);
                        }
                    }
                }
            }
            let row = self.rows.start + strip;
            let valid = (self.rows.end - row).min(VECS * S::LANES);
            // Only short loops without calls touch the sums, so that they stay in registers.
            if valid == VECS * S::LANES {
                // SAFETY: `rows`'s caller gave these rows to this call alone; TILE tokens of VECS vectors are asserted to be there.
                unsafe {
                    let (y, stride) = self.out.block(token, TILE, row, valid);
                    if self.start > 0 {
                        for t in 0..TILE {
                            for v in 0..VECS {
                                let y = y.add(t * stride + v * S::LANES);
                                acc[t][v] = simd.add(acc[t][v], simd.load(y));
                            }
                        }
                    }
                    for t in 0..TILE {
                        for v in 0..VECS {
                            simd.store(y.add(t * stride + v * S::LANES), acc[t][v]);
                        }
                    }
                }
                continue;
            }
            let mut sums = [[0f32; PANEL]; TILE];
            for t in 0..TILE {
                for v in 0..VECS {
                    // SAFETY: VECS · LANES <= PANEL.
                    unsafe { simd.store(sums[t].as_mut_ptr().add(v * S::LANES), acc[t][v]) };
                }
            }
            for (t, sums) in sums.iter().enumerate() {
                // SAFETY: `rows`'s caller gave these rows to this call alone.
                unsafe { self.out.put(token + t, row, &sums[..valid], self.start > 0) };
            }
        }
    }
}
