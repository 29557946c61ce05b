//! Few tokens: each weight row is streamed once and multiplied with every token while it is in the first cache.

use super::prepare::Prepared;
use super::simd::{Kernel, Simd};
use super::unpack::{CHUNK, Chunk, Format, GROUPS, Groups, Sink};
use super::{Columns, MatmulArgs};
use firelight_tensor::DType;
use std::marker::PhantomData;
use std::ops::Range;

/// Tokens that are accumulated in one pass over a row.
const TOKENS: usize = 8;

/// Block-quantised rows times 8-bit activations: integer dot products per group, scaled and summed in f32.
pub(super) struct Int8Rows<'a, F> {
    pub(super) args: &'a MatmulArgs<'a>,
    pub(super) prepared: &'a Prepared,
    /// Rows of `prepared` for each token, 1 or 2.
    pub(super) passes: usize,
    pub(super) rows: Range<usize>,
    pub(super) out: &'a Columns<'a>,
    pub(super) format: PhantomData<F>,
}

impl<F: Format> Kernel for Int8Rows<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut chunk = Chunk::zeroed();
        for row in self.rows.clone() {
            if self.args.t == 1 {
                match self.passes {
                    1 => self.one_token::<S, 1>(simd, row),
                    _ => self.one_token::<S, 2>(simd, row),
                }
                continue;
            }
            for first in (0..self.args.t).step_by(TOKENS) {
                let tokens = TOKENS.min(self.args.t - first);
                self.tokens(simd, row, first, tokens, &mut chunk);
            }
        }
    }
}

impl<F: Format> Int8Rows<'_, F> {
    /// A row times one token: the quants go from the weights to the product in registers.
    #[inline(always)]
    fn one_token<S: Simd, const PASSES: usize>(&self, simd: S, row: usize) {
        let mut sums = Sums::new(simd);
        let (mut scale, mut min) = ([0.0; GROUPS], [0.0; GROUPS]);
        for (i, bytes) in self.args.row(row).chunks(F::CHUNK_BYTES).enumerate() {
            F::scales(simd, bytes, &mut scale, &mut min);
            let dots = self.chunk::<S, PASSES>(simd, i, 0, &scale, &min, &mut sums);
            let Some(mut dots) = dots else { return };
            F::quants(simd, bytes, &mut dots);
        }
        // SAFETY: `rows`'s caller gave these rows to this call alone.
        unsafe { self.out.write(0, row, sums.total(simd)) };
    }

    /// A row times several tokens: the quants of a chunk are unpacked once, into the first cache.
    #[inline(always)]
    fn tokens<S: Simd>(&self, simd: S, row: usize, first: usize, n: usize, chunk: &mut Chunk) {
        let mut sums = [Sums::new(simd); TOKENS];
        for (i, bytes) in self.args.row(row).chunks(F::CHUNK_BYTES).enumerate() {
            F::unpack(simd, bytes, chunk);
            let blocks = bytes.len() / F::BYTES * F::BLOCK / 32;
            for (t, sums) in sums.iter_mut().enumerate().take(n) {
                let (scale, min) = (&chunk.scale, &chunk.min);
                for pass in 0..self.passes {
                    let row = (first + t) * self.passes + pass;
                    let dots = self.chunk::<S, 1>(simd, i, row, scale, min, sums);
                    let Some(mut dots) = dots else { return };
                    for (i, q) in chunk.q.as_chunks::<32>().0.iter().take(blocks).enumerate() {
                        Sink::<S>::take(&mut dots, simd, i, simd.load_bytes(q));
                    }
                }
            }
        }
        for (t, sums) in sums.iter().enumerate().take(n) {
            // SAFETY: `rows`'s caller gave these rows to this call alone.
            unsafe { self.out.write(first + t, row, sums.total(simd)) };
        }
    }

    /// Adds the terms of a chunk's minima to `sums` and returns what adds the terms of its quants, for the `PASSES` rows of the
    /// activations from `first` on.
    #[inline(always)]
    fn chunk<'s, S: Simd, const PASSES: usize>(
        &'s self,
        simd: S,
        chunk: usize,
        first: usize,
        scale: &Groups,
        min: &Groups,
        sums: &'s mut Sums<S>,
    ) -> Option<Dots<'s, S, F, PASSES>> {
        const EMPTY: &[i8; CHUNK] = &[0; CHUNK];
        let (mut x, mut factor) = ([EMPTY; PASSES], [[0.0; GROUPS]; PASSES]);
        // With a zero point the minimum is -ZERO times the scale; -ZERO is in the sum already.
        let min = if F::HAS_MIN { min } else { scale };
        for (pass, (x, factor)) in x.iter_mut().zip(&mut factor).enumerate() {
            let (p, row) = (self.prepared, first + pass);
            *x = p.q(row).as_chunks::<CHUNK>().0.get(chunk)?;
            let at = chunk * (CHUNK / F::GROUP);
            let d = p.scale(row).get(at..at + CHUNK / F::GROUP)?;
            let sum = p.sum(row).get(at..at + CHUNK / F::GROUP)?;
            for i in (0..CHUNK / F::GROUP).step_by(8) {
                // SAFETY: `d` and `sum` have CHUNK / GROUP numbers, 8 or 16; the others have 16.
                unsafe {
                    let product = simd.eight_mul(
                        simd.eight_load(scale.as_ptr().add(i)),
                        simd.eight_load(d.as_ptr().add(i)),
                    );
                    simd.eight_store(factor.as_mut_ptr().add(i), product);
                    sums.mins = simd.eight_mul_add(
                        simd.eight_load(min.as_ptr().add(i)),
                        simd.eight_load(sum.as_ptr().add(i)),
                        sums.mins,
                    );
                }
            }
        }
        Some(Dots {
            x,
            factor,
            sums,
            format: PhantomData,
        })
    }
}

/// Accumulators of a row times a token.
#[derive(Clone, Copy)]
struct Sums<S: Simd> {
    /// Of the quants, taken in turn.
    dots: [S::H; 2],
    /// Of the minima.
    mins: S::H,
}

impl<S: Simd> Sums<S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        Sums {
            dots: [simd.eight_zeros(); 2],
            mins: simd.eight_zeros(),
        }
    }

    #[inline(always)]
    fn total(&self, simd: S) -> f32 {
        simd.eight_sum(simd.eight_add(simd.eight_add(self.dots[0], self.dots[1]), self.mins))
    }
}

/// Multiplies the quants of a chunk with 8-bit activations, `PASSES` rows of them.
struct Dots<'a, S: Simd, F, const PASSES: usize> {
    x: [&'a [i8; CHUNK]; PASSES],
    /// Scale of the weights times that of the activations.
    factor: [Groups; PASSES],
    sums: &'a mut Sums<S>,
    format: PhantomData<F>,
}

impl<S: Simd, F: Format, const PASSES: usize> Sink<S> for Dots<'_, S, F, PASSES> {
    #[inline(always)]
    fn take(&mut self, simd: S, i: usize, q: S::B) {
        for pass in 0..PASSES {
            let Some(x) = self.x[pass].as_chunks::<32>().0.get(i) else {
                return;
            };
            // One pass takes the sums in turn, two have one each.
            let sum = &mut self.sums.dots[if PASSES == 1 { i % 2 } else { pass % 2 }];
            // SAFETY: 32 activations; i < 8, and there are 16 factors, two for each i with groups of 16.
            unsafe {
                let factor = self.factor[pass].as_ptr().add(i * (32 / F::GROUP));
                *sum = match (F::GROUP, F::WIDE) {
                    (16, _) => simd.dot_32::<16, false>(*sum, q, x.as_ptr(), factor),
                    (_, false) => simd.dot_32::<32, false>(*sum, q, x.as_ptr(), factor),
                    (_, true) => simd.dot_32::<32, true>(*sum, q, x.as_ptr(), factor),
                };
            }
        }
    }
}

/// Block-quantised rows times f32 activations: a chunk is dequantised and multiplied in f32.
pub(super) struct ExactRows<'a, F> {
    pub(super) args: &'a MatmulArgs<'a>,
    pub(super) rows: Range<usize>,
    pub(super) out: &'a Columns<'a>,
    pub(super) format: PhantomData<F>,
}

impl<F: Format> Kernel for ExactRows<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut chunk = Chunk::zeroed();
        for row in self.rows.clone() {
            for first in (0..self.args.t).step_by(TOKENS) {
                let tokens = TOKENS.min(self.args.t - first);
                let mut acc = [[simd.splat(0.0); 2]; TOKENS];
                for (i, bytes) in self.args.row(row).chunks(F::CHUNK_BYTES).enumerate() {
                    F::unpack(simd, bytes, &mut chunk);
                    for (t, acc) in acc.iter_mut().enumerate().take(tokens) {
                        let x = &self.args.token(first + t)[i * CHUNK..];
                        let [mut even, mut odd] = *acc;
                        for g in 0..x.len().min(CHUNK) / F::GROUP {
                            for at in (g * F::GROUP..(g + 1) * F::GROUP).step_by(S::LANES) {
                                let w = weight::<S, F>(simd, &chunk, g, at);
                                // SAFETY: at + LANES <= the group's end <= the length of `x`.
                                let x = unsafe { simd.load(x.as_ptr().add(at)) };
                                (even, odd) = (odd, simd.mul_add(w, x, even));
                            }
                        }
                        *acc = [even, odd];
                    }
                }
                for (t, acc) in acc.iter().enumerate().take(tokens) {
                    let y = simd.sum(simd.add(acc[0], acc[1]));
                    // SAFETY: `rows`'s caller gave these rows to this call alone.
                    unsafe { self.out.write(first + t, row, y) };
                }
            }
        }
    }
}

/// LANES weights of group `g` from element `at` of the chunk on, as f32.
#[inline(always)]
fn weight<S: Simd, F: Format>(simd: S, chunk: &Chunk, g: usize, at: usize) -> S::F {
    debug_assert!(at + S::LANES <= CHUNK && g < GROUPS);
    // SAFETY: at + LANES is at most the end of group g, since LANES divides GROUP.
    let q = unsafe { simd.load_unsigned(chunk.q.as_ptr().add(at)) };
    simd.mul_add(q, simd.splat(chunk.scale[g]), simd.splat(chunk.min[g]))
}

/// The weights of a chunk as f32.
#[inline(always)]
pub(super) fn dequantize<S: Simd, F: Format>(
    simd: S,
    bytes: &[u8],
    chunk: &mut Chunk,
    weights: &mut [f32; CHUNK],
) {
    F::unpack(simd, bytes, chunk);
    for g in 0..CHUNK / F::GROUP {
        for at in (g * F::GROUP..(g + 1) * F::GROUP).step_by(S::LANES) {
            let w = weight::<S, F>(simd, chunk, g, at);
            // SAFETY: at + LANES <= CHUNK.
            unsafe { simd.store(weights.as_mut_ptr().add(at), w) };
        }
    }
}

/// f32, f16 or bf16 rows times f32 activations.
pub(super) struct FloatRows<'a> {
    pub(super) args: &'a MatmulArgs<'a>,
    pub(super) rows: Range<usize>,
    pub(super) out: &'a Columns<'a>,
}

impl Kernel for FloatRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for row in self.rows.clone() {
            let w = self.args.row(row);
            for t in 0..self.args.t {
                let x = self.args.token(t);
                let y = match self.args.dtype {
                    DType::F16 => dot::<S, 1>(simd, w, x),
                    DType::BF16 => dot::<S, 2>(simd, w, x),
                    _ => dot::<S, 0>(simd, w, x),
                };
                // SAFETY: `rows`'s caller gave these rows to this call alone.
                unsafe { self.out.write(t, row, y) };
            }
        }
    }
}

/// Σ w·x with `w` the bytes of f32 (`TYPE` 0), f16 (1) or bf16 (2).
#[inline(always)]
fn dot<S: Simd, const TYPE: u8>(simd: S, w: &[u8], x: &[f32]) -> f32 {
    const UNROLL: usize = 4;
    let size = if TYPE == 0 { 4 } else { 2 };
    let mut acc = [simd.splat(0.0); UNROLL];
    let (mut w, mut x) = (w, x);
    // The rest of a row is padded with zeros to a full step, so that every element is summed in the same way.
    let (mut w_rest, mut x_rest) = ([0u8; 16 * UNROLL * 4], [0f32; 16 * UNROLL]);
    let step = UNROLL * S::LANES;
    let rest = x.len() % step;
    let whole = x.len() - rest;
    w_rest[..rest * size].copy_from_slice(&w[whole * size..x.len() * size]);
    x_rest[..rest].copy_from_slice(&x[whole..]);
    (w, x) = (&w[..whole * size], &x[..whole]);
    let padded = (&w_rest[..step * size], &x_rest[..step]);
    let steps = w.chunks_exact(step * size).zip(x.chunks_exact(step));
    for (w, x) in steps.chain((rest > 0).then_some(padded)) {
        for (i, acc) in acc.iter_mut().enumerate() {
            let at = i * S::LANES;
            // SAFETY: `w` and `x` hold UNROLL · LANES elements; loads need no alignment.
            let (w, x) = unsafe {
                let w = w.as_ptr().add(at * size);
                let w = match TYPE {
                    0 => simd.load(w.cast()),
                    1 => simd.load_half(w.cast()),
                    _ => simd.load_bhalf(w.cast()),
                };
                (w, simd.load(x.as_ptr().add(at)))
            };
            *acc = simd.mul_add(w, x, *acc);
        }
    }
    simd.sum(simd.add(simd.add(acc[0], acc[1]), simd.add(acc[2], acc[3])))
}
