//! x86-64 with AVX2, FMA and F16C: 256-bit vectors.

use super::super::gemm_f32::Tiles;
use super::super::gemm_i8;
use super::super::prepare::scale_and_inverse;
use super::{GROUPS, Kernel, PANEL, Simd};
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

/// Operations on vectors of 32 bytes and 8 floats, the same at every x86-64 level but for the dot product of bytes.
macro_rules! byte_ops {
    () => {
        type B = __m256i;
        type H = __m256;

        #[inline(always)]
        fn load_bytes(self, from: &[u8; 32]) -> __m256i {
            // SAFETY: see the impl.
            unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
        }
        #[inline(always)]
        fn store_bytes(self, to: &mut [u8; 32], v: __m256i) {
            // SAFETY: see the impl.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) }
        }
        #[inline(always)]
        fn or(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: see the impl.
            unsafe { _mm256_or_si256(a, b) }
        }
        #[inline(always)]
        fn xor(self, v: __m256i, bits: u8) -> __m256i {
            // SAFETY: see the impl.
            unsafe { _mm256_xor_si256(v, _mm256_set1_epi8(bits as i8)) }
        }
        #[inline(always)]
        fn extract(self, v: __m256i, shift: i32, mask: u8) -> __m256i {
            // SAFETY: see the impl.
            unsafe {
                let moved = if shift < 0 {
                    _mm256_sll_epi16(v, _mm_cvtsi32_si128(-shift))
                } else {
                    _mm256_srl_epi16(v, _mm_cvtsi32_si128(shift))
                };
                _mm256_and_si256(moved, _mm256_set1_epi8(mask as i8))
            }
        }
        #[inline(always)]
        fn nibbles(self, from: &[u8; 16]) -> __m256i {
            // SAFETY: see the impl.
            unsafe {
                let both = _mm256_broadcastsi128_si256(_mm_loadu_si128(from.as_ptr().cast()));
                let shifts = _mm256_setr_epi64x(0, 0, 4, 4);
                _mm256_and_si256(_mm256_srlv_epi64(both, shifts), _mm256_set1_epi8(15))
            }
        }
        #[inline(always)]
        fn widen_bytes(self, from: &[i8; GROUPS], to: &mut [f32; GROUPS]) {
            // SAFETY: see the impl; the loads read 8 of 16 bytes each, the stores write 8 of 16 numbers each.
            unsafe {
                let (from, to) = (from.as_ptr(), to.as_mut_ptr());
                for i in [0, 8] {
                    let wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(i).cast()));
                    _mm256_storeu_ps(to.add(i), _mm256_cvtepi32_ps(wide));
                }
            }
        }
        #[inline(always)]
        fn quantize(self, x: &[f32; 32], q: &mut [i8; 32]) -> (f32, [i32; 2]) {
            // SAFETY: see the impl.
            unsafe { $crate::cpu::matmul::simd::avx2::quantize(x, q) }
        }
        #[inline(always)]
        fn eight_zeros(self) -> __m256 {
            // SAFETY: see the impl.
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn eight_load(self, from: *const f32) -> __m256 {
            // SAFETY: see the impl.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn eight_store(self, to: *mut f32, v: __m256) {
            // SAFETY: see the impl.
            unsafe { _mm256_storeu_ps(to, v) }
        }
        #[inline(always)]
        fn eight_add(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: see the impl.
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        fn eight_mul(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: see the impl.
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        fn eight_mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: see the impl.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn eight_sum(self, v: __m256) -> f32 {
            // SAFETY: see the impl.
            unsafe { $crate::cpu::matmul::simd::avx2::eight_sum(v) }
        }
        #[inline(always)]
        unsafe fn dot_32<const GROUP: usize, const WIDE: bool>(
            self,
            sum: __m256,
            q: __m256i,
            x: *const i8,
            scale: *const f32,
        ) -> __m256 {
            // SAFETY: see the impl.
            unsafe {
                let dots = self.dots_32::<WIDE>(q, _mm256_loadu_si256(x.cast()));
                let scale = if GROUP == 16 {
                    let pair = _mm256_castpd_ps(_mm256_broadcast_sd(&*scale.cast()));
                    _mm256_permutevar8x32_ps(pair, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1))
                } else {
                    _mm256_broadcast_ss(&*scale)
                };
                _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, sum)
            }
        }
    };
}
pub(super) use byte_ops;

/// [`Simd::quantize`].
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn quantize(x: &[f32; 32], q: &mut [i8; 32]) -> (f32, [i32; 2]) {
    // SAFETY: AVX2 is the caller's promise; the loads and the store are of 32 elements.
    unsafe {
        let at = |i: usize| _mm256_loadu_ps(x.as_ptr().add(8 * i));
        let x = [at(0), at(1), at(2), at(3)];
        let sign = _mm256_set1_ps(-0.0);
        let abs = |i: usize| _mm256_andnot_ps(sign, x[i]);
        let top = _mm256_max_ps(_mm256_max_ps(abs(0), abs(1)), _mm256_max_ps(abs(2), abs(3)));
        // 0 · x is NaN for infinities and NaN, which `max` may lose.
        let zero = _mm256_setzero_ps();
        let poison = |i: usize| _mm256_mul_ps(x[i], zero);
        let poison = _mm256_add_ps(
            _mm256_add_ps(poison(0), poison(1)),
            _mm256_add_ps(poison(2), poison(3)),
        );
        let top = _mm_max_ps(_mm256_castps256_ps128(top), _mm256_extractf128_ps::<1>(top));
        let top = _mm_max_ps(top, _mm_movehl_ps(top, top));
        let top = _mm_cvtss_f32(_mm_max_ss(top, _mm_movehdup_ps(top)));
        let (mut scale, inverse) = scale_and_inverse(top);
        if _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(poison, poison)) != 0 {
            scale = f32::NAN;
        }
        let inverse = _mm256_set1_ps(inverse);
        let round = |i: usize| _mm256_cvtps_epi32(_mm256_mul_ps(x[i], inverse));
        // Packing works within 128-bit halves: the last step puts the eighths in order.
        let pairs = [
            _mm256_packs_epi32(round(0), round(1)),
            _mm256_packs_epi32(round(2), round(3)),
        ];
        let bytes = _mm256_packs_epi16(pairs[0], pairs[1]);
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let bytes = _mm256_permutevar8x32_epi32(bytes, order);
        _mm256_storeu_si256(q.as_mut_ptr().cast(), bytes);
        let twos = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
        let fours = _mm256_madd_epi16(twos, _mm256_set1_epi16(1));
        let halves = _mm256_hadd_epi32(fours, fours);
        let halves = _mm256_hadd_epi32(halves, halves);
        (
            scale,
            [
                _mm256_extract_epi32::<0>(halves),
                _mm256_extract_epi32::<4>(halves),
            ],
        )
    }
}

/// The sum of all lanes.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn eight_sum(v: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// The sums of both halves.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn halves_sum(v: __m256) -> [f32; 4] {
    let mut sums = [0.0; 4];
    // SAFETY: the caller's promise; `sums` has four numbers.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        _mm_storeu_ps(sums.as_mut_ptr(), four);
    }
    sums
}

/// Dot products of the four bytes in each lane's place, not necessarily kept within its half if `WIDE`.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn dots_32<const WIDE: bool>(q: __m256i, x: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        if WIDE {
            // Products of neighbours may exceed 16 bits: multiply as 16-bit numbers.
            let (q0, q1) = (_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q));
            let (x0, x1) = (_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            let low = _mm256_madd_epi16(_mm256_cvtepu8_epi16(q0), _mm256_cvtepi8_epi16(x0));
            let high = _mm256_madd_epi16(_mm256_cvtepu8_epi16(q1), _mm256_cvtepi8_epi16(x1));
            _mm256_add_epi32(low, high)
        } else {
            _mm256_madd_epi16(_mm256_maddubs_epi16(q, x), _mm256_set1_epi16(1))
        }
    }
}

/// 16 where a bit is set.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn fifth_bits(bits: u32) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        // Byte j of the word's byte j / 8, against bit j % 8.
        let spread = _mm256_setr_epi64x(
            0,
            0x0101_0101_0101_0101,
            0x0202_0202_0202_0202,
            0x0303_0303_0303_0303,
        );
        let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
        let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits as i32), spread);
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
        _mm256_and_si256(set, _mm256_set1_epi8(16))
    }
}

// SAFETY (all blocks): the token proves the features; the pointer operations pass on their caller's promise.
impl Simd for Avx2 {
    byte_ops!();

    type F = __m256;
    type I = __m256i;
    const LANES: usize = 8;
    const FMA: bool = true;
    const SIGNED_BYTES: bool = false;
    const FAST_BYTES: bool = false;

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
        unsafe { eight_sum(v) }
    }
    #[inline(always)]
    fn four_sums(self, [a, b, c, d]: [__m256; 4]) -> [f32; 4] {
        // SAFETY: see the impl.
        unsafe { halves_sum(_mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d))) }
    }
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a hint; it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
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
    fn fifth_bits(self, bits: u32) -> __m256i {
        // SAFETY: see the impl.
        unsafe { fifth_bits(bits) }
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const u32, stride: usize, to: *mut u32) {
        // SAFETY: see the impl.
        unsafe {
            let from: *const f32 = from.cast();
            let mut r = [_mm256_setzero_ps(); 8];
            for (i, r) in r.iter_mut().enumerate() {
                *r = _mm256_loadu_ps(from.add(i * stride));
            }
            // Pairs, then fours of rows within each 128-bit half, then the halves.
            let mut pairs = r;
            for i in [0, 2, 4, 6] {
                pairs[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
                pairs[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
            }
            let mut fours = pairs;
            for i in [0, 4] {
                fours[i] = _mm256_shuffle_ps::<0x44>(pairs[i], pairs[i + 2]);
                fours[i + 1] = _mm256_shuffle_ps::<0xee>(pairs[i], pairs[i + 2]);
                fours[i + 2] = _mm256_shuffle_ps::<0x44>(pairs[i + 1], pairs[i + 3]);
                fours[i + 3] = _mm256_shuffle_ps::<0xee>(pairs[i + 1], pairs[i + 3]);
            }
            for j in 0..4 {
                let to: *mut f32 = to.cast::<f32>().add(j * PANEL);
                let low = _mm256_permute2f128_ps::<0x20>(fours[j], fours[4 + j]);
                let high = _mm256_permute2f128_ps::<0x31>(fours[j], fours[4 + j]);
                _mm256_storeu_ps(to, low);
                _mm256_storeu_ps(to.add(4 * PANEL), high);
            }
        }
    }
    #[inline(always)]
    unsafe fn load_unsigned(self, from: *const u8) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_signed(self, from: *const i8) -> __m256 {
        // SAFETY: see the impl.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }
}

impl Avx2 {
    #[inline(always)]
    fn dots_32<const WIDE: bool>(self, q: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the token proves the features.
        unsafe { dots_32::<WIDE>(q, x) }
    }
}
