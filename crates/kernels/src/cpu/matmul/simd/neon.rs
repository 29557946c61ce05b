//! AArch64: 128-bit NEON vectors, and the byte dot products of ARMv8.2 where the CPU has them.

use super::super::gemm_f32::Tiles;
use super::super::gemm_i8;
use super::{GROUPS, Kernel, PANEL, Simd};
use std::arch::aarch64::*;
use std::arch::asm;

/// Token of NEON: made only in [`run`].
#[derive(Clone, Copy)]
pub(super) struct Neon(());

/// Token of NEON with `dotprod`: made only in [`run_dot`].
#[derive(Clone, Copy)]
pub(super) struct NeonDot(());

/// # Safety
/// The CPU has NEON.
#[inline(never)]
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon(()))
}

/// # Safety
/// The CPU has NEON and `dotprod`.
#[inline(never)]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn run_dot<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(NeonDot(()))
}

/// Adds to each lane the products of its four signed bytes. (The intrinsic is not stable yet.)
///
/// # Safety
/// The CPU has `dotprod`.
#[inline(always)]
unsafe fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction is there by the caller's promise; it reads and writes the named registers only.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// What both tokens do alike.
macro_rules! common_ops {
    () => {
        type F = float32x4_t;
        type I = int32x4_t;
        type B = (uint8x16_t, uint8x16_t);
        type H = (float32x4_t, float32x4_t);
        const LANES: usize = 4;
        const FMA: bool = true;
        const SIGNED_BYTES: bool = true;
        const FAST_BYTES: bool = false;

        #[inline(always)]
        fn splat(self, x: f32) -> float32x4_t {
            // SAFETY: see the impl.
            unsafe { vdupq_n_f32(x) }
        }
        #[inline(always)]
        unsafe fn load(self, from: *const f32) -> float32x4_t {
            // SAFETY: see the impl.
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn load_half(self, from: *const u16) -> float32x4_t {
            // SAFETY: see the impl.
            unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))) }
        }
        #[inline(always)]
        unsafe fn load_bhalf(self, from: *const u16) -> float32x4_t {
            // SAFETY: see the impl.
            unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from))) }
        }
        #[inline(always)]
        unsafe fn load_unsigned(self, from: *const u8) -> float32x4_t {
            // SAFETY: see the impl.
            unsafe {
                let bytes = vcreate_u8(u64::from(from.cast::<u32>().read_unaligned()));
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
            }
        }
        #[inline(always)]
        unsafe fn load_signed(self, from: *const i8) -> float32x4_t {
            // SAFETY: see the impl.
            unsafe {
                let bytes = vcreate_s8(u64::from(from.cast::<u32>().read_unaligned()));
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
            }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32, v: float32x4_t) {
            // SAFETY: see the impl.
            unsafe { vst1q_f32(to, v) }
        }
        #[inline(always)]
        fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: see the impl.
            unsafe { vaddq_f32(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: see the impl.
            unsafe { vmulq_f32(a, b) }
        }
        #[inline(always)]
        fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            // SAFETY: see the impl.
            unsafe { vfmaq_f32(c, a, b) }
        }
        #[inline(always)]
        fn sum(self, v: float32x4_t) -> f32 {
            // SAFETY: see the impl.
            unsafe { vaddvq_f32(v) }
        }
        #[inline(always)]
        fn splat_int(self, x: i32) -> int32x4_t {
            // SAFETY: see the impl.
            unsafe { vdupq_n_s32(x) }
        }
        #[inline(always)]
        unsafe fn load_int(self, from: *const u32) -> int32x4_t {
            // SAFETY: see the impl.
            unsafe { vreinterpretq_s32_u32(vld1q_u32(from)) }
        }
        #[inline(always)]
        fn to_float(self, v: int32x4_t) -> float32x4_t {
            // SAFETY: see the impl.
            unsafe { vcvtq_f32_s32(v) }
        }
        #[inline(always)]
        fn load_bytes(self, from: &[u8; 32]) -> Self::B {
            // SAFETY: see the impl.
            unsafe { (vld1q_u8(from.as_ptr()), vld1q_u8(from.as_ptr().add(16))) }
        }
        #[inline(always)]
        fn store_bytes(self, to: &mut [u8; 32], v: Self::B) {
            // SAFETY: see the impl.
            unsafe {
                vst1q_u8(to.as_mut_ptr(), v.0);
                vst1q_u8(to.as_mut_ptr().add(16), v.1);
            }
        }
        #[inline(always)]
        fn or(self, a: Self::B, b: Self::B) -> Self::B {
            // SAFETY: see the impl.
            unsafe { (vorrq_u8(a.0, b.0), vorrq_u8(a.1, b.1)) }
        }
        #[inline(always)]
        fn xor(self, v: Self::B, bits: u8) -> Self::B {
            // SAFETY: see the impl.
            unsafe {
                (
                    veorq_u8(v.0, vdupq_n_u8(bits)),
                    veorq_u8(v.1, vdupq_n_u8(bits)),
                )
            }
        }
        #[inline(always)]
        fn extract(self, v: Self::B, shift: i32, mask: u8) -> Self::B {
            // SAFETY: see the impl.
            unsafe {
                let (by, mask) = (vdupq_n_s8(-shift as i8), vdupq_n_u8(mask));
                (
                    vandq_u8(vshlq_u8(v.0, by), mask),
                    vandq_u8(vshlq_u8(v.1, by), mask),
                )
            }
        }
        #[inline(always)]
        fn nibbles(self, from: &[u8; 16]) -> Self::B {
            // SAFETY: see the impl.
            unsafe {
                let v = vld1q_u8(from.as_ptr());
                (vandq_u8(v, vdupq_n_u8(15)), vshrq_n_u8::<4>(v))
            }
        }
        #[inline(always)]
        fn fifth_bits(self, bits: u32) -> Self::B {
            // SAFETY: see the impl.
            unsafe {
                let bit = vcreate_u8(0x8040_2010_0804_0201);
                let (bit, sixteen) = (vcombine_u8(bit, bit), vdupq_n_u8(16));
                let [a, b, c, d] = bits.to_le_bytes();
                let low = vcombine_u8(vdup_n_u8(a), vdup_n_u8(b));
                let high = vcombine_u8(vdup_n_u8(c), vdup_n_u8(d));
                let set = (vtstq_u8(low, bit), vtstq_u8(high, bit));
                (vandq_u8(set.0, sixteen), vandq_u8(set.1, sixteen))
            }
        }
        #[inline(always)]
        fn widen_bytes(self, from: &[i8; GROUPS], to: &mut [f32; GROUPS]) {
            // SAFETY: see the impl; 16 bytes are read and 16 numbers written.
            unsafe {
                let v = vld1q_s8(from.as_ptr());
                let (low, high) = (vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v));
                let to = to.as_mut_ptr();
                vst1q_f32(to, vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))));
                vst1q_f32(to.add(4), vcvtq_f32_s32(vmovl_high_s16(low)));
                vst1q_f32(to.add(8), vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))));
                vst1q_f32(to.add(12), vcvtq_f32_s32(vmovl_high_s16(high)));
            }
        }
        #[inline(always)]
        unsafe fn transpose(self, from: *const u32, stride: usize, to: *mut u32) {
            // SAFETY: see the impl.
            unsafe {
                let (a, b) = (vld1q_u32(from), vld1q_u32(from.add(stride)));
                let (c, d) = (
                    vld1q_u32(from.add(2 * stride)),
                    vld1q_u32(from.add(3 * stride)),
                );
                // Columns 0 and 2, 1 and 3 of two rows each.
                let (ab0, ab1) = (vtrn1q_u32(a, b), vtrn2q_u32(a, b));
                let (cd0, cd1) = (vtrn1q_u32(c, d), vtrn2q_u32(c, d));
                let wide = |v| vreinterpretq_u64_u32(v);
                let (ab0, ab1, cd0, cd1) = (wide(ab0), wide(ab1), wide(cd0), wide(cd1));
                vst1q_u32(to, vreinterpretq_u32_u64(vtrn1q_u64(ab0, cd0)));
                vst1q_u32(to.add(PANEL), vreinterpretq_u32_u64(vtrn1q_u64(ab1, cd1)));
                vst1q_u32(
                    to.add(2 * PANEL),
                    vreinterpretq_u32_u64(vtrn2q_u64(ab0, cd0)),
                );
                vst1q_u32(
                    to.add(3 * PANEL),
                    vreinterpretq_u32_u64(vtrn2q_u64(ab1, cd1)),
                );
            }
        }
        pairs_of_vectors!();
        #[inline(always)]
        fn tiles(self, tiles: &Tiles<'_>) {
            tiles.all::<Self, 4, 6>(self);
        }
        #[inline(always)]
        fn int8_tiles<const GROUP: usize, const MIN: bool>(
            self,
            tiles: &gemm_i8::Tiles<'_, GROUP, MIN>,
        ) {
            tiles.all::<Self, 4, 3>(self);
        }
    };
}

// SAFETY (all blocks): the token proves the features; the pointer operations pass on their caller's promise.
impl Simd for Neon {
    common_ops!();

    #[inline(always)]
    fn dot_bytes(self, sum: int32x4_t, w: int32x4_t, x: int32x4_t) -> int32x4_t {
        // SAFETY: see the impl.
        unsafe {
            let (w, x) = (vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
            let high = vpaddlq_s16(vmull_high_s8(w, x));
            vaddq_s32(sum, vpaddq_s32(low, high))
        }
    }
}

impl Neon {
    /// Adds dot products of 16 bytes to four lanes. The quants are unsigned; those that need 8 bits are multiplied as `q - 128`.
    ///
    /// # Safety
    /// `x` is valid for reading 16 bytes.
    #[inline(always)]
    unsafe fn dots<const WIDE: bool>(
        self,
        sum: int32x4_t,
        q: uint8x16_t,
        x: *const i8,
    ) -> int32x4_t {
        // SAFETY: the token proves the features; the caller promises the bytes.
        unsafe {
            let x = vld1q_s8(x);
            let flip = vdupq_n_u8(if WIDE { 0x80 } else { 0 });
            let signed = vreinterpretq_s8_u8(veorq_u8(q, flip));
            let sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(signed), vget_low_s8(x)));
            let sum = vpadalq_s16(sum, vmull_high_s8(signed, x));
            if WIDE {
                vaddq_s32(sum, vshlq_n_s32::<7>(vpaddlq_s16(vpaddlq_s8(x))))
            } else {
                sum
            }
        }
    }
}

// SAFETY (all blocks): the token proves the features; the pointer operations pass on their caller's promise.
impl Simd for NeonDot {
    common_ops!();

    #[inline(always)]
    fn dot_bytes(self, sum: int32x4_t, w: int32x4_t, x: int32x4_t) -> int32x4_t {
        // SAFETY: see the impl.
        unsafe { sdot(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x)) }
    }
}

impl NeonDot {
    /// As [`Neon::dots`].
    ///
    /// # Safety
    /// `x` is valid for reading 16 bytes.
    #[inline(always)]
    unsafe fn dots<const WIDE: bool>(
        self,
        sum: int32x4_t,
        q: uint8x16_t,
        x: *const i8,
    ) -> int32x4_t {
        // SAFETY: the token proves the features; the caller promises the bytes.
        unsafe {
            let x = vld1q_s8(x);
            if WIDE {
                let signed = vreinterpretq_s8_u8(veorq_u8(q, vdupq_n_u8(0x80)));
                let offset = vshlq_n_s32::<7>(sdot(vdupq_n_s32(0), vdupq_n_s8(1), x));
                sdot(vaddq_s32(sum, offset), signed, x)
            } else {
                sdot(sum, vreinterpretq_s8_u8(q), x)
            }
        }
    }
}
