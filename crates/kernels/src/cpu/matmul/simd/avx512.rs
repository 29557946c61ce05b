//! x86-64 with AVX-512: 512-bit vectors, and VNNI's integer dot products.

use super::super::gemm_f32::Tiles;
use super::super::gemm_i8;
use super::{CHUNK, GROUPS, Kernel, Simd, avx2};
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

macro_rules! float_ops {
    () => {
        type F = __m512;
        type I = __m512i;
        const LANES: usize = 16;
        const FMA: bool = true;

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
        fn tiles(self, tiles: &Tiles<'_>) {
            tiles.all::<Self, 2, 12>(self);
        }
    };
}

// SAFETY (all blocks): the token proves the features; the pointer operations pass on their caller's promise.
impl Simd for Avx512 {
    float_ops!();
    const WIDE_BYTES: bool = false;

    #[inline(always)]
    fn dot_bytes(self, sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // SAFETY: see the impl.
        unsafe { 
            let pairs = _mm512_maddubs_epi16(w, x);
            _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
         }
    }

    #[inline(always)]
    fn group_dots<const GROUP: usize, const WIDE: bool>(
        self,
        q: &[u8; CHUNK],
        x: &[i8; CHUNK],
    ) -> [i32; GROUPS] {
        // SAFETY: see the impl.
        unsafe { avx2::group_dots::<GROUP, WIDE>(q, x) }
    }
}

// SAFETY (all blocks): the token proves the features; the pointer operations pass on their caller's promise.
impl Simd for Vnni {
    float_ops!();
    const WIDE_BYTES: bool = true;

    #[inline(always)]
    fn dot_bytes(self, sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // SAFETY: see the impl.
        unsafe { _mm512_dpbusd_epi32(sum, w, x) }
    }

    #[inline(always)]
    fn group_dots<const GROUP: usize, const WIDE: bool>(
        self,
        q: &[u8; CHUNK],
        x: &[i8; CHUNK],
    ) -> [i32; GROUPS] {
        let mut out = [0; GROUPS];
        // SAFETY: see the impl; four loads of 64 bytes cover the arrays, the stores fill at most `out`.
        unsafe {
            // Lanes of four sums per group of 16 elements: four groups to a vector.
            let v = |i: usize| {
                let q = _mm512_loadu_si512(q.as_ptr().add(64 * i).cast());
                let x = _mm512_loadu_si512(x.as_ptr().add(64 * i).cast());
                _mm512_dpbusd_epi32(_mm512_setzero_si512(), q, x)
            };
            let pairs =
                |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            // 128-bit part p of `quads` holds group p of each of the four vectors.
            let (ab, cd) = (pairs(v(0), v(1)), pairs(v(2), v(3)));
            let quads =
                _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            if GROUP == 16 {
                let sums = _mm512_permutexvar_epi32(order, quads);
                _mm512_storeu_si512(out.as_mut_ptr().cast(), sums);
            } else {
                // Neighbouring groups of 16 lie in neighbouring 128-bit parts: add part 1 to 0 and 3 to 2.
                let sums =
                    _mm512_add_epi32(quads, _mm512_shuffle_i32x4::<0b10_11_00_01>(quads, quads));
                let order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 0, 0, 0, 0, 0, 0, 0, 0);
                let sums = _mm512_maskz_permutexvar_epi32(0xff, order, sums);
                _mm512_storeu_si512(out.as_mut_ptr().cast(), sums);
            }
        }
        out
    }
}
