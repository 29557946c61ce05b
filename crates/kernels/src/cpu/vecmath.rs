//! Sums and elementwise functions that the CPU kernels share, at the instruction set level they are given.
//!
//! Each function is one generic body: the operations of `matmul::simd` for sums (so that their order is fixed per level),
//! plain loops, compiled per level and vectorised by the compiler, for the elementwise ones. NaN in gives NaN out, except for
//! [`max_f32`], which ignores it.
//!
//! `exp` follows Cephes' `expf` (range reduction by ln 2 in two parts, polynomial of degree 6): relative error at most 1e-6
//! where the result is a normal number.
//!
//! One of the crate's listed `unsafe` modules: vector loads and stores inside bounds that the code around them states.
#![allow(unsafe_code)]

use super::matmul::Isa;
use super::matmul::simd::{Kernel, Simd, dispatch};
use half::f16;
use std::marker::PhantomData;

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
    dispatch(
        isa,
        Map {
            x,
            f: PhantomData::<Exp>,
        },
    );
}

/// Each `x` becomes x · σ(x).
pub fn silu(isa: Isa, x: &mut [f32]) {
    dispatch(
        isa,
        Map {
            x,
            f: PhantomData::<Silu>,
        },
    );
}

/// Each `x` becomes σ(x) = 1 / (1 + e⁻ˣ).
pub fn sigmoid(isa: Isa, x: &mut [f32]) {
    dispatch(
        isa,
        Map {
            x,
            f: PhantomData::<Sigmoid>,
        },
    );
}

/// Each `x` becomes ½x · (1 + tanh(√(2/π) · (x + 0.044715x³))).
pub fn gelu_tanh(isa: Isa, x: &mut [f32]) {
    dispatch(
        isa,
        Map {
            x,
            f: PhantomData::<GeluTanh>,
        },
    );
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
            *y = fma::<S>(self.w, x.widen(), *y);
        }
    }
}

struct Max<'a>(&'a [f32]);

impl Kernel for Max<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f32 {
        let larger = |a: f32, b: f32| if b > a { b } else { a };
        let (wide, rest) = self.0.as_chunks::<32>();
        let mut top = [f32::NEG_INFINITY; 32];
        for x in wide {
            for (top, x) in top.iter_mut().zip(x) {
                *top = larger(*top, *x);
            }
        }
        top.iter()
            .chain(rest)
            .copied()
            .fold(f32::NEG_INFINITY, larger)
    }
}

/// A function of one number that the compiler can vectorise.
trait Function {
    fn of<S: Simd>(x: f32) -> f32;
}

struct Map<'a, F> {
    x: &'a mut [f32],
    f: PhantomData<F>,
}

impl<F: Function> Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for x in self.x {
            *x = F::of::<S>(*x);
        }
    }
}

/// `a · b + c`, fused only where that is an instruction.
#[inline(always)]
fn fma<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::FMA { a.mul_add(b, c) } else { a * b + c }
}

struct Exp;
impl Function for Exp {
    #[inline(always)]
    fn of<S: Simd>(x: f32) -> f32 {
        const LOG2_E: f32 = std::f32::consts::LOG2_E;
        // ln 2 in two parts, the first with few bits so that its products with n are exact.
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        // Adding and subtracting it rounds to the nearest integer, and leaves that in the low bits meanwhile.
        const ROUND: f32 = 12_582_912.0;
        let x = if x < -104.0 { -104.0 } else { x };
        let x = if x > 89.0 { 89.0 } else { x };
        let shifted = fma::<S>(x, LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = fma::<S>(n, -LN2_LOW, fma::<S>(n, -LN2_HIGH, x));
        let mut p = 1.987_569_1e-4;
        for c in [
            1.398_2e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            1.666_666_5e-1,
            5e-1,
        ] {
            p = fma::<S>(p, r, c);
        }
        let p = fma::<S>(p, r * r, r) + 1.0;
        // 2ⁿ in two factors: n reaches from -150 to 128, an exponent from -126 to 127.
        let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
        let half = n >> 1;
        p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
    }
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

struct Silu;
impl Function for Silu {
    #[inline(always)]
    fn of<S: Simd>(x: f32) -> f32 {
        x / (1.0 + Exp::of::<S>(-x))
    }
}

struct Sigmoid;
impl Function for Sigmoid {
    #[inline(always)]
    fn of<S: Simd>(x: f32) -> f32 {
        1.0 / (1.0 + Exp::of::<S>(-x))
    }
}

struct GeluTanh;
impl Function for GeluTanh {
    #[inline(always)]
    fn of<S: Simd>(x: f32) -> f32 {
        // ½ (1 + tanh u) = σ(2u), which keeps its precision where tanh u is near -1.
        const FACTOR: f32 = 1.595_769_2; // 2 √(2/π)
        let u2 = FACTOR * x * fma::<S>(0.044_715 * x, x, 1.0);
        x / (1.0 + Exp::of::<S>(-u2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f32, want: f64, allowed: f64) -> bool {
        (f64::from(got) - want).abs() <= allowed
    }

    /// Numbers of both signs without a pattern that vector widths could hide.
    fn numbers(len: usize, scale: f32) -> Vec<f32> {
        (0..len)
            .map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0)
            .map(|x| x * scale)
            .collect()
    }

    #[test]
    fn sums() {
        for isa in Isa::available() {
            for len in [0, 1, 3, 8, 15, 16, 17, 64, 100, 257] {
                let (a, b) = (numbers(len, 3.0), numbers(len + 1, -2.0));
                let half: Vec<f16> = b.iter().map(|b| f16::from_f32(*b)).collect();
                let pairs = || {
                    a.iter()
                        .zip(&b)
                        .map(|(a, b)| (f64::from(*a), f64::from(*b)))
                };
                let size = 1e-6 * pairs().map(|(a, b)| (a * b).abs()).sum::<f64>();
                let want: f64 = pairs().map(|(a, b)| a * b).sum();
                assert!(close(dot_f32(isa, &a, &b), want, size), "{isa} {len}");
                let want: f64 = a
                    .iter()
                    .zip(&half)
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum();
                assert!(close(dot_f16(isa, &a, &half), want, size), "{isa} {len}");
                assert!(
                    !close(dot_f16(isa, &a, &half), want + 1e-3, size),
                    "{isa} {len}"
                );
                let want: f64 = a.iter().map(|a| f64::from(*a).powi(2)).sum();
                assert!(
                    close(sum_squares(isa, &a), want, 1e-6 * want),
                    "{isa} {len}"
                );
                let want = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                assert_eq!(max_f32(isa, &a), want, "{isa} {len}");
                let (mut y, mut z) = (a.clone(), a.clone());
                axpy_f32(isa, 0.3, &b, &mut y);
                axpy_f16(isa, 0.3, &half, &mut z);
                for i in 0..len {
                    let (a, b) = (f64::from(a[i]), f64::from(b[i]));
                    let allowed = 1e-6 * (a.abs() + b.abs());
                    assert!(
                        close(y[i], a + f64::from(0.3f32) * b, allowed),
                        "{isa} {len}"
                    );
                    let b = f64::from(half[i]);
                    assert!(
                        close(z[i], a + f64::from(0.3f32) * b, allowed),
                        "{isa} {len}"
                    );
                }
            }
            assert_eq!(max_f32(isa, &[f32::NEG_INFINITY; 40]), f32::NEG_INFINITY);
        }
    }

    #[test]
    fn exp_within_a_millionth() {
        for isa in Isa::available() {
            let inputs: Vec<f32> = (-8730..8870).map(|i| i as f32 * 0.01 + 0.003).collect();
            let mut got = inputs.clone();
            exp(isa, &mut got);
            for (x, y) in inputs.iter().zip(&got) {
                let want = f64::from(*x).exp();
                assert!(
                    close(*y, want, 1e-6 * want),
                    "{isa}: exp({x}) = {y}, expected {want}"
                );
            }
            let mut edges = [
                0.0,
                -0.0,
                f32::NEG_INFINITY,
                -1e30,
                -100.0,
                f32::INFINITY,
                89.0,
                f32::NAN,
            ];
            exp(isa, &mut edges);
            assert_eq!(edges[..4], [1.0, 1.0, 0.0, 0.0]);
            assert!(
                edges[4] > 0.0 && edges[4] < 1e-43,
                "subnormal: {}",
                edges[4]
            );
            assert_eq!(edges[5..7], [f32::INFINITY; 2]);
            assert!(edges[7].is_nan());
        }
    }

    #[test]
    fn activations() {
        for isa in Isa::available() {
            let mut inputs: Vec<f32> = (-3000..3000).map(|i| i as f32 * 0.01).collect();
            inputs.extend([-1e4, -120.0, 120.0, 1e4]);
            let (mut s, mut g, mut o) = (inputs.clone(), inputs.clone(), inputs.clone());
            silu(isa, &mut s);
            gelu_tanh(isa, &mut g);
            sigmoid(isa, &mut o);
            for (((x, s), g), o) in inputs.iter().zip(&s).zip(&g).zip(&o) {
                let x = f64::from(*x);
                let want = 1.0 / (1.0 + (-x).exp());
                assert!(
                    close(*o, want, 2e-6 * want + 1e-30),
                    "{isa}: sigmoid({x}) = {o}"
                );
                let want = x / (1.0 + (-x).exp());
                assert!(
                    close(*s, want, 2e-6 * want.abs() + 1e-30),
                    "{isa}: silu({x}) = {s}"
                );
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                // As σ(2u): near tanh u = -1 the usual form cancels, even in f64.
                let want = x / (1.0 + (-2.0 * u).exp());
                let allowed = 2e-6 * want.abs() * (1.0 + u.abs()) + 1e-30;
                assert!(
                    close(*g, want, allowed),
                    "{isa}: gelu({x}) = {g}, expected {want}"
                );
            }
            let mut nan = [f32::NAN; 3];
            silu(isa, &mut nan[..1]);
            gelu_tanh(isa, &mut nan[1..2]);
            sigmoid(isa, &mut nan[2..]);
            assert!(nan.iter().all(|x| x.is_nan()));
        }
    }
}
