//! Few tokens: each weight row is streamed once and multiplied with every token while it is in the first cache.

use super::prepare::Prepared;
use super::simd::{Kernel, Simd};
use super::unpack::{CHUNK, Chunk, Format, GROUPS};
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
                self.tokens(simd, row, 0, 1, &mut chunk);
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
    #[inline(always)]
    fn tokens<S: Simd>(&self, simd: S, row: usize, first: usize, n: usize, chunk: &mut Chunk) {
        let mut acc = [[0f32; GROUPS]; TOKENS];
        for (i, bytes) in self.args.row(row).chunks(F::CHUNK_BYTES).enumerate() {
            if bytes.len() == F::CHUNK_BYTES {
                F::unpack(simd, bytes, chunk);
            } else {
                F::unpack_rest(simd, bytes, chunk);
            }
            for (t, acc) in acc.iter_mut().enumerate().take(n) {
                let p = self.prepared;
                let (Some(x), Some(scale), Some(sum)) = (
                    p.q(first + t)[i * CHUNK..].first_chunk::<CHUNK>(),
                    p.scale(first + t)
                        .get(i * CHUNK / F::GROUP..(i + 1) * CHUNK / F::GROUP),
                    p.sum(first + t)
                        .get(i * CHUNK / F::GROUP..(i + 1) * CHUNK / F::GROUP),
                ) else {
                    return;
                };
                let dots = if F::WIDE {
                    wide_or_not::<S, F, true>(simd, &chunk.q, x)
                } else {
                    wide_or_not::<S, F, false>(simd, &chunk.q, x)
                };
                for g in 0..CHUNK / F::GROUP {
                    acc[g] += dots[g] as f32 * (chunk.scale[g] * scale[g]) + chunk.min[g] * sum[g];
                }
            }
        }
        for (t, acc) in acc.iter().enumerate().take(n) {
            // SAFETY: `rows`'s caller gave these rows to this call alone.
            unsafe { self.out.write(first + t, row, pairwise(*acc)) };
        }
    }
}

#[inline(always)]
fn wide_or_not<S: Simd, F: Format, const WIDE: bool>(
    simd: S,
    q: &[u8; CHUNK],
    x: &[i8; CHUNK],
) -> [i32; GROUPS] {
    if F::GROUP == 32 {
        simd.group_dots::<32, WIDE>(q, x)
    } else {
        simd.group_dots::<16, WIDE>(q, x)
    }
}

#[inline(always)]
fn pairwise(mut v: [f32; GROUPS]) -> f32 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            v[i] += v[i + width];
        }
    }
    v[0]
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
        let mut weights = [0f32; CHUNK];
        for row in self.rows.clone() {
            for first in (0..self.args.t).step_by(TOKENS) {
                let tokens = TOKENS.min(self.args.t - first);
                let mut acc = [[simd.splat(0.0); 2]; TOKENS];
                for (i, bytes) in self.args.row(row).chunks(F::CHUNK_BYTES).enumerate() {
                    dequantize::<S, F>(simd, bytes, &mut chunk, &mut weights);
                    for (t, acc) in acc.iter_mut().enumerate().take(tokens) {
                        let x = &self.args.token(first + t)[i * CHUNK..];
                        let len = x.len().min(CHUNK);
                        let pairs = weights[..len].chunks_exact(2 * S::LANES);
                        for (w, x) in pairs.zip(x[..len].chunks_exact(2 * S::LANES)) {
                            for (half, acc) in acc.iter_mut().enumerate() {
                                let at = half * S::LANES;
                                // SAFETY: both slices have 2 · LANES elements.
                                let (w, x) = unsafe {
                                    (simd.load(w.as_ptr().add(at)), simd.load(x.as_ptr().add(at)))
                                };
                                *acc = simd.mul_add(w, x, *acc);
                            }
                        }
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

/// The weights of a chunk as f32.
#[inline(always)]
pub(super) fn dequantize<S: Simd, F: Format>(
    simd: S,
    bytes: &[u8],
    chunk: &mut Chunk,
    weights: &mut [f32; CHUNK],
) {
    if bytes.len() == F::CHUNK_BYTES {
        F::unpack(simd, bytes, chunk);
    } else {
        F::unpack_rest(simd, bytes, chunk);
    }
    let groups = weights
        .chunks_exact_mut(F::GROUP)
        .zip(chunk.q.chunks_exact(F::GROUP));
    for ((w, q), (scale, min)) in groups.zip(chunk.scale.iter().zip(&chunk.min)) {
        for (w, q) in w.iter_mut().zip(q) {
            *w = if F::HAS_MIN {
                let u = f32::from(*q);
                if S::FMA {
                    u.mul_add(*scale, *min)
                } else {
                    u * scale + min
                }
            } else {
                (i32::from(*q) - F::ZERO) as f32 * scale
            };
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
