//! The level without instructions of its own: arrays that the compiler may vectorise with what every CPU of the target has.

use super::super::gemm_f32::Tiles;
use super::super::gemm_i8;
use super::super::unpack::{bhalf_to_f32, half_to_f32};
use super::{GROUPS, PANEL, Simd};

#[derive(Clone, Copy)]
pub(super) struct Scalar;

const LANES: usize = 8;

impl Simd for Scalar {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type B = [u8; 32];
    type H = [f32; 8];
    const LANES: usize = LANES;
    const FMA: bool = false;
    const SIGNED_BYTES: bool = false;
    const FAST_BYTES: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: the caller's promise; an array of f32 has no alignment beyond what `read_unaligned` lifts.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_half(self, from: *const u16) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[u16; LANES]>().read_unaligned() }.map(half_to_f32)
    }
    #[inline(always)]
    unsafe fn load_bhalf(self, from: *const u16) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[u16; LANES]>().read_unaligned() }.map(bhalf_to_f32)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: Self::F) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(v) }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        v.iter().sum()
    }
    #[inline(always)]
    fn tiles(self, tiles: &Tiles<'_>) {
        tiles.all::<Self, 1, 4>(self);
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load_int(self, from: *const u32) -> Self::I {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[i32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    fn dot_bytes(self, sum: Self::I, w: Self::I, x: Self::I) -> Self::I {
        std::array::from_fn(|i| {
            let products = w[i].to_le_bytes().into_iter().zip(x[i].to_le_bytes());
            sum[i]
                + products
                    .map(|(w, x)| i32::from(w) * i32::from(x as i8))
                    .sum::<i32>()
        })
    }
    #[inline(always)]
    fn to_float(self, v: Self::I) -> Self::F {
        v.map(|v| v as f32)
    }
    #[inline(always)]
    fn int8_tiles<const GROUP: usize, const MIN: bool>(
        self,
        tiles: &gemm_i8::Tiles<'_, GROUP, MIN>,
    ) {
        tiles.all::<Self, 1, 2>(self);
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 32]) -> [u8; 32] {
        *from
    }
    #[inline(always)]
    fn store_bytes(self, to: &mut [u8; 32], v: [u8; 32]) {
        *to = v;
    }
    #[inline(always)]
    fn or(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn xor(self, v: [u8; 32], bits: u8) -> [u8; 32] {
        v.map(|v| v ^ bits)
    }
    #[inline(always)]
    fn extract(self, v: [u8; 32], shift: i32, mask: u8) -> [u8; 32] {
        v.map(|v| {
            if shift < 0 {
                v << -shift & mask
            } else {
                v >> shift & mask
            }
        })
    }
    #[inline(always)]
    fn nibbles(self, from: &[u8; 16]) -> [u8; 32] {
        std::array::from_fn(|i| {
            if i < 16 {
                from[i] & 15
            } else {
                from[i - 16] >> 4
            }
        })
    }
    #[inline(always)]
    fn fifth_bits(self, bits: u32) -> [u8; 32] {
        std::array::from_fn(|i| (bits >> i & 1) as u8 * 16)
    }
    #[inline(always)]
    fn widen_bytes(self, from: &[i8; GROUPS], to: &mut [f32; GROUPS]) {
        *to = from.map(f32::from);
    }
    #[inline(always)]
    unsafe fn load_unsigned(self, from: *const u8) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[u8; LANES]>().read() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn load_signed(self, from: *const i8) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[i8; LANES]>().read() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const u32, stride: usize, to: *mut u32) {
        for i in 0..LANES {
            for j in 0..LANES {
                // SAFETY: the caller's promise.
                unsafe {
                    let word = from.add(i * stride + j).read_unaligned();
                    to.add(j * PANEL + i).write_unaligned(word);
                }
            }
        }
    }
    #[inline(always)]
    fn eight_zeros(self) -> [f32; 8] {
        [0.0; 8]
    }
    #[inline(always)]
    unsafe fn eight_load(self, from: *const f32) -> [f32; 8] {
        // SAFETY: the caller's promise.
        unsafe { self.load(from) }
    }
    #[inline(always)]
    unsafe fn eight_store(self, to: *mut f32, v: [f32; 8]) {
        // SAFETY: the caller's promise.
        unsafe { self.store(to, v) }
    }
    #[inline(always)]
    fn eight_add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        self.add(a, b)
    }
    #[inline(always)]
    fn eight_mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        self.mul(a, b)
    }
    #[inline(always)]
    fn eight_mul_add(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        self.mul_add(a, b, c)
    }
    #[inline(always)]
    fn eight_sum(self, v: [f32; 8]) -> f32 {
        self.sum(v)
    }
    #[inline(always)]
    unsafe fn dot_32<const GROUP: usize, const WIDE: bool>(
        self,
        mut sum: [f32; 8],
        q: [u8; 32],
        x: *const i8,
        scale: *const f32,
    ) -> [f32; 8] {
        // SAFETY: the caller's promise.
        let x = unsafe { x.cast::<[i8; 32]>().read() };
        for half in 0..2 {
            let mut dot = 0;
            for i in 16 * half..16 * half + 16 {
                dot += i32::from(q[i]) * i32::from(x[i]);
            }
            // SAFETY: the caller's promise: two scales with groups of 16, else one.
            sum[half] += dot as f32 * unsafe { *scale.add(if GROUP == 16 { half } else { 0 }) };
        }
        sum
    }
}
