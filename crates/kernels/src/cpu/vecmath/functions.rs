//! The elementwise functions: one body each, over one number, which the compiler vectorises per level, or over several.

use super::super::matmul::simd::{Kernel, Simd};
use super::number::Number;

/// A function of a number.
pub(super) trait Function {
    fn of<S: Simd, T: Number>(&self, x: T) -> T;
}

pub(super) struct Map<'a, F> {
    pub(super) x: &'a mut [f32],
    pub(super) f: F,
}

impl<F: Function> Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let rest = self.x;
        #[cfg(target_arch = "wasm32")]
        let rest = {
            let (wide, rest) = rest.as_chunks_mut::<4>();
            for x in wide {
                self.f.of::<S, _>(super::number::Four::load(x)).store(x);
            }
            rest
        };
        for x in rest {
            *x = self.f.of::<S, _>(*x);
        }
    }
}

pub(super) struct Exp;

/// Adding and subtracting it rounds to the nearest integer, and leaves that in the low bits meanwhile.
const ROUND: f32 = 12_582_912.0;

impl Exp {
    #[inline(always)]
    pub(super) fn at<S: Simd, T: Number>(x: T) -> T {
        let (least, most) = (T::of(-104.0), T::of(89.0));
        let x = x.if_less(least, least, x);
        let (p, shifted) = Exp::parts::<S, T>(most.if_less(x, most, x));
        let [a, b] = T::powers_of_two(shifted, ROUND);
        p * a * b
    }

    /// [`Exp::at`] of what is not above 0; 0 below -87, from where on f32 has hardly more than subnormal numbers.
    #[inline(always)]
    fn of_negative<S: Simd, T: Number>(x: T) -> T {
        let least = T::of(-87.0);
        let (p, shifted) = Exp::parts::<S, T>(x.if_less(least, least, x));
        x.if_less(least, T::of(0.0), p * T::power_of_two(shifted, ROUND))
    }

    /// eˣ as `p · 2ⁿ`, and `ROUND + n`.
    #[inline(always)]
    fn parts<S: Simd, T: Number>(x: T) -> (T, T) {
        const LOG2_E: f32 = std::f32::consts::LOG2_E;
        // ln 2 in two parts, the first with few bits so that its products with n are exact.
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        let shifted = x.fma::<S>(T::of(LOG2_E), T::of(ROUND));
        let n = shifted - T::of(ROUND);
        let r = n.fma::<S>(T::of(-LN2_LOW), n.fma::<S>(T::of(-LN2_HIGH), x));
        let mut p = T::of(1.987_569_1e-4);
        for c in [
            1.398_2e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            1.666_666_5e-1,
            5e-1,
        ] {
            p = p.fma::<S>(r, T::of(c));
        }
        (p.fma::<S>(r * r, r) + T::of(1.0), shifted)
    }
}

impl Function for Exp {
    #[inline(always)]
    fn of<S: Simd, T: Number>(&self, x: T) -> T {
        Exp::at::<S, T>(x)
    }
}

/// e^(scale · (x − top)); no x is above the top.
pub(super) struct ExpScaled {
    pub(super) scale: f32,
    pub(super) top: f32,
}

impl Function for ExpScaled {
    #[inline(always)]
    fn of<S: Simd, T: Number>(&self, x: T) -> T {
        Exp::of_negative::<S, T>(T::of(self.scale) * (x - T::of(self.top)))
    }
}

/// x · σ(z) = x / (1 + e⁻ᶻ).
#[inline(always)]
fn gated<S: Simd, T: Number>(x: T, z: T) -> T {
    x / (T::of(1.0) + Exp::at::<S, T>(-z))
}

pub(super) struct Silu;
impl Function for Silu {
    #[inline(always)]
    fn of<S: Simd, T: Number>(&self, x: T) -> T {
        gated::<S, T>(x, x)
    }
}

pub(super) struct GeluTanh;
impl Function for GeluTanh {
    #[inline(always)]
    fn of<S: Simd, T: Number>(&self, x: T) -> T {
        // ½ (1 + tanh u) = σ(2u), which keeps its precision where tanh u is near -1.
        const FACTOR: f32 = 1.595_769_2; // 2 √(2/π)
        let u2 = T::of(FACTOR) * x * (T::of(0.044_715) * x).fma::<S>(x, T::of(1.0));
        gated::<S, T>(x, u2)
    }
}

pub(super) struct Gelu;
impl Function for Gelu {
    #[inline(always)]
    fn of<S: Simd, T: Number>(&self, x: T) -> T {
        let e = erf::<S, T>(x * T::of(std::f32::consts::FRAC_1_SQRT_2));
        T::of(0.5) * x * (T::of(1.0) + e)
    }
}

pub(super) struct QuickGelu;
impl Function for QuickGelu {
    #[inline(always)]
    fn of<S: Simd, T: Number>(&self, x: T) -> T {
        gated::<S, T>(x, T::of(1.702) * x)
    }
}

pub(super) struct Relu;
impl Function for Relu {
    #[inline(always)]
    fn of<S: Simd, T: Number>(&self, x: T) -> T {
        x.if_less(T::of(0.0), T::of(0.0), x)
    }
}

pub(super) struct Sigmoid;
impl Function for Sigmoid {
    #[inline(always)]
    fn of<S: Simd, T: Number>(&self, x: T) -> T {
        gated::<S, T>(T::of(1.0), x)
    }
}

pub(super) struct Tanh;
impl Function for Tanh {
    /// Cephes' `tanhf`: a polynomial near zero, where the exponential form cancels.
    #[inline(always)]
    fn of<S: Simd, T: Number>(&self, x: T) -> T {
        let s = x * x;
        let mut p = T::of(-5.704_988_7e-3);
        for c in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
            p = p.fma::<S>(s, T::of(c));
        }
        let near = (p * s).fma::<S>(x, x);
        let size = x.abs();
        let one = T::of(1.0);
        let far = one - T::of(2.0) / (Exp::at::<S, T>(T::of(2.0) * size) + one);
        size.if_less(T::of(0.625), near, far.copysign(x))
    }
}

/// A rational function of degree 13 over 8 (Eigen's `generic_fast_erf_float`), within 3e-7; ±1 from 3.92 on, where
/// erf rounds to it.
#[inline(always)]
fn erf<S: Simd, T: Number>(x: T) -> T {
    const BELOW: f32 = 3.92f32.next_down();
    let s = x * x;
    let mut a = T::of(-2.726_142_3e-10);
    for c in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        a = a.fma::<S>(s, T::of(c));
    }
    let mut b = T::of(-1.456_607_2e-5);
    for c in [
        -2.133_740_5e-4,
        -1.682_827e-3,
        -7.373_329e-3,
        -1.426_473_9e-2,
    ] {
        b = b.fma::<S>(s, T::of(c));
    }
    let inner = x * a / b;
    T::of(BELOW).if_less(x.abs(), T::of(1.0).copysign(x), inner)
}
