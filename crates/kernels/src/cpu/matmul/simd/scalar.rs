//! The level without instructions of its own: arrays that the compiler may vectorise with what every CPU of the target has.

use super::super::gemm_f32::Tiles;
use super::super::gemm_i8;
use super::super::unpack::{bhalf_to_f32, half_to_f32};
use super::{CHUNK, GROUPS, Simd};

#[derive(Clone, Copy)]
pub(super) struct Scalar;

const LANES: usize = 8;

impl Simd for Scalar {
    type F = [f32; LANES];
    type I = [i32; LANES];
    const LANES: usize = LANES;
    const FMA: bool = false;
    const WIDE_BYTES: bool = true;

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
            sum[i] + products.map(|(w, x)| i32::from(w) * i32::from(x as i8)).sum::<i32>()
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
    fn group_dots<const GROUP: usize, const WIDE: bool>(
        self,
        q: &[u8; CHUNK],
        x: &[i8; CHUNK],
    ) -> [i32; GROUPS] {
        let mut out = [0; GROUPS];
        let groups = q.chunks_exact(GROUP).zip(x.chunks_exact(GROUP));
        for (out, (q, x)) in out.iter_mut().zip(groups) {
            *out = q
                .iter()
                .zip(x)
                .map(|(&q, &x)| i32::from(q) * i32::from(x))
                .sum();
        }
        out
    }
}
