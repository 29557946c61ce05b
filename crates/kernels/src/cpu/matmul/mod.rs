//! The linear layer on the CPU: `y[T,N] = x[T,K] · W[N,K]ᵀ`, weights in any format, dequantised inside.
//!
//! | operand | shape | type |
//! |---|---|---|
//! | `weight` | `[N,K]` row-major | the raw bytes of a GGUF or safetensors tensor: f32, f16, bf16 or a block format; K is whole blocks |
//! | `x` | `[T,K]` row-major | f32 |
//! | `y` | `[T,N]` row-major | f32 |
//!
//! Four ways, chosen by T, weight type and instruction set:
//!
//! | | few tokens | many tokens |
//! |---|---|---|
//! | f32 activations (`exact`, or float weights) | [`vec`]: a row is dequantised once and multiplied with each token | [`gemm_f32`]: a panel of rows is dequantised and packed, then a register-blocked product |
//! | 8-bit activations (block formats) | [`vec`]: integer dot products per group of 16 or 32 | `gemm_i8` with AVX-512 VNNI, elsewhere as f32 |
//! | twice 8 bits (block formats) | the same, with what the first rounding left rounded and multiplied too | the same with AVX-512 VNNI, elsewhere as f32 |
//!
//! **Error of 8-bit activations.** `x` is rounded in blocks of 32 to 1/127 of the block's largest magnitude: at most 0.4 % of
//! that magnitude per element, for normally distributed activations about 0.5 % of the norm of `y` in the mean (measured by the
//! tests, which hold it under 1 %). llama.cpp rounds in the same way. [`Rounding::Twice`] rounds the rest again, so that about 15
//! bits are kept (an error 250 times smaller): the weights are unpacked once for both, which costs little beside reading them.
//!
//! **Rows are independent.** A row's arithmetic does not depend on which range it is computed in, so any split among any
//! number of threads gives identical bits.
//!
//! One of the crate's listed `unsafe` modules: vector instructions ([`simd`]) and disjoint writes of several threads to one
//! output ([`SharedOut`], [`Columns`]).
#![allow(unsafe_code)]
// An index names the same register in several arrays; iterators over each would hide that.
#![allow(clippy::needless_range_loop)]

#[cfg(test)]
mod bench;
mod gemm_f32;
mod gemm_i8;
mod isa;
mod prepare;
pub(crate) mod share;
pub(crate) mod simd;
#[cfg(test)]
mod tests;
mod unpack;
mod vec;
#[cfg(target_arch = "x86_64")]
mod vec_vnni;

pub use isa::{Isa, Level};
pub use share::Offer;

use crate::cpu::{SharedOut, ThreadPool};
use crate::tune::{On, Tunable};
use firelight_tensor::DType;
use prepare::{Form, Prepared};
use std::marker::PhantomData;
use std::ops::Range;
use unpack::Format;

/// `$body` with `$format` the format type of `$dtype`, or `$other` for types that are not block formats.
macro_rules! with_format {
    ($dtype:expr, $format:ident => $body:expr, $other:expr) => {
        with_format!(@ $dtype, $format, $body, $other;
            Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2K Q3K Q4K Q5K Q6K)
    };
    (@ $dtype:expr, $format:ident, $body:expr, $other:expr; $($name:ident)*) => {
        match $dtype {
            $(DType::$name => {
                type $format = unpack::$name;
                $body
            })*
            _ => $other,
        }
    };
}

/// The operands of a product.
#[derive(Clone, Copy)]
pub struct MatmulArgs<'a> {
    /// Type of the weights: a float or a block format.
    pub dtype: DType,
    /// `[n, k]` row-major, `n · k / block_len · block_bytes` bytes.
    pub weight: &'a [u8],
    /// Outputs.
    pub n: usize,
    /// Inputs; a multiple of the type's block length.
    pub k: usize,
    /// `[t, k]`.
    pub x: &'a [f32],
    /// Tokens.
    pub t: usize,
    /// What may be done to the activations.
    pub rounding: Rounding,
    /// The instructions to use.
    pub isa: Isa,
    /// Multiply-adds that are worth a task.
    pub task_work: usize,
    /// Who else has rows of the weight.
    pub share: Option<Offer<'a>>,
}

/// How activations meet block-quantised weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// As they are, in f32.
    Never,
    /// As the sum of two 8-bit numbers, about 15 bits; with many tokens in f32 where that is faster.
    Twice,
    /// As 8-bit numbers where that is faster.
    Once,
}

impl<'a> MatmulArgs<'a> {
    /// The form in which these operands' activations are prepared.
    fn form(&self) -> Form {
        let passes = match self.rounding {
            Rounding::Twice if !self.many() || self.fast_bytes() => 2,
            Rounding::Once if !self.many() || self.int8_panels() => 1,
            _ => return Form::Float,
        };
        with_format!(
            self.dtype,
            F => Form::Int8 { group: F::GROUP, zero: F::ZERO, quads: F::BLOCK == 32 && self.quads(), tiles: self.many(), passes },
            Form::Float
        )
    }

    /// The integer matrix product is faster than the f32 one. Without VNNI products of 8-bit quants do not fit on x86-64.
    fn int8_panels(&self) -> bool {
        match self.isa.level() {
            Level::Avx512Vnni | Level::NeonDot => true,
            Level::Avx2 | Level::Avx512 => self.dtype != DType::Q8_0,
            Level::Simd128 => cfg!(target_feature = "relaxed-simd") && self.dtype != DType::Q8_0,
            _ => false,
        }
    }

    /// Two integer products take less time than one in f32.
    fn fast_bytes(&self) -> bool {
        matches!(self.isa.level(), Level::Avx512Vnni)
    }

    /// [`vec_vnni`] serves formats with blocks of 32.
    fn quads(&self) -> bool {
        !self.many() && matches!(self.isa.level(), Level::Avx512Vnni)
    }

    /// Rows that a task should have a multiple of, so that no work is done twice at its borders.
    fn row_granularity(&self) -> usize {
        if self.many() { simd::PANEL } else { 8 }
    }

    /// A good number of tasks of so many rows for `threads` threads: enough to even out, none too small to be worth handing over.
    fn tasks(&self, rows: usize, threads: usize) -> usize {
        let work = rows.saturating_mul(self.k).saturating_mul(self.t);
        let by_work = (work / self.task_work.max(1)).clamp(1, 4 * threads);
        if threads == 1 {
            1
        } else {
            by_work.min(rows.div_ceil(self.row_granularity())).max(1)
        }
    }

    /// Enough tokens for the matrix forms.
    fn many(&self) -> bool {
        self.t >= MANY
    }

    /// Bytes of a row.
    fn row_bytes(&self) -> usize {
        self.k / self.dtype.block_len() * self.dtype.block_bytes()
    }

    /// The weights of a row.
    #[inline(always)]
    fn row(&self, row: usize) -> &'a [u8] {
        let bytes = self.row_bytes();
        &self.weight[row * bytes..][..bytes]
    }

    /// The activations of a token.
    #[inline(always)]
    fn token(&self, t: usize) -> &'a [f32] {
        &self.x[t * self.k..][..self.k]
    }

    fn validate(&self) {
        let Self { dtype, n, k, t, .. } = *self;
        assert!(
            dtype.is_quantized() || dtype.is_float(),
            "matmul: {dtype} weights have no product"
        );
        assert!(
            k % dtype.block_len() == 0,
            "matmul: k = {k} is not whole blocks of {dtype}"
        );
        assert_eq!(
            self.weight.len(),
            n * self.row_bytes(),
            "matmul: bytes of [{n}, {k}] {dtype}"
        );
        assert_eq!(self.x.len(), t * k, "matmul: elements of x [{t}, {k}]");
    }
}

/// About 10 µs of work by default.
pub(crate) static TASK_WORK: Tunable = Tunable {
    name: "matmul.task_work",
    what: "multiply-adds below which a task costs more to hand to a thread than to do",
    on: On::Threads,
    operand: 1,
    default: 1 << 16,
    choices: &[1 << 13, 1 << 15, 1 << 16, 1 << 17, 1 << 19],
};

/// Tokens from which packing a panel of weights pays.
const MANY: usize = 8;

/// Buffers that products reuse: keep one per thread of callers.
#[derive(Default)]
pub struct Scratch {
    prepared: Prepared,
    /// A second result, for kernels that go on with two.
    pub(crate) second: Vec<f32>,
}

/// `y = x · Wᵀ`, rows split over the pool: output `row` of `token` goes to `y[token · ldy + col0 + row]`.
///
/// # Panics
/// If the lengths do not fit the shapes; callers check shapes when they plan.
pub fn run(
    pool: &ThreadPool,
    args: &MatmulArgs<'_>,
    scratch: &mut Scratch,
    y: &mut [f32],
    ldy: usize,
    col0: usize,
) {
    assert!(
        args.t < 2 || col0 + args.n <= ldy,
        "matmul: {} columns in rows of {ldy}",
        args.n
    );
    let out = Columns {
        y: SharedOut::new(y),
        stride: ldy,
        first: col0,
    };
    products(pool, std::slice::from_ref(args), scratch, &[out]);
}

/// Products of the same activations, `outs[i] = x · Wᵢᵀ` with `nᵢ` columns: in one job where all weights meet the activations in the same
/// form, else one after the other.
///
/// # Panics
/// If the lengths do not fit the shapes; callers check shapes when they plan.
pub fn run_all(
    pool: &ThreadPool,
    all: &[MatmulArgs<'_>],
    scratch: &mut Scratch,
    outs: &mut [&mut [f32]],
) {
    let Some(first) = all.first() else {
        return;
    };
    if all.iter().any(|args| args.form() != first.form()) {
        for (args, y) in all.iter().zip(outs) {
            run(pool, args, scratch, y, args.n, 0);
        }
        return;
    }
    let columns = |(args, y): (&MatmulArgs<'_>, _)| Columns {
        y: SharedOut::new(y),
        stride: args.n,
        first: 0,
    };
    let outs: Vec<_> = all
        .iter()
        .zip(outs.iter_mut().map(|y| &mut **y))
        .map(columns)
        .collect();
    products(pool, all, scratch, &outs);
}

/// Products of the same activations in the same form, helpers taking part where they have rows of the weights.
fn products(
    pool: &ThreadPool,
    all: &[MatmulArgs<'_>],
    scratch: &mut Scratch,
    outs: &[Columns<'_>],
) {
    let Some(first) = all.first() else { return };
    for args in all {
        args.validate();
        assert!(
            args.t == first.t && args.k == first.k,
            "matmul: products of other activations"
        );
    }
    let job = share::begin(all);
    let prepared = &mut scratch.prepared;
    prepared.update(pool, first);
    let own: Vec<_> = match &job {
        Some(job) => (0..all.len()).map(|i| job.own(i)).collect(),
        None => all.iter().map(|args| 0..args.n).collect(),
    };
    parts(pool, all, prepared, outs, &own);
    let Some(job) = job else { return };
    let proven = job.proven();
    let came = job.finish(|i, token, row, values| {
        // SAFETY: nobody else is at work on these products any more; they are borrowed mutably by the caller.
        let y = unsafe { outs[i].range(token, row, values.len()) };
        if !proven {
            let pairs = || y.iter().zip(values);
            return pairs().all(|(a, b)| a.to_bits() == b.to_bits());
        }
        y.copy_from_slice(values);
        true
    });
    if !came {
        let rest: Vec<_> = all.iter().zip(&own).map(|(a, own)| own.end..a.n).collect();
        parts(pool, all, prepared, outs, &rest);
    }
}

/// The given rows of products, divided among the threads.
fn parts(
    pool: &ThreadPool,
    all: &[MatmulArgs<'_>],
    prepared: &Prepared,
    outs: &[Columns<'_>],
    ranges: &[Range<usize>],
) {
    let mut jobs = Vec::with_capacity(all.len());
    let mut tasks = 0;
    for ((args, out), range) in all.iter().zip(outs).zip(ranges) {
        if range.is_empty() {
            continue;
        }
        let own = args.tasks(range.len(), pool.threads());
        jobs.push((args, out, range, tasks..tasks + own));
        tasks += own;
    }
    pool.run(tasks, |task| {
        let Some((args, out, range, own)) = jobs.iter().find(|(.., own)| own.contains(&task))
        else {
            return;
        };
        let granule = args.row_granularity();
        let granules = range.len().div_ceil(granule);
        let border = |i: usize| (range.start + granules * i / own.len() * granule).min(range.end);
        let i = task - own.start;
        // SAFETY: the borders do not decrease, so the tasks' ranges are disjoint; each product has its own output, which the caller
        // has for itself.
        unsafe { rows(args, prepared, border(i)..border(i + 1), out) };
    });
}

/// Computes `rows` of the outputs, for all tokens.
///
/// # Safety
/// While this runs no other call computes any of the same rows of the same `out`.
unsafe fn rows(args: &MatmulArgs<'_>, prepared: &Prepared, rows: Range<usize>, out: &Columns<'_>) {
    if args.k == 0 {
        for t in 0..args.t {
            // SAFETY: the caller's promise.
            unsafe { out.range(t, rows.start, rows.len()) }.fill(0.0);
        }
        return;
    }
    with_format!(args.dtype, F => quantized::<F>(args, prepared, rows, out), match args.dtype {
        DType::F16 => float::<gemm_f32::Half>(args, rows, out),
        DType::BF16 => float::<gemm_f32::BHalf>(args, rows, out),
        _ => float::<gemm_f32::Single>(args, rows, out),
    })
}

fn quantized<F: Format>(
    args: &MatmulArgs<'_>,
    prepared: &Prepared,
    rows: Range<usize>,
    out: &Columns<'_>,
) {
    let format = PhantomData::<F>;
    match prepared.form() {
        Form::Int8 { passes, .. } if args.many() => {
            simd::dispatch(
                args.isa,
                gemm_i8::Panels {
                    args,
                    prepared,
                    passes,
                    rows,
                    out,
                    format,
                },
            );
        }
        #[cfg(target_arch = "x86_64")]
        Form::Int8 {
            quads: true,
            passes,
            ..
        } => match args.dtype {
            DType::Q4_0 => quads::<unpack::Q4_0>(args, prepared, passes, rows, out),
            DType::Q4_1 => quads::<unpack::Q4_1>(args, prepared, passes, rows, out),
            DType::Q5_0 => quads::<unpack::Q5_0>(args, prepared, passes, rows, out),
            DType::Q5_1 => quads::<unpack::Q5_1>(args, prepared, passes, rows, out),
            _ => quads::<unpack::Q8_0>(args, prepared, passes, rows, out),
        },
        Form::Int8 { passes, .. } => {
            simd::dispatch(
                args.isa,
                vec::Int8Rows {
                    args,
                    prepared,
                    passes,
                    rows,
                    out,
                    format,
                },
            );
        }
        Form::Float if args.many() => {
            let source = PhantomData::<gemm_f32::Quantized<F>>;
            simd::dispatch(
                args.isa,
                gemm_f32::Panels {
                    args,
                    rows,
                    out,
                    source,
                },
            );
        }
        Form::Float => simd::dispatch(
            args.isa,
            vec::ExactRows {
                args,
                rows,
                out,
                format,
            },
        ),
    }
}

#[cfg(target_arch = "x86_64")]
fn quads<F: vec_vnni::Quad>(
    args: &MatmulArgs<'_>,
    prepared: &Prepared,
    passes: usize,
    rows: Range<usize>,
    out: &Columns<'_>,
) {
    assert!(args.quads(), "matmul: {} has no quads", args.isa);
    // SAFETY: an `Isa` of the level exists only if the CPU has its instructions; `rows`'s caller gave these rows to this call
    // alone; the form is that of quads.
    unsafe {
        match passes {
            1 => vec_vnni::rows::<F, 1>(args, prepared, rows, out),
            _ => vec_vnni::rows::<F, 2>(args, prepared, rows, out),
        }
    }
}

fn float<W: gemm_f32::Source>(args: &MatmulArgs<'_>, rows: Range<usize>, out: &Columns<'_>) {
    if args.many() {
        let source = PhantomData::<W>;
        simd::dispatch(
            args.isa,
            gemm_f32::Panels {
                args,
                rows,
                out,
                source,
            },
        );
    } else {
        simd::dispatch(args.isa, vec::FloatRows { args, rows, out });
    }
}

/// The columns of a larger row-major output that the product's rows go to; several threads write, each its own columns.
struct Columns<'a> {
    y: SharedOut<'a, f32>,
    stride: usize,
    first: usize,
}

impl Columns<'_> {
    /// Outputs `row .. row + len` of `token`.
    ///
    /// # Safety
    /// While the slice lives nobody else asks for any of these rows.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    unsafe fn range(&self, token: usize, row: usize, len: usize) -> &mut [f32] {
        // SAFETY: different tokens or rows are different elements (a row of the output holds all columns), and nobody else
        // has these by the caller's promise.
        unsafe { self.y.range(token * self.stride + self.first + row, len) }
    }

    /// Where outputs `row .. row + len` of `tokens` tokens from `token` on are (asserted to be there), and how many elements lie from
    /// one token to the next.
    #[inline(always)]
    fn block(&self, token: usize, tokens: usize, row: usize, len: usize) -> (*mut f32, usize) {
        let begin = token * self.stride + self.first + row;
        let y = self.y.pointer(begin, (tokens - 1) * self.stride + len);
        (y, self.stride)
    }

    /// `y[token, row] = value`.
    ///
    /// # Safety
    /// Nobody else uses this row meanwhile.
    #[inline(always)]
    unsafe fn write(&self, token: usize, row: usize, value: f32) {
        // SAFETY: the caller's promise; the slice is gone before the next call.
        unsafe { self.range(token, row, 1) }.fill(value);
    }

    /// Writes `values` to `y[token, row..]`, or adds them.
    ///
    /// # Safety
    /// Nobody else uses these rows meanwhile.
    #[inline(always)]
    unsafe fn put(&self, token: usize, row: usize, values: &[f32], add: bool) {
        // SAFETY: the caller's promise; the slice is gone before the next call.
        let y = unsafe { self.range(token, row, values.len()) };
        if add {
            for (y, value) in y.iter_mut().zip(values) {
                *y += value;
            }
        } else {
            y.copy_from_slice(values);
        }
    }
}
