//! The two passes with AVX2, for weights of 16 bits: pairs of samples times pairs of weights, summed in 32 bits.
//!
//! Samples as 16-bit numbers and weights as 16-bit numbers go through `madd`, which multiplies both of a pair and adds. All
//! sums are integers and fit, so the results are those of `rows`.

use super::weights::Axis;
use core::arch::x86_64::{
    __m128i, __m256i, _mm_cvtsi32_si128, _mm256_add_epi32, _mm256_castsi128_si256,
    _mm256_extract_epi32, _mm256_inserti128_si256, _mm256_madd_epi16, _mm256_packs_epi32,
    _mm256_packus_epi16, _mm256_set_epi8, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_sra_epi32, _mm256_unpackhi_epi8, _mm256_unpacklo_epi8,
};
use fearless_simd::{prelude::*, u8x16, u8x32};

/// How many bytes past a row the horizontal pass may read; they have no weight.
pub(super) const BEYOND: usize = 24;

#[inline(always)]
fn rgb(word: i32) -> [u8; 3] {
    let [r, g, b, _] = word.to_le_bytes();
    [r, g, b]
}

fearless_simd::kernel!(
    /// Four rows along their length. `from` are the rows, each followed by at least [`BEYOND`] bytes of anything.
    pub(super) fn across(avx2: Avx2, from: [&[u8]; 4], axis: &Axis, out: [&mut [u8]; 4]) {
        // Of twelve bytes RGBRGBRGBRGB the samples 0 and 1, then 2 and 3 of each channel, as pairs of 16-bit numbers.
        let first = _mm256_set_epi8(
            -1, -1, -1, -1, -1, 5, -1, 2, -1, 4, -1, 1, -1, 3, -1, 0, -1, -1, -1, -1, -1, 5, -1, 2,
            -1, 4, -1, 1, -1, 3, -1, 0,
        );
        let second = _mm256_set_epi8(
            -1, -1, -1, -1, -1, 11, -1, 8, -1, 10, -1, 7, -1, 9, -1, 6, -1, -1, -1, -1, -1, 11, -1,
            8, -1, 10, -1, 7, -1, 9, -1, 6,
        );
        let half = _mm256_set1_epi32(1 << (axis.shift - 1));
        let shift = _mm_cvtsi32_si128(axis.shift as i32);
        let [o0, o1, o2, o3] = out;
        let outs = o0
            .as_chunks_mut::<3>()
            .0
            .iter_mut()
            .zip(o1.as_chunks_mut::<3>().0.iter_mut());
        let outs = outs
            .zip(o2.as_chunks_mut::<3>().0.iter_mut())
            .zip(o3.as_chunks_mut::<3>().0.iter_mut());
        let [f0, f1, f2, f3] = from;
        // No closures around instructions: they would be functions without AVX2, called for every sample.
        macro_rules! two {
            ($a:expr, $b:expr) => {{
                let a: __m128i = u8x16::from_slice(avx2, $a).into();
                let b: __m128i = u8x16::from_slice(avx2, $b).into();
                _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b)
            }};
        }
        for (x, (((o0, o1), o2), o3)) in outs.enumerate() {
            let (start, quads) = axis.quads(x);
            let (mut s0, mut s1) = (half, _mm256_setzero_si256());
            let (mut s2, mut s3) = (half, _mm256_setzero_si256());
            let window = start * 3..start * 3 + quads.len() * 12 + 4;
            let (r0, r1) = (&f0[window.clone()], &f1[window.clone()]);
            let (r2, r3) = (&f2[window.clone()], &f3[window]);
            for (i, quad) in quads.iter().enumerate() {
                let at = i * 12..i * 12 + 16;
                let (w0, w1) = (_mm256_set1_epi32(quad[0]), _mm256_set1_epi32(quad[1]));
                let samples = two!(&r0[at.clone()], &r1[at.clone()]);
                s0 = _mm256_add_epi32(
                    s0,
                    _mm256_madd_epi16(_mm256_shuffle_epi8(samples, first), w0),
                );
                s1 = _mm256_add_epi32(
                    s1,
                    _mm256_madd_epi16(_mm256_shuffle_epi8(samples, second), w1),
                );
                let samples = two!(&r2[at.clone()], &r3[at]);
                s2 = _mm256_add_epi32(
                    s2,
                    _mm256_madd_epi16(_mm256_shuffle_epi8(samples, first), w0),
                );
                s3 = _mm256_add_epi32(
                    s3,
                    _mm256_madd_epi16(_mm256_shuffle_epi8(samples, second), w1),
                );
            }
            let a = _mm256_sra_epi32(_mm256_add_epi32(s0, s1), shift);
            let b = _mm256_sra_epi32(_mm256_add_epi32(s2, s3), shift);
            // Saturated to 16 bits with their sign, then to 8 without: rows 0 and 2 in the lower half, 1 and 3 above.
            let words = _mm256_packs_epi32(a, b);
            let bytes = _mm256_packus_epi16(words, words);
            *o0 = rgb(_mm256_extract_epi32::<0>(bytes));
            *o2 = rgb(_mm256_extract_epi32::<1>(bytes));
            *o1 = rgb(_mm256_extract_epi32::<4>(bytes));
            *o3 = rgb(_mm256_extract_epi32::<5>(bytes));
        }
    }
);

fearless_simd::kernel!(
    /// As `rows::down` for the whole blocks of 32 bytes of the row; gives how many bytes those are.
    pub(super) fn down(avx2: Avx2, from: &[u8], axis: &Axis, y: usize, out: &mut [u8]) -> usize {
        let (_, weights) = axis.get(y);
        let stride = out.len();
        let zero = _mm256_setzero_si256();
        let half = _mm256_set1_epi32(1 << (axis.shift - 1));
        let shift = _mm_cvtsi32_si128(axis.shift as i32);
        let (blocks, _) = out.as_chunks_mut::<32>();
        let done = blocks.len() * 32;
        for (block, out) in blocks.iter_mut().enumerate() {
            let (mut s0, mut s1, mut s2, mut s3) = (half, half, half, half);
            macro_rules! add {
                ($a:expr, $b:expr, $pair:expr) => {{
                    let (a, b, pair) = ($a, $b, _mm256_set1_epi32($pair));
                    let (low, high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
                    s0 = _mm256_add_epi32(
                        s0,
                        _mm256_madd_epi16(_mm256_unpacklo_epi8(low, zero), pair),
                    );
                    s1 = _mm256_add_epi32(
                        s1,
                        _mm256_madd_epi16(_mm256_unpackhi_epi8(low, zero), pair),
                    );
                    s2 = _mm256_add_epi32(
                        s2,
                        _mm256_madd_epi16(_mm256_unpacklo_epi8(high, zero), pair),
                    );
                    s3 = _mm256_add_epi32(
                        s3,
                        _mm256_madd_epi16(_mm256_unpackhi_epi8(high, zero), pair),
                    );
                }};
            }
            macro_rules! row {
                ($i:expr) => {{
                    let at = $i * stride + block * 32;
                    let row: __m256i = u8x32::from_slice(avx2, &from[at..at + 32]).into();
                    row
                }};
            }
            let (pairs, last) = weights.as_chunks::<2>();
            for (i, pair) in pairs.iter().enumerate() {
                let word = (pair[0] as u16 as u32 | (pair[1] as u16 as u32) << 16) as i32;
                add!(row!(i * 2), row!(i * 2 + 1), word);
            }
            if let [w] = last {
                add!(row!(weights.len() - 1), zero, i32::from(*w as u16));
            }
            let low = _mm256_packs_epi32(_mm256_sra_epi32(s0, shift), _mm256_sra_epi32(s1, shift));
            let high = _mm256_packs_epi32(_mm256_sra_epi32(s2, shift), _mm256_sra_epi32(s3, shift));
            let bytes = _mm256_packus_epi16(low, high);
            let bytes: u8x32<_> = bytes.simd_into(avx2);
            bytes.store_slice(out);
        }
        done
    }
);
