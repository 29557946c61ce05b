//! What the functions are written over: one f32, and in WebAssembly four at a time. Elsewhere the compiler makes vectors of the loops;
//! the engine for browsers is optimised for size as a whole, and then it makes none.

use super::super::matmul::simd::Simd;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// An f32, or several.
pub(super) trait Number:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    fn of(x: f32) -> Self;

    /// `yes` where `self < other`, else, and for NaN, `no`.
    fn if_less(self, other: Self, yes: Self, no: Self) -> Self;

    fn abs(self) -> Self;

    fn copysign(self, sign: Self) -> Self;

    /// `self · b + c`, fused only where that is an instruction.
    fn fma<S: Simd>(self, b: Self, c: Self) -> Self;

    /// 2ⁿ in two factors, of `shifted`, whose bits are those of `round` and n more: n reaches from -150 to 128, an exponent from -126
    /// to 127.
    fn powers_of_two(shifted: Self, round: f32) -> [Self; 2];

    /// As [`Number::powers_of_two`] in one; n reaches from -126 to 127.
    fn power_of_two(shifted: Self, round: f32) -> Self;
}

/// 2ⁿ.
#[inline(always)]
fn power(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

impl Number for f32 {
    #[inline(always)]
    fn of(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn if_less(self, other: Self, yes: Self, no: Self) -> Self {
        if self < other { yes } else { no }
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        self.copysign(sign)
    }
    #[inline(always)]
    fn fma<S: Simd>(self, b: Self, c: Self) -> Self {
        if S::FMA {
            self.mul_add(b, c)
        } else {
            self * b + c
        }
    }
    #[inline(always)]
    fn powers_of_two(shifted: Self, round: f32) -> [Self; 2] {
        let n = shifted.to_bits().wrapping_sub(round.to_bits()) as i32;
        let half = n >> 1;
        [power(half), power(n.wrapping_sub(half))]
    }
    #[inline(always)]
    fn power_of_two(shifted: Self, round: f32) -> Self {
        power(shifted.to_bits().wrapping_sub(round.to_bits()) as i32)
    }
}

/// 32 results over the columns of `x` taken 32 at a time, and what is left of it: `f` of each and the one before, from `first` on.
#[cfg(not(target_arch = "wasm32"))]
#[inline(always)]
pub(super) fn columns(x: &[f32], first: f32, f: impl Fn(f32, f32) -> f32) -> ([f32; 32], &[f32]) {
    let (wide, rest) = x.as_chunks::<32>();
    let mut out = [first; 32];
    for x in wide {
        for (out, x) in out.iter_mut().zip(x) {
            *out = f(*out, *x);
        }
    }
    (out, rest)
}

#[cfg(target_arch = "wasm32")]
pub(super) use four::{Four, columns};

#[cfg(target_arch = "wasm32")]
mod four {
    use super::{Add, Div, Mul, Neg, Number, Simd, Sub};
    use std::arch::wasm32::*;

    /// Four numbers.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Four(v128);

    impl Four {
        #[inline(always)]
        pub(in super::super) fn load(from: &[f32; 4]) -> Self {
            // SAFETY: 16 bytes; loads need no alignment.
            Four(unsafe { v128_load(from.as_ptr().cast()) })
        }
        #[inline(always)]
        pub(in super::super) fn store(self, to: &mut [f32; 4]) {
            // SAFETY: 16 bytes; stores need no alignment.
            unsafe { v128_store(to.as_mut_ptr().cast(), self.0) }
        }
    }

    macro_rules! operators {
        ($($of:ident $name:ident $instruction:ident)*) => {
            $(impl $of for Four {
                type Output = Self;
                #[inline(always)]
                fn $name(self, other: Self) -> Self {
                    Four($instruction(self.0, other.0))
                }
            })*
        };
    }
    operators!(Add add f32x4_add Sub sub f32x4_sub Mul mul f32x4_mul Div div f32x4_div);

    impl Neg for Four {
        type Output = Self;
        #[inline(always)]
        fn neg(self) -> Self {
            Four(f32x4_neg(self.0))
        }
    }

    /// 2ⁿ of four integers.
    #[inline(always)]
    fn power(n: v128) -> Four {
        Four(i32x4_shl(i32x4_add(n, i32x4_splat(127)), 23))
    }

    impl Number for Four {
        #[inline(always)]
        fn of(x: f32) -> Self {
            Four(f32x4_splat(x))
        }
        #[inline(always)]
        fn if_less(self, other: Self, yes: Self, no: Self) -> Self {
            Four(v128_bitselect(yes.0, no.0, f32x4_lt(self.0, other.0)))
        }
        #[inline(always)]
        fn abs(self) -> Self {
            Four(f32x4_abs(self.0))
        }
        #[inline(always)]
        fn copysign(self, sign: Self) -> Self {
            Four(v128_bitselect(sign.0, self.0, i32x4_splat(i32::MIN)))
        }
        #[inline(always)]
        fn fma<S: Simd>(self, b: Self, c: Self) -> Self {
            self * b + c
        }
        #[inline(always)]
        fn powers_of_two(shifted: Self, round: f32) -> [Self; 2] {
            let n = i32x4_sub(shifted.0, i32x4_splat(round.to_bits() as i32));
            let half = i32x4_shr(n, 1);
            [power(half), power(i32x4_sub(n, half))]
        }
        #[inline(always)]
        fn power_of_two(shifted: Self, round: f32) -> Self {
            power(i32x4_sub(shifted.0, i32x4_splat(round.to_bits() as i32)))
        }
    }

    #[inline(always)]
    pub(in super::super) fn columns(
        x: &[f32],
        first: f32,
        f: impl Fn(Four, Four) -> Four,
    ) -> ([f32; 32], &[f32]) {
        let (wide, rest) = x.as_chunks::<32>();
        let mut all = [Four::of(first); 8];
        for x in wide {
            for (out, x) in all.iter_mut().zip(x.as_chunks::<4>().0) {
                *out = f(*out, Four::load(x));
            }
        }
        let mut out = [first; 32];
        for (all, out) in all.iter().zip(out.as_chunks_mut::<4>().0) {
            all.store(out);
        }
        (out, rest)
    }
}
