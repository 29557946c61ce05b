//! WebAssembly `simd128`: 128-bit vectors without fused multiply-add. The instructions are in the module or it does not load, so
//! their intrinsics are safe.
//!
//! Compiled with `relaxed-simd`, products of bytes are single instructions: those with 7-bit weights, where every processor gives
//! the same result, so weights of 8 bits are taken apart.

use super::super::gemm_f32::Tiles;
use super::super::gemm_i8;
use super::{GROUPS, Kernel, PANEL, Simd};
use std::arch::wasm32::*;

#[derive(Clone, Copy)]
pub(super) struct Simd128;

pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Simd128)
}

/// The four 16-bit halves in the low places of the lanes, as f32; see `unpack::half_to_f32`.
#[inline(always)]
fn halves_to_float(bits: v128) -> v128 {
    let magnitude = v128_and(bits, u32x4_splat(0x7fff));
    let scale = f32x4_splat(f32::from_bits((127 + 112) << 23));
    let scaled = f32x4_mul(u32x4_shl(magnitude, 13), scale);
    let special = u32x4_gt(magnitude, u32x4_splat(0x7bff));
    let special = v128_and(special, u32x4_splat(0x7f80_0000));
    let sign = u32x4_shl(v128_and(bits, u32x4_splat(0x8000)), 16);
    v128_or(v128_or(scaled, special), sign)
}

impl Simd128 {
    /// Adds dot products of 16 unsigned and 16 signed bytes to four lanes; unless `WIDE` the unsigned ones are at most 127.
    ///
    /// # Safety
    /// `x` is valid for reading 16 bytes.
    #[inline(always)]
    #[cfg(not(target_feature = "relaxed-simd"))]
    unsafe fn dots<const WIDE: bool>(self, sum: v128, q: v128, x: *const i8) -> v128 {
        // SAFETY: the caller's promise.
        let x = unsafe { v128_load(x.cast()) };
        let low = i32x4_dot_i16x8(u16x8_extend_low_u8x16(q), i16x8_extend_low_i8x16(x));
        let high = i32x4_dot_i16x8(u16x8_extend_high_u8x16(q), i16x8_extend_high_i8x16(x));
        i32x4_add(sum, i32x4_add(low, high))
    }

    /// As above.
    ///
    /// # Safety
    /// As above.
    #[inline(always)]
    #[cfg(target_feature = "relaxed-simd")]
    unsafe fn dots<const WIDE: bool>(self, sum: v128, q: v128, x: *const i8) -> v128 {
        // SAFETY: the caller's promise.
        let x = unsafe { v128_load(x.cast()) };
        if !WIDE {
            return i32x4_relaxed_dot_i8x16_i7x16_add(x, q, sum);
        }
        let top = i32x4_relaxed_dot_i8x16_i7x16_add(x, u8x16_shr(q, 7), i32x4_splat(0));
        let rest = v128_and(q, u8x16_splat(0x7f));
        i32x4_relaxed_dot_i8x16_i7x16_add(x, rest, i32x4_add(sum, i32x4_shl(top, 7)))
    }
}

// SAFETY (all blocks): the pointer operations pass on their caller's promise; vectors may be unaligned.
impl Simd for Simd128 {
    type F = v128;
    type I = v128;
    type B = (v128, v128);
    type H = (v128, v128);
    const LANES: usize = 4;
    const FMA: bool = false;
    const SIGNED_BYTES: bool = false;
    const FAST_BYTES: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> v128 {
        f32x4_splat(x)
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> v128 {
        // SAFETY: see the impl.
        unsafe { v128_load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_half(self, from: *const u16) -> v128 {
        // SAFETY: see the impl.
        halves_to_float(unsafe { u32x4_load_extend_u16x4(from) })
    }
    #[inline(always)]
    unsafe fn load_bhalf(self, from: *const u16) -> v128 {
        // SAFETY: see the impl.
        u32x4_shl(unsafe { u32x4_load_extend_u16x4(from) }, 16)
    }
    #[inline(always)]
    unsafe fn load_unsigned(self, from: *const u8) -> v128 {
        // SAFETY: see the impl.
        let bytes = unsafe { v128_load32_zero(from.cast()) };
        f32x4_convert_u32x4(u32x4_extend_low_u16x8(u16x8_extend_low_u8x16(bytes)))
    }
    #[inline(always)]
    unsafe fn load_signed(self, from: *const i8) -> v128 {
        // SAFETY: see the impl.
        let bytes = unsafe { v128_load32_zero(from.cast()) };
        f32x4_convert_i32x4(i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(bytes)))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: v128) {
        // SAFETY: see the impl.
        unsafe { v128_store(to.cast(), v) }
    }
    #[inline(always)]
    fn add(self, a: v128, b: v128) -> v128 {
        f32x4_add(a, b)
    }
    #[inline(always)]
    fn mul(self, a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }
    #[inline(always)]
    fn mul_add(self, a: v128, b: v128, c: v128) -> v128 {
        #[cfg(target_feature = "relaxed-simd")]
        return f32x4_relaxed_madd(a, b, c);
        #[cfg(not(target_feature = "relaxed-simd"))]
        f32x4_add(f32x4_mul(a, b), c)
    }
    #[inline(always)]
    fn sum(self, v: v128) -> f32 {
        let two = f32x4_add(v, i64x2_shuffle::<1, 0>(v, v));
        f32x4_extract_lane::<0>(two) + f32x4_extract_lane::<1>(two)
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> v128 {
        i32x4_splat(x)
    }
    #[inline(always)]
    unsafe fn load_int(self, from: *const u32) -> v128 {
        // SAFETY: see the impl.
        unsafe { v128_load(from.cast()) }
    }
    #[inline(always)]
    #[cfg(target_feature = "relaxed-simd")]
    fn dot_bytes(self, sum: v128, w: v128, x: v128) -> v128 {
        i32x4_relaxed_dot_i8x16_i7x16_add(x, w, sum)
    }
    #[inline(always)]
    #[cfg(not(target_feature = "relaxed-simd"))]
    fn dot_bytes(self, sum: v128, w: v128, x: v128) -> v128 {
        let low = i32x4_dot_i16x8(u16x8_extend_low_u8x16(w), i16x8_extend_low_i8x16(x));
        let high = i32x4_dot_i16x8(u16x8_extend_high_u8x16(w), i16x8_extend_high_i8x16(x));
        // Pairs of neighbouring lanes belong together.
        let even = i32x4_shuffle::<0, 2, 4, 6>(low, high);
        let odd = i32x4_shuffle::<1, 3, 5, 7>(low, high);
        i32x4_add(sum, i32x4_add(even, odd))
    }
    #[inline(always)]
    fn to_float(self, v: v128) -> v128 {
        f32x4_convert_i32x4(v)
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 32]) -> Self::B {
        let from: *const v128 = from.as_ptr().cast();
        // SAFETY: 32 bytes.
        unsafe { (v128_load(from), v128_load(from.add(1))) }
    }
    #[inline(always)]
    fn store_bytes(self, to: &mut [u8; 32], v: Self::B) {
        let to: *mut v128 = to.as_mut_ptr().cast();
        // SAFETY: 32 bytes.
        unsafe {
            v128_store(to, v.0);
            v128_store(to.add(1), v.1);
        }
    }
    #[inline(always)]
    fn or(self, a: Self::B, b: Self::B) -> Self::B {
        (v128_or(a.0, b.0), v128_or(a.1, b.1))
    }
    #[inline(always)]
    fn xor(self, v: Self::B, bits: u8) -> Self::B {
        (
            v128_xor(v.0, u8x16_splat(bits)),
            v128_xor(v.1, u8x16_splat(bits)),
        )
    }
    #[inline(always)]
    fn extract(self, v: Self::B, shift: i32, mask: u8) -> Self::B {
        // Shifts of 16-bit lanes: what comes from the neighbouring byte is not in the mask.
        let moved = if shift < 0 {
            (
                u16x8_shl(v.0, shift.unsigned_abs()),
                u16x8_shl(v.1, shift.unsigned_abs()),
            )
        } else {
            (
                u16x8_shr(v.0, shift.unsigned_abs()),
                u16x8_shr(v.1, shift.unsigned_abs()),
            )
        };
        (
            v128_and(moved.0, u8x16_splat(mask)),
            v128_and(moved.1, u8x16_splat(mask)),
        )
    }
    #[inline(always)]
    fn nibbles(self, from: &[u8; 16]) -> Self::B {
        // SAFETY: 16 bytes.
        let v = unsafe { v128_load(from.as_ptr().cast()) };
        (v128_and(v, u8x16_splat(15)), u8x16_shr(v, 4))
    }
    #[inline(always)]
    fn fifth_bits(self, bits: u32) -> Self::B {
        let bytes = u32x4_splat(bits);
        let bit = u64x2_splat(0x8040_2010_0804_0201);
        let low = i8x16_swizzle(bytes, i8x16(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
        let high = i8x16_swizzle(bytes, i8x16(2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
        let low = i8x16_eq(v128_and(low, bit), bit);
        let high = i8x16_eq(v128_and(high, bit), bit);
        (
            v128_and(low, u8x16_splat(16)),
            v128_and(high, u8x16_splat(16)),
        )
    }
    #[inline(always)]
    fn widen_bytes(self, from: &[i8; GROUPS], to: &mut [f32; GROUPS]) {
        *to = from.map(f32::from);
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const u32, stride: usize, to: *mut u32) {
        // SAFETY: see the impl.
        unsafe {
            let (a, b) = (self.load_int(from), self.load_int(from.add(stride)));
            let (c, d) = (
                self.load_int(from.add(2 * stride)),
                self.load_int(from.add(3 * stride)),
            );
            let (ab0, ab1) = (
                i32x4_shuffle::<0, 4, 1, 5>(a, b),
                i32x4_shuffle::<2, 6, 3, 7>(a, b),
            );
            let (cd0, cd1) = (
                i32x4_shuffle::<0, 4, 1, 5>(c, d),
                i32x4_shuffle::<2, 6, 3, 7>(c, d),
            );
            v128_store(to.cast(), i64x2_shuffle::<0, 2>(ab0, cd0));
            v128_store(to.add(PANEL).cast(), i64x2_shuffle::<1, 3>(ab0, cd0));
            v128_store(to.add(2 * PANEL).cast(), i64x2_shuffle::<0, 2>(ab1, cd1));
            v128_store(to.add(3 * PANEL).cast(), i64x2_shuffle::<1, 3>(ab1, cd1));
        }
    }
    pairs_of_vectors!();

    #[inline(always)]
    fn tiles(self, tiles: &Tiles<'_>) {
        tiles.all::<Self, 2, 4>(self);
    }
    #[inline(always)]
    fn int8_tiles<const GROUP: usize, const MIN: bool>(
        self,
        tiles: &gemm_i8::Tiles<'_, GROUP, MIN>,
    ) {
        tiles.all::<Self, 1, 2>(self);
    }
}
