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
        /// For [`super::gemm_i8`]: what belongs to a group is kept by groups, too.
        tiles: bool,
        /// 1, or 2: each token has a second row with what the rounding of the first left, `x ≈ scale₀ · q₀ + scale₁ · q₁`.
        passes: usize,
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

/// Prepared activations; keep one and [`Prepared::update`] it, its buffers are reused. Its rows are the tokens', with two passes
/// two for each token.
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
    by_group: ByGroup,
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
            by_group: ByGroup::default(),
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
        let Form::Int8 {
            group,
            zero,
            quads,
            tiles,
            passes,
        } = self.form
        else {
            return;
        };
        if args.k == 0 {
            return;
        }
        self.stride = args.k.next_multiple_of(CHUNK);
        self.groups = self.stride / group;
        let (stride, groups) = (self.stride, self.groups);
        let total = args.t * passes;
        let q = SharedOut::new(self.q.resize(total * stride));
        let scale = SharedOut::new(self.scale.resize(total * groups));
        let sum = SharedOut::new(self.sum.resize(total * groups));
        let begin = SharedOut::new(self.begin.resize(total * groups));
        let by_group = &mut self.by_group;
        by_group.rows = total;
        let size = if tiles { total * groups } else { 0 };
        let scales = SharedOut::new(by_group.scale.resize::<f32>(size));
        let sums = SharedOut::new(by_group.sum.resize::<f32>(size));
        let begins = SharedOut::new(by_group.begin.resize::<i32>(size));
        pool.run(args.t.div_ceil(TOKENS), |task| {
            let first = task * TOKENS;
            let tokens = TOKENS.min(args.t - first);
            let (row, rows) = (first * passes, tokens * passes);
            // SAFETY: these tokens' rows are this task's alone.
            let (q, scale, sum, begin) = unsafe {
                (
                    q.range(row * stride, rows * stride),
                    scale.range(row * groups, rows * groups),
                    sum.range(row * groups, rows * groups),
                    begin.range(row * groups, rows * groups),
                )
            };
            let x = &args.x[first * args.k..][..tokens * args.k];
            simd::dispatch(
                args.isa,
                Quantize {
                    x,
                    k: args.k,
                    group,
                    passes,
                    stride,
                    q,
                    scale,
                    sum,
                    begin,
                    zero,
                },
            );
            for g in 0..if tiles { groups } else { 0 } {
                // SAFETY: of each group these rows' entries are this task's alone.
                let (scales, sums, begins) = unsafe {
                    let at = g * total + row;
                    (
                        scales.range(at, rows),
                        sums.range(at, rows),
                        begins.range(at, rows),
                    )
                };
                for r in 0..rows {
                    let at = r * groups + g;
                    (scales[r], begins[r]) = (scale[at], begin[at]);
                    sums[r] = (at..)
                        .step_by(groups)
                        .take(passes - r % passes)
                        .map(|i| sum[i])
                        .sum();
                }
            }
        });
        #[cfg(target_arch = "x86_64")]
        if quads {
            let q = &self.q.get()[..total * stride];
            let scale = &self.scale.get()[..total * groups];
            let sum = &self.sum.get()[..total * groups];
            let begin = &self.begin.get()[..total * groups];
            self.quads.update(total, args.k, q, scale, sum, begin);
        }
    }

    /// The integers of row `t`: [`Prepared::stride`] of them.
    #[inline(always)]
    pub(super) fn q(&self, t: usize) -> &[i8] {
        &self.q.get()[t * self.stride..][..self.stride]
    }

    /// The scale of each group of row `t`.
    #[inline(always)]
    pub(super) fn scale(&self, t: usize) -> &[f32] {
        &self.scale.get()[t * self.groups..][..self.groups]
    }

    /// Scale, sum and begin (as [`Prepared::sum`], and -ZERO · Σ q) of group `g` of each row, in the order of the rows. With two
    /// passes the first row of a token has the sum of both.
    #[inline(always)]
    pub(super) fn of_group(&self, g: usize) -> (&[f32], &[f32], &[i32]) {
        let by = &self.by_group;
        let at = g * by.rows..(g + 1) * by.rows;
        let (scale, sum, begin) = (
            by.scale.get::<f32>(),
            by.sum.get::<f32>(),
            by.begin.get::<i32>(),
        );
        (&scale[at.clone()], &sum[at.clone()], &begin[at])
    }

    /// Of each group of row `t`: what the weights' minimum is multiplied with, scale · Σ q; for formats with a zero point what
    /// their scale is, scale · -ZERO · Σ q.
    #[inline(always)]
    pub(super) fn sum(&self, t: usize) -> &[f32] {
        &self.sum.get()[t * self.groups..][..self.groups]
    }
}

/// What belongs to the groups, by groups: entry `g · rows + t`.
#[derive(Default)]
struct ByGroup {
    rows: usize,
    scale: Buffer,
    /// Of a token with two rows the first one has both rows' sum.
    sum: Buffer,
    begin: Buffer,
}

struct Quantize<'a> {
    zero: i32,
    x: &'a [f32],
    k: usize,
    group: usize,
    passes: usize,
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
        let mut rest = vec![0f32; if self.passes > 1 { self.k } else { 0 }];
        for (t, x) in self.x.chunks_exact(self.k).enumerate() {
            for pass in 0..self.passes {
                let row = t * self.passes + pass;
                let mut out = Row {
                    q: &mut self.q[row * self.stride..][..self.stride],
                    scale: &mut self.scale[row * per_row..][..per_row],
                    sum: &mut self.sum[row * per_row..][..per_row],
                    begin: &mut self.begin[row * per_row..][..per_row],
                };
                if pass > 0 {
                    out.round(simd, &rest, self.group, self.zero);
                    continue;
                }
                out.round(simd, x, self.group, self.zero);
                if self.passes > 1 {
                    out.rest(x, self.group, &mut rest);
                }
            }
        }
    }
}

/// A row of the prepared activations.
struct Row<'a> {
    q: &'a mut [i8],
    scale: &'a mut [f32],
    sum: &'a mut [f32],
    begin: &'a mut [i32],
}

impl Row<'_> {
    /// Rounds `x`, whole blocks of 32.
    #[inline(always)]
    fn round<S: Simd>(&mut self, simd: S, x: &[f32], group: usize, zero: i32) {
        let per_block = 32 / group;
        let groups = x.len() / group;
        self.q[x.len()..].fill(0);
        self.scale[groups..].fill(0.0);
        self.sum[groups..].fill(0.0);
        self.begin[groups..].fill(0);
        let blocks = x.as_chunks::<32>().0.iter();
        let blocks = blocks.zip(self.q.as_chunks_mut::<32>().0);
        let scales = self.scale.chunks_exact_mut(per_block);
        let groups = scales.zip(self.sum.chunks_exact_mut(per_block));
        let groups = groups.zip(self.begin.chunks_exact_mut(per_block));
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
                *begin = zero.wrapping_neg().wrapping_mul(whole);
                let factor = if zero == 0 { whole } else { *begin };
                *sum = d * factor as f32;
            }
        }
    }

    /// What rounding `x` to this row left.
    #[inline(always)]
    fn rest(&self, x: &[f32], group: usize, rest: &mut [f32]) {
        let blocks = x.as_chunks::<32>().0.iter();
        let blocks = blocks.zip(self.q.as_chunks::<32>().0);
        let scales = self.scale.iter().step_by(32 / group);
        let blocks = blocks.zip(scales).zip(rest.as_chunks_mut::<32>().0);
        for (((x, q), &scale), rest) in blocks {
            for ((x, q), rest) in x.iter().zip(q).zip(rest) {
                *rest = x - scale * f32::from(*q);
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
