//! The elementwise functions: one body each, that the compiler vectorises per level.

use super::super::matmul::simd::{Kernel, Simd};
use std::marker::PhantomData;

/// A function of one number that the compiler can vectorise.
pub(super) trait Function {
    fn of<S: Simd>(x: f32) -> f32;
}

pub(super) struct Map<'a, F> {
    pub(super) x: &'a mut [f32],
    pub(super) f: PhantomData<F>,
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
pub(super) fn fma<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::FMA { a.mul_add(b, c) } else { a * b + c }
}

pub(super) struct Exp;
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

pub(super) struct Silu;
impl Function for Silu {
    #[inline(always)]
    fn of<S: Simd>(x: f32) -> f32 {
        x / (1.0 + Exp::of::<S>(-x))
    }
}

pub(super) struct GeluTanh;
impl Function for GeluTanh {
    #[inline(always)]
    fn of<S: Simd>(x: f32) -> f32 {
        // ½ (1 + tanh u) = σ(2u), which keeps its precision where tanh u is near -1.
        const FACTOR: f32 = 1.595_769_2; // 2 √(2/π)
        let u2 = FACTOR * x * fma::<S>(0.044_715 * x, x, 1.0);
        x / (1.0 + Exp::of::<S>(-u2))
    }
}

pub(super) struct Gelu;
impl Function for Gelu {
    #[inline(always)]
    fn of<S: Simd>(x: f32) -> f32 {
        0.5 * x * (1.0 + erf::<S>(x * std::f32::consts::FRAC_1_SQRT_2))
    }
}

pub(super) struct QuickGelu;
impl Function for QuickGelu {
    #[inline(always)]
    fn of<S: Simd>(x: f32) -> f32 {
        x / (1.0 + Exp::of::<S>(-1.702 * x))
    }
}

pub(super) struct Relu;
impl Function for Relu {
    #[inline(always)]
    fn of<S: Simd>(x: f32) -> f32 {
        if x < 0.0 { 0.0 } else { x }
    }
}

pub(super) struct Sigmoid;
impl Function for Sigmoid {
    #[inline(always)]
    fn of<S: Simd>(x: f32) -> f32 {
        1.0 / (1.0 + Exp::of::<S>(-x))
    }
}

pub(super) struct Tanh;
impl Function for Tanh {
    /// Cephes' `tanhf`: a polynomial near zero, where the exponential form cancels.
    #[inline(always)]
    fn of<S: Simd>(x: f32) -> f32 {
        let s = x * x;
        let mut p = -5.704_988_7e-3;
        for c in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
            p = fma::<S>(p, s, c);
        }
        let near = fma::<S>(p * s, x, x);
        let size = x.abs();
        let far = (1.0 - 2.0 / (Exp::of::<S>(2.0 * size) + 1.0)).copysign(x);
        if size < 0.625 { near } else { far }
    }
}

/// A rational function of degree 13 over 8 (Eigen's `generic_fast_erf_float`), within 3e-7; ±1 from 3.92 on, where
/// erf rounds to it.
#[inline(always)]
fn erf<S: Simd>(x: f32) -> f32 {
    let s = x * x;
    let mut a = -2.726_142_3e-10;
    for c in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        a = fma::<S>(a, s, c);
    }
    let mut b = -1.456_607_2e-5;
    for c in [
        -2.133_740_5e-4,
        -1.682_827e-3,
        -7.373_329e-3,
        -1.426_473_9e-2,
    ] {
        b = fma::<S>(b, s, c);
    }
    let inner = x * a / b;
    if x.abs() >= 3.92 {
        1f32.copysign(x)
    } else {
        inner
    }
}
