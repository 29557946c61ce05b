//! Sums and elementwise functions that the CPU kernels share, at the instruction set level they are given.
//!
//! Each function is one generic body: the operations of `matmul::simd` for sums (so that their order is fixed per level),
//! plain loops, compiled per level and vectorised by the compiler (in WebAssembly vectors of four), for the elementwise ones. NaN in gives NaN out, except for
//! [`max_f32`], which ignores it.
//!
//! `exp` follows Cephes' `expf` (range reduction by ln 2 in two parts, polynomial of degree 6): relative error at most 1e-6
//! where the result is a normal number.
//!
//! One of the crate's listed `unsafe` modules: vector loads and stores inside bounds that the code around them states.
#![allow(unsafe_code)]

mod functions;
mod number;
#[cfg(test)]
mod tests;

use super::matmul::Isa;
use super::matmul::simd::{Kernel, Simd, dispatch};
use functions::{
    Exp, ExpScaled, Function, Gelu, GeluTanh, Map, QuickGelu, Relu, Sigmoid, Silu, Tanh,
};
use half::f16;
use number::Number;

/// Σ a·b, over the shorter of both.
pub fn dot_f32(isa: Isa, a: &[f32], b: &[f32]) -> f32 {
    dispatch(isa, Dot { a, b })
}

/// Σ a·b with f16 `b`, over the shorter of both; products and sums in f32.
pub fn dot_f16(isa: Isa, a: &[f32], b: &[f16]) -> f32 {
    dispatch(isa, Dot { a, b })
}

/// `y += w · x`, over the shorter of both.
pub fn axpy_f32(isa: Isa, w: f32, x: &[f32], y: &mut [f32]) {
    dispatch(isa, Axpy { w, x, y });
}

/// `y += w · x` with f16 `x`, over the shorter of both.
pub fn axpy_f16(isa: Isa, w: f32, x: &[f16], y: &mut [f32]) {
    dispatch(isa, Axpy { w, x, y });
}

/// Σ x².
pub fn sum_squares(isa: Isa, x: &[f32]) -> f32 {
    dispatch(isa, Dot { a: x, b: x })
}

/// The largest number, −∞ if there is none.
pub fn max_f32(isa: Isa, x: &[f32]) -> f32 {
    dispatch(isa, Max(x))
}

/// Each `x` becomes eˣ; 0 below −104, ∞ above 88.73.
pub fn exp(isa: Isa, x: &mut [f32]) {
    map(isa, Exp, x);
}

/// Each `x` becomes e^(scale · (x − the largest)), 0 below e⁻⁸⁷; gives the largest and their sum. `scale` is not negative.
pub fn softmax_sum(isa: Isa, scale: f32, x: &mut [f32]) -> (f32, f32) {
    dispatch(isa, SoftmaxSum { scale, x })
}

/// Each `x` becomes x · σ(x).
pub fn silu(isa: Isa, x: &mut [f32]) {
    map(isa, Silu, x);
}

/// Each `x` becomes ½x · (1 + tanh(√(2/π) · (x + 0.044715x³))).
pub fn gelu_tanh(isa: Isa, x: &mut [f32]) {
    map(isa, GeluTanh, x);
}

/// Each `x` becomes ½x · (1 + erf(x / √2)).
pub fn gelu(isa: Isa, x: &mut [f32]) {
    map(isa, Gelu, x);
}

/// Each `x` becomes x · σ(1.702 x).
pub fn quick_gelu(isa: Isa, x: &mut [f32]) {
    map(isa, QuickGelu, x);
}

/// Each `x` becomes max(x, 0); NaN stays.
pub fn relu(isa: Isa, x: &mut [f32]) {
    map(isa, Relu, x);
}

/// Each `x` becomes tanh x.
pub fn tanh(isa: Isa, x: &mut [f32]) {
    map(isa, Tanh, x);
}

/// Each `x` becomes σ(x) = 1 / (1 + e⁻ˣ).
pub fn sigmoid(isa: Isa, x: &mut [f32]) {
    map(isa, Sigmoid, x);
}

/// Σ x.
pub fn sum_f32(isa: Isa, x: &[f32]) -> f32 {
    dispatch(isa, Sum(x))
}

/// Each `x` becomes `x + a`.
pub fn add_scalar(isa: Isa, a: f32, x: &mut [f32]) {
    dispatch(isa, AddScalar { a, x });
}

/// `x[i] = scale · x[i] · w[i] + b[i]`, over the shortest; without `b` nothing is added.
pub fn scale_shift(isa: Isa, scale: f32, w: &[f32], b: Option<&[f32]>, x: &mut [f32]) {
    dispatch(isa, ScaleShift { scale, w, b, x });
}

fn map(isa: Isa, f: impl Function, x: &mut [f32]) {
    dispatch(isa, Map { x, f });
}

/// An element that is widened to f32 when it is loaded.
trait Element: Copy {
    /// LANES elements.
    ///
    /// # Safety
    /// `from` is valid for reading LANES elements.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::F;
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { simd.load(from) }
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::F {
        // SAFETY: the caller's promise; f16 is a transparent u16.
        unsafe { simd.load_half(from.cast()) }
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

struct Dot<'a, E> {
    a: &'a [f32],
    b: &'a [E],
}

impl<E: Element> Kernel for Dot<'_, E> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let len = self.a.len().min(self.b.len());
        let (a, b) = (&self.a[..len], &self.b[..len]);
        let mut acc = [simd.splat(0.0); 4];
        let (a4, b4) = (a.chunks_exact(4 * S::LANES), b.chunks_exact(4 * S::LANES));
        let (a1, b1) = (a4.remainder(), b4.remainder());
        for (a, b) in a4.zip(b4) {
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: both slices have 4 · LANES elements.
                let (a, b) = unsafe {
                    let at = i * S::LANES;
                    (
                        simd.load(a.as_ptr().add(at)),
                        E::load(simd, b.as_ptr().add(at)),
                    )
                };
                *acc = simd.mul_add(a, b, *acc);
            }
        }
        let (a1, b1) = (a1.chunks_exact(S::LANES), b1.chunks_exact(S::LANES));
        let (a0, b0) = (a1.remainder(), b1.remainder());
        for (a, b) in a1.zip(b1) {
            // SAFETY: both slices have LANES elements.
            let (a, b) = unsafe { (simd.load(a.as_ptr()), E::load(simd, b.as_ptr())) };
            acc[0] = simd.mul_add(a, b, acc[0]);
        }
        let rest: f32 = a0.iter().zip(b0).map(|(a, b)| a * b.widen()).sum();
        simd.sum(simd.add(simd.add(acc[0], acc[1]), simd.add(acc[2], acc[3]))) + rest
    }
}

struct Axpy<'a, E> {
    w: f32,
    x: &'a [E],
    y: &'a mut [f32],
}

impl<E: Element> Kernel for Axpy<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let len = self.x.len().min(self.y.len());
        let w = simd.splat(self.w);
        let x = self.x[..len].chunks_exact(S::LANES);
        let mut y = self.y[..len].chunks_exact_mut(S::LANES);
        let x_rest = x.remainder();
        for (x, y) in x.zip(&mut y) {
            // SAFETY: both slices have LANES elements.
            unsafe {
                let sum = simd.mul_add(w, E::load(simd, x.as_ptr()), simd.load(y.as_ptr()));
                simd.store(y.as_mut_ptr(), sum);
            }
        }
        for (x, y) in x_rest.iter().zip(y.into_remainder()) {
            *y = self.w.fma::<S>(x.widen(), *y);
        }
    }
}

struct Max<'a>(&'a [f32]);

impl Kernel for Max<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f32 {
        let (mut top, rest) = number::columns(self.0, f32::NEG_INFINITY, larger);
        for (top, x) in top.iter_mut().zip(rest) {
            *top = larger(*top, *x);
        }
        fold(top, larger)
    }
}

#[inline(always)]
fn larger<T: Number>(a: T, b: T) -> T {
    a.if_less(b, b, a)
}

/// One number of 32, in five steps: one after the other would wait for 32.
#[inline(always)]
fn fold(mut x: [f32; 32], f: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [16, 8, 4, 2, 1] {
        for i in 0..half {
            x[i] = f(x[i], x[i + half]);
        }
    }
    x[0]
}

struct Sum<'a>(&'a [f32]);

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f32 {
        let (mut sums, rest) = number::columns(self.0, 0.0, |a, b| a + b);
        for (sum, x) in sums.iter_mut().zip(rest) {
            *sum += x;
        }
        fold(sums, |a, b| a + b)
    }
}

struct AddScalar<'a> {
    a: f32,
    x: &'a mut [f32],
}

impl Kernel for AddScalar<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for x in self.x {
            *x += self.a;
        }
    }
}

struct SoftmaxSum<'a> {
    scale: f32,
    x: &'a mut [f32],
}

impl Kernel for SoftmaxSum<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (f32, f32) {
        let (scale, top) = (self.scale, Max(self.x).run(simd));
        let f = ExpScaled { scale, top };
        // In browsers one after the other, which is less code.
        if cfg!(target_arch = "wasm32") {
            Map { x: &mut *self.x, f }.run(simd);
            return (top, Sum(self.x).run(simd));
        }
        let mut sums = [0.0; 32];
        let (wide, rest) = self.x.as_chunks_mut::<32>();
        for x in wide {
            for (sum, x) in sums.iter_mut().zip(x) {
                *x = f.of::<S, _>(*x);
                *sum += *x;
            }
        }
        for (sum, x) in sums.iter_mut().zip(rest) {
            *x = f.of::<S, _>(*x);
            *sum += *x;
        }
        (top, fold(sums, |a, b| a + b))
    }
}

struct ScaleShift<'a> {
    scale: f32,
    w: &'a [f32],
    b: Option<&'a [f32]>,
    x: &'a mut [f32],
}

impl Kernel for ScaleShift<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let x = self.x.iter_mut().zip(self.w);
        match self.b {
            Some(b) => x
                .zip(b)
                .for_each(|((x, w), b)| *x = (self.scale * *x).fma::<S>(*w, *b)),
            None => x.for_each(|(x, w)| *x = self.scale * *x * w),
        }
    }
}
