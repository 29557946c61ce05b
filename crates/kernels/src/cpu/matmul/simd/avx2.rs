//! x86-64 with AVX2, FMA and F16C: 256-bit vectors.

use super::super::gemm_f32::Tiles;
use super::super::gemm_i8;
use super::{CHUNK, GROUPS, Kernel, Simd};
use std::arch::x86_64::*;

/// Token: made only in [`run`].
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// # Safety
/// The CPU has AVX2, FMA and F16C.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// The integer dot products of a chunk, 256-bit; also the AVX-512 level's without VNNI.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn group_dots<const GROUP: usize, const WIDE: bool>(
    q: &[u8; CHUNK],
    x: &[i8; CHUNK],
) -> [i32; GROUPS] {
    let mut out = [0; GROUPS];
    // SAFETY: AVX2 is the caller's promise; the loads stay inside the arrays, the stores inside `out`: eight vectors of 32
    // bytes cover the 256 elements.
    unsafe {
        // Eight sums per 32 elements: lanes 0..4 from the first 16 elements, 4..8 from the last.
        let block = |i: usize| {
            let q = q.as_ptr().add(32 * i);
            let x = x.as_ptr().add(32 * i);
            if WIDE {
                let wide = |j: usize| {
                    let q = _mm256_cvtepu8_epi16(_mm_loadu_si128(q.add(16 * j).cast()));
                    let x = _mm256_cvtepi8_epi16(_mm_loadu_si128(x.add(16 * j).cast()));
                    _mm256_madd_epi16(q, x)
                };
                let (a, b) = (wide(0), wide(1));
                let low = _mm256_permute2x128_si256::<0x20>(a, b);
                let high = _mm256_permute2x128_si256::<0x31>(a, b);
                _mm256_add_epi32(low, high)
            } else {
                let q = _mm256_loadu_si256(q.cast());
                let x = _mm256_loadu_si256(x.cast());
                _mm256_madd_epi16(_mm256_maddubs_epi16(q, x), _mm256_set1_epi16(1))
            }
        };
        for half in 0..2 {
            let v = |i: usize| block(4 * half + i);
            let ab = _mm256_hadd_epi32(v(0), v(1));
            let cd = _mm256_hadd_epi32(v(2), v(3));
            // Per 128-bit half: the sums of groups of 16, [a b c d] for the first and [a' b' c' d'] for the second 16.
            let abcd = _mm256_hadd_epi32(ab, cd);
            let (low, high) = (
                _mm256_castsi256_si128(abcd),
                _mm256_extracti128_si256::<1>(abcd),
            );
            if GROUP == 32 {
                _mm_storeu_si128(
                    out.as_mut_ptr().add(4 * half).cast(),
                    _mm_add_epi32(low, high),
                );
            } else {
                let to = out.as_mut_ptr().add(8 * half);
                _mm_storeu_si128(to.cast(), _mm_unpacklo_epi32(low, high));
                _mm_storeu_si128(to.add(4).cast(), _mm_unpackhi_epi32(low, high));
            }
        }
    }
    out
}

// SAFETY (all blocks): the token proves the features; the pointer operations pass on their caller's promise.
impl Simd for Avx2 {
    type F = __m256;
    type I = __m256i;
    const LANES: usize = 8;
    const FMA: bool = true;
    const WIDE_BYTES: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_half(self, from: *const u16) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bhalf(self, from: *const u16) -> __m256 {
        // SAFETY: see the impl.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: __m256) {
        // SAFETY: see the impl.
        unsafe { _mm256_storeu_ps(to, v) }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        // SAFETY: see the impl.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn tiles(self, tiles: &Tiles<'_>) {
        tiles.all::<Self, 2, 6>(self);
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> __m256i {
        // SAFETY: see the impl.
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load_int(self, from: *const u32) -> __m256i {
        // SAFETY: see the impl.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    fn dot_bytes(self, sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: see the impl.
        unsafe {
            let pairs = _mm256_maddubs_epi16(w, x);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    fn to_float(self, v: __m256i) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_cvtepi32_ps(v) }
    }
    #[inline(always)]
    fn int8_tiles<const GROUP: usize, const MIN: bool>(
        self,
        tiles: &gemm_i8::Tiles<'_, GROUP, MIN>,
    ) {
        tiles.all::<Self, 2, 3>(self);
    }
    #[inline(always)]
    fn group_dots<const GROUP: usize, const WIDE: bool>(
        self,
        q: &[u8; CHUNK],
        x: &[i8; CHUNK],
    ) -> [i32; GROUPS] {
        // SAFETY: see the impl.
        unsafe { group_dots::<GROUP, WIDE>(q, x) }
    }
}
