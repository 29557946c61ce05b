//! x86-64 with AVX-512: 512-bit vectors, and VNNI's integer dot products.

use super::super::gemm_f32::Tiles;
use super::super::gemm_i8;
use super::avx2::byte_ops;
use super::{GROUPS, Kernel, PANEL, Simd, avx2};
use std::arch::x86_64::*;

/// Token of AVX-512 F, BW, VL and DQ: made only in [`run`].
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// Token of AVX-512 with VNNI and VBMI: made only in [`run_vnni`].
#[derive(Clone, Copy)]
pub(crate) struct Vnni(());

/// # Safety
/// The CPU has AVX2, FMA, F16C and AVX-512 F, BW, VL, DQ.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

/// # Safety
/// As [`run`], and VNNI and VBMI.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn run_vnni<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Vnni(()))
}

/// [`Simd::transpose`].
///
/// # Safety
/// The CPU has AVX-512 F; all rows are valid for reading and `to` for writing.
#[inline(always)]
unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut r = [_mm512_setzero_ps(); 16];
        for (i, r) in r.iter_mut().enumerate() {
            *r = _mm512_loadu_ps(from.add(i * stride));
        }
        // Pairs, then fours of rows within each 128-bit quarter, then the quarters.
        let mut pairs = r;
        for i in [0, 2, 4, 6, 8, 10, 12, 14] {
            pairs[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
            pairs[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
        }
        let mut fours = pairs;
        for i in [0, 4, 8, 12] {
            fours[i] = _mm512_shuffle_ps::<0x44>(pairs[i], pairs[i + 2]);
            fours[i + 1] = _mm512_shuffle_ps::<0xee>(pairs[i], pairs[i + 2]);
            fours[i + 2] = _mm512_shuffle_ps::<0x44>(pairs[i + 1], pairs[i + 3]);
            fours[i + 3] = _mm512_shuffle_ps::<0xee>(pairs[i + 1], pairs[i + 3]);
        }
        // Quarter q of fours[4 i + j] is column 4 q + j of rows 4 i ...
        for j in 0..4 {
            let (a, b, c, d) = (fours[j], fours[4 + j], fours[8 + j], fours[12 + j]);
            let even = (
                _mm512_shuffle_f32x4::<0x88>(a, b),
                _mm512_shuffle_f32x4::<0x88>(c, d),
            );
            let odd = (
                _mm512_shuffle_f32x4::<0xdd>(a, b),
                _mm512_shuffle_f32x4::<0xdd>(c, d),
            );
            let to = to.add(j * PANEL);
            _mm512_storeu_ps(to, _mm512_shuffle_f32x4::<0x88>(even.0, even.1));
            _mm512_storeu_ps(
                to.add(4 * PANEL),
                _mm512_shuffle_f32x4::<0x88>(odd.0, odd.1),
            );
            _mm512_storeu_ps(
                to.add(8 * PANEL),
                _mm512_shuffle_f32x4::<0xdd>(even.0, even.1),
            );
            _mm512_storeu_ps(
                to.add(12 * PANEL),
                _mm512_shuffle_f32x4::<0xdd>(odd.0, odd.1),
            );
        }
    }
}

macro_rules! float_ops {
    () => {
        type F = __m512;
        type I = __m512i;
        const LANES: usize = 16;
        const FMA: bool = true;
        const SIGNED_BYTES: bool = false;
        const FAST_BYTES: bool = true;

        #[inline(always)]
        fn splat(self, x: f32) -> __m512 {
            // SAFETY: see the impl.
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(self, from: *const f32) -> __m512 {
            // SAFETY: see the impl.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn load_half(self, from: *const u16) -> __m512 {
            // SAFETY: see the impl.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        }
        #[inline(always)]
        unsafe fn load_bhalf(self, from: *const u16) -> __m512 {
            // SAFETY: see the impl.
            unsafe {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32, v: __m512) {
            // SAFETY: see the impl.
            unsafe { _mm512_storeu_ps(to, v) }
        }
        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: see the impl.
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn load_unsigned(self, from: *const u8) -> __m512 {
            // SAFETY: see the impl.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn load_signed(self, from: *const i8) -> __m512 {
            // SAFETY: see the impl.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn transpose(self, from: *const u32, stride: usize, to: *mut u32) {
            // SAFETY: see the impl.
            unsafe { transpose(from.cast(), stride, to.cast()) }
        }
        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: see the impl.
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        fn splat_int(self, x: i32) -> __m512i {
            // SAFETY: see the impl.
            unsafe { _mm512_set1_epi32(x) }
        }
        #[inline(always)]
        unsafe fn load_int(self, from: *const u32) -> __m512i {
            // SAFETY: see the impl.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }
        #[inline(always)]
        fn to_float(self, v: __m512i) -> __m512 {
            // SAFETY: see the impl.
            unsafe { _mm512_cvtepi32_ps(v) }
        }
        #[inline(always)]
        fn int8_tiles<const GROUP: usize, const MIN: bool>(
            self,
            tiles: &gemm_i8::Tiles<'_, GROUP, MIN>,
        ) {
            tiles.all::<Self, 2, 6>(self);
        }
        #[inline(always)]
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: see the impl.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn sum(self, v: __m512) -> f32 {
            // SAFETY: see the impl.
            unsafe { _mm512_reduce_add_ps(v) }
        }
        #[inline(always)]
        fn four_sums(self, [a, b, c, d]: [__m512; 4]) -> [f32; 4] {
            // SAFETY: see the impl.
            unsafe {
                let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                // Each quarter has a, b, c, d.
                let all = _mm512_add_ps(
                    _mm512_shuffle_ps::<0x44>(ab, cd),
                    _mm512_shuffle_ps::<0xee>(ab, cd),
                );
                let half = _mm256_add_ps(
                    _mm512_castps512_ps256(all),
                    _mm512_extractf32x8_ps::<1>(all),
                );
                avx2::halves_sum(half)
            }
        }
        #[inline(always)]
        fn prefetch(self, at: *const u8) {
            // SAFETY: a hint; it reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
        }
        #[inline(always)]
        fn tiles(self, tiles: &Tiles<'_>) {
            tiles.all::<Self, 2, 12>(self);
        }
    };
}

// SAFETY (all blocks): the token proves the features; the pointer operations pass on their caller's promise.
impl Simd for Avx512 {
    byte_ops!();
    float_ops!();

    #[inline(always)]
    fn dot_bytes(self, sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // SAFETY: see the impl.
        unsafe {
            let pairs = _mm512_maddubs_epi16(w, x);
            _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn fifth_bits(self, bits: u32) -> __m256i {
        // SAFETY: see the impl.
        unsafe { _mm256_maskz_set1_epi8(bits, 16) }
    }
}

// SAFETY (all blocks): the token proves the features; the pointer operations pass on their caller's promise.
impl Simd for Vnni {
    byte_ops!();
    float_ops!();

    #[inline(always)]
    fn dot_bytes(self, sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // SAFETY: see the impl.
        unsafe { _mm512_dpbusd_epi32(sum, w, x) }
    }

    #[inline(always)]
    fn fifth_bits(self, bits: u32) -> __m256i {
        // SAFETY: see the impl.
        unsafe { _mm256_maskz_set1_epi8(bits, 16) }
    }
}

impl Avx512 {
    #[inline(always)]
    fn dots_32<const WIDE: bool>(self, q: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the token proves the features.
        unsafe { avx2::dots_32::<WIDE>(q, x) }
    }
}

impl Vnni {
    #[inline(always)]
    fn dots_32<const WIDE: bool>(self, q: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the token proves the features.
        unsafe { _mm256_dpbusd_epi32(_mm256_setzero_si256(), q, x) }
    }
}
