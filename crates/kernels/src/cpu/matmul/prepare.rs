//! Activations in the form that the weights' kernel multiplies with, made once per product and shared by all its rows.

use super::simd::{Kernel, Simd};
use super::unpack::CHUNK;
use super::{MatmulArgs, simd};
use crate::cpu::{SharedOut, ThreadPool};

/// What a product does with its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// They are used as they are.
    Float,
    /// Rounded to 8-bit integers, one scale per 32 elements: `x ≈ scale · q`, with the sums over groups of `group` elements
    /// that minima and zero points of the weights are multiplied with.
    Int8 {
        /// Elements per group, 16 or 32: that of the weight format.
        group: usize,
        /// The weight format's zero point.
        zero: i32,
        /// In the order of `vec_vnni::Quads`.
        quads: bool,
    },
}

/// Tokens prepared by one task.
const TOKENS: usize = 16;

/// One cache line: what the buffers are aligned to.
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

/// A growing buffer of plain numbers, aligned to cache lines.
#[derive(Default)]
pub(super) struct Buffer(Vec<Line>);

impl Buffer {
    /// Room for `len` numbers; the contents are unspecified (old numbers or 0).
    pub(super) fn resize<T: bytemuck::Pod>(&mut self, len: usize) -> &mut [T] {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        if self.0.len() < lines {
            self.0.resize(lines, bytemuck::Zeroable::zeroed());
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }

    /// The numbers.
    pub(super) fn get<T: bytemuck::Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Prepared activations; keep one and [`Prepared::update`] it, its buffers are reused.
pub(super) struct Prepared {
    form: Form,
    /// Elements of a row, a multiple of [`CHUNK`]; those beyond K are 0.
    stride: usize,
    /// Groups of a row.
    pub(super) groups: usize,
    q: Buffer,
    scale: Buffer,
    sum: Buffer,
    begin: Buffer,
    #[cfg(target_arch = "x86_64")]
    pub(super) quads: super::vec_vnni::Quads,
}

impl Default for Prepared {
    fn default() -> Self {
        Prepared {
            form: Form::Float,
            stride: 0,
            groups: 0,
            q: Buffer::default(),
            scale: Buffer::default(),
            sum: Buffer::default(),
            begin: Buffer::default(),
            #[cfg(target_arch = "x86_64")]
            quads: Default::default(),
        }
    }
}

impl Prepared {
    /// The form these activations are in.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Prepares the activations of `args`.
    pub(super) fn update(&mut self, pool: &ThreadPool, args: &MatmulArgs<'_>) {
        self.form = args.form();
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
        let Form::Int8 { group, zero, quads } = self.form else {
            return;
        };
        if args.k == 0 {
            return;
        }
        self.stride = args.k.next_multiple_of(CHUNK);
        self.groups = self.stride / group;
        let (stride, groups) = (self.stride, self.groups);
        let q = SharedOut::new(self.q.resize(args.t * stride));
        let scale = SharedOut::new(self.scale.resize(args.t * groups));
        let sum = SharedOut::new(self.sum.resize(args.t * groups));
        let begin = SharedOut::new(self.begin.resize(args.t * groups));
        pool.run(args.t.div_ceil(TOKENS), |task| {
            let first = task * TOKENS;
            let tokens = TOKENS.min(args.t - first);
            // SAFETY: these tokens' rows are this task's alone.
            let (q, scale, sum, begin) = unsafe {
                (
                    q.range(first * stride, tokens * stride),
                    scale.range(first * groups, tokens * groups),
                    sum.range(first * groups, tokens * groups),
                    begin.range(first * groups, tokens * groups),
                )
            };
            let x = &args.x[first * args.k..][..tokens * args.k];
            simd::dispatch(
                args.isa,
                Quantize {
                    x,
                    k: args.k,
                    group,
                    stride,
                    q,
                    scale,
                    sum,
                    begin,
                    zero,
                },
            );
        });
        #[cfg(target_arch = "x86_64")]
        if quads {
            let q = &self.q.get()[..args.t * stride];
            let scale = &self.scale.get()[..args.t * groups];
            let sum = &self.sum.get()[..args.t * groups];
            let begin = &self.begin.get()[..args.t * groups];
            self.quads.update(args.t, args.k, q, scale, sum, begin);
        }
    }

    /// The integers of token `t`: [`Prepared::stride`] of them.
    #[inline(always)]
    pub(super) fn q(&self, t: usize) -> &[i8] {
        &self.q.get()[t * self.stride..][..self.stride]
    }

    /// The scale of each group of token `t`.
    #[inline(always)]
    pub(super) fn scale(&self, t: usize) -> &[f32] {
        &self.scale.get()[t * self.groups..][..self.groups]
    }

    /// Of each group of token `t`: what the weights' minimum is multiplied with, scale · Σ q; for formats with a zero point what
    /// their scale is, scale · -ZERO · Σ q.
    #[inline(always)]
    pub(super) fn sum(&self, t: usize) -> &[f32] {
        &self.sum.get()[t * self.groups..][..self.groups]
    }

    /// Of each group of token `t`: -ZERO · Σ q.
    #[inline(always)]
    pub(super) fn begin(&self, t: usize) -> &[i32] {
        &self.begin.get()[t * self.groups..][..self.groups]
    }
}

struct Quantize<'a> {
    zero: i32,
    x: &'a [f32],
    k: usize,
    group: usize,
    stride: usize,
    q: &'a mut [i8],
    scale: &'a mut [f32],
    sum: &'a mut [f32],
    begin: &'a mut [i32],
}

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let per_row = self.stride / self.group;
        let per_block = 32 / self.group;
        for (t, x) in self.x.chunks_exact(self.k).enumerate() {
            let q = &mut self.q[t * self.stride..][..self.stride];
            let scale = &mut self.scale[t * per_row..][..per_row];
            let sum = &mut self.sum[t * per_row..][..per_row];
            let begin = &mut self.begin[t * per_row..][..per_row];
            q[self.k..].fill(0);
            let groups = self.k / self.group;
            scale[groups..].fill(0.0);
            sum[groups..].fill(0.0);
            begin[groups..].fill(0);
            let blocks = x.as_chunks::<32>().0.iter().zip(q.as_chunks_mut::<32>().0);
            let groups = scale
                .chunks_exact_mut(per_block)
                .zip(sum.chunks_exact_mut(per_block));
            let groups = groups.zip(begin.chunks_exact_mut(per_block));
            for ((x, q), ((scale, sum), begin)) in blocks.zip(groups) {
                let (d, sums) = simd.quantize(x, q);
                scale.fill(d);
                let sums = if per_block == 1 {
                    [sums[0].wrapping_add(sums[1]), 0]
                } else {
                    sums
                };
                for ((sum, begin), whole) in sum.iter_mut().zip(begin).zip(sums) {
                    // Of a block with a NaN the sums mean nothing, and need only not stop the program: its scale is NaN.
                    *begin = self.zero.wrapping_neg().wrapping_mul(whole);
                    let factor = if self.zero == 0 { whole } else { *begin };
                    *sum = d * factor as f32;
                }
            }
        }
    }
}

/// [`Simd::quantize`] in plain loops.
#[inline(always)]
pub(super) fn block(x: &[f32; 32], q: &mut [i8; 32]) -> (f32, [i32; 2]) {
    // Adding and subtracting this rounds to the nearest integer in any CPU's plain addition.
    const ROUND: f32 = 12_582_912.0;
    let mut largest = [0f32; 16];
    let mut poison = [0f32; 16];
    for half in x.as_chunks::<16>().0 {
        for ((x, largest), poison) in half.iter().zip(&mut largest).zip(&mut poison) {
            *largest = if x.abs() > *largest {
                x.abs()
            } else {
                *largest
            };
            *poison += x * 0.0;
        }
    }
    let largest = fold(largest, |a, b| if a > b { a } else { b });
    let poison = fold(poison, |a, b| a + b);
    let (scale, inverse) = scale_and_inverse(largest);
    let mut sums = [0i32; 2];
    for ((x, q), sum) in x
        .as_chunks::<16>()
        .0
        .iter()
        .zip(q.as_chunks_mut::<16>().0)
        .zip(&mut sums)
    {
        for (x, q) in x.iter().zip(q) {
            let rounded = (x * inverse + ROUND)
                .to_bits()
                .wrapping_sub(ROUND.to_bits()) as i32;
            *q = rounded as i8;
            *sum = sum.wrapping_add(rounded);
        }
    }
    (scale + poison, sums)
}

/// The scale that brings `largest` to 127, and its inverse.
#[inline(always)]
pub(super) fn scale_and_inverse(largest: f32) -> (f32, f32) {
    // Below this the inverse overflows; such a block is 0 in the result of any product.
    if largest > 1e-30 {
        (largest / 127.0, 127.0 / largest)
    } else {
        (0.0, 0.0)
    }
}

#[inline(always)]
fn fold(mut v: [f32; 16], f: impl Fn(f32, f32) -> f32) -> f32 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            v[i] = f(v[i], v[i + width]);
        }
    }
    v[0]
}
