//! Sums: weights times values.

use super::{BYTES, Cells, LANES, NEAR, Scratch, ask, check, inverse, lanes, row};
use std::arch::x86_64::*;

/// Of 32 numbers of four bytes: the second byte of each, then the first of each.
const BYTES_APART: [u8; 64] = {
    let mut apart = [0; 64];
    let mut i = 0;
    while i < 32 {
        (apart[i], apart[32 + i]) = (4 * i as u8 + 1, 4 * i as u8);
        i += 1;
    }
    apart
};
impl Scratch {
    /// `sums[h, i] = Σ_j weights[h, i, j] · v[j, h]` for `N` queries of each head and weights that are not negative, `[heads, N, step]`;
    /// `sums` is `[heads, N, hd]`.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW, VL, DQ, VNNI and VBMI.
    #[target_feature(
        enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi"
    )]
    pub(super) unsafe fn sums<const N: usize>(
        &mut self,
        weights: &[f32],
        step: usize,
        v: Cells<'_>,
        sums: &mut [f32],
    ) {
        let Cells {
            hd, count, heads, ..
        } = v;
        let blocks = check(v);
        assert!(count <= step && weights.len() >= heads * N * step && sums.len() >= heads * N * hd);
        sums[..heads * N * hd].fill(0.0);
        self.weights.resize(N * NEAR / 32, [[0; 32]; 2]);
        let stride = heads * blocks * BYTES;
        for near in (0..count).step_by(NEAR) {
            let there = NEAR.min(count - near);
            self.side_by_side(v, near, there);
            for b in 0..heads * blocks {
                let h = b / blocks;
                let mut steps = [0.0; N];
                for (i, to) in steps.iter_mut().enumerate() {
                    *to = self.round_weights(&weights[(h * N + i) * step + near..][..there], b, i);
                }
                // SAFETY: the rows are inside the cache, by `check`; each query has weights for `NEAR` positions.
                let found = unsafe {
                    let ahead = row(v, near + NEAR).wrapping_add(b * NEAR * BYTES);
                    self.block_sums::<N>(row(v, near).add(b * BYTES), stride, there, ahead)
                };
                for i in 0..N {
                    let to = &mut sums[(h * N + i) * hd + (b - h * blocks) * 32..][..32];
                    for (u, found) in found[i].iter().enumerate() {
                        let x = _mm256_mul_ps(_mm256_cvtepi32_ps(*found), _mm256_set1_ps(steps[i]));
                        // Element 4 u of each 16.
                        // SAFETY: four numbers of 32 each.
                        unsafe {
                            let [first, second] =
                                [to.as_mut_ptr().add(4 * u), to.as_mut_ptr().add(16 + 4 * u)];
                            _mm_storeu_ps(
                                first,
                                _mm_add_ps(_mm_loadu_ps(first), _mm256_castps256_ps128(x)),
                            );
                            _mm_storeu_ps(
                                second,
                                _mm_add_ps(_mm_loadu_ps(second), _mm256_extractf128_ps::<1>(x)),
                            );
                        }
                    }
                }
            }
        }
    }

    /// Products of the rounded weights of `N` queries with the elements of a block of the positions that are near. Meanwhile as many
    /// bytes as they are in one block are asked for from `ahead` on.
    ///
    /// # Safety
    /// `from` is a block of the first of `there` rows, at least one, that are `stride` bytes apart; the weights are rounded.
    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn block_sums<const N: usize>(
        &self,
        from: *const u8,
        stride: usize,
        there: usize,
        ahead: *const u8,
    ) -> [[__m256i; 4]; N] {
        let weights = self.weights.as_ptr().cast::<u8>();
        let mut high = [[_mm256_setzero_si256(); 4]; N];
        let mut low = [[_mm256_setzero_si256(); 4]; N];
        // SAFETY: the caller's promise; what is read beyond the last row is the last row, and weighs nothing.
        unsafe {
            for j in (0..there).step_by(4) {
                ask(ahead.wrapping_add(j * BYTES), 4 * BYTES);
                let mut r = [_mm256_setzero_si256(); 4];
                for i in 0..4 {
                    r[i] = _mm256_loadu_si256(from.add((j + i).min(there - 1) * stride + 2).cast());
                }
                let (a, b) = (
                    _mm256_unpacklo_epi8(r[0], r[1]),
                    _mm256_unpacklo_epi8(r[2], r[3]),
                );
                let (c, d) = (
                    _mm256_unpackhi_epi8(r[0], r[1]),
                    _mm256_unpackhi_epi8(r[2], r[3]),
                );
                let v = [
                    _mm256_unpacklo_epi16(a, b),
                    _mm256_unpackhi_epi16(a, b),
                    _mm256_unpacklo_epi16(c, d),
                    _mm256_unpackhi_epi16(c, d),
                ];
                for i in 0..N {
                    let at = weights
                        .add(2 * i * NEAR + j / 32 * 64 + j % 32)
                        .cast::<i32>();
                    let (wh, wl) = (
                        _mm256_set1_epi32(at.read_unaligned()),
                        _mm256_set1_epi32(at.add(8).read_unaligned()),
                    );
                    for u in 0..4 {
                        high[i][u] = _mm256_dpbusd_epi32(high[i][u], wh, v[u]);
                        low[i][u] = _mm256_dpbusd_epi32(low[i][u], wl, v[u]);
                    }
                }
            }
        }
        for i in 0..N {
            for u in 0..4 {
                low[i][u] = _mm256_add_epi32(low[i][u], _mm256_slli_epi32::<8>(high[i][u]));
            }
        }
        low
    }

    /// Rounds the weights of query `i` times the scales of block `b` to 16 bits; gives what a step of them is.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    #[inline]
    fn round_weights(&mut self, weights: &[f32], b: usize, i: usize) -> f32 {
        let mut products = [_mm512_setzero_ps(); NEAR / LANES];
        let (mut most, mut all) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        for (at, (part, product)) in weights.chunks(LANES).zip(&mut products).enumerate() {
            // SAFETY: as many lanes as there are weights; `scales` has `NEAR` for each block.
            *product = unsafe {
                let weights = _mm512_maskz_loadu_ps(lanes(part.len()), part.as_ptr());
                _mm512_mul_ps(weights, self.scale(b, at * LANES))
            };
            most = _mm512_max_ps(most, *product);
            all = _mm512_fmadd_ps(*product, _mm512_setzero_ps(), all);
        }
        let largest = _mm512_reduce_max_ps(most);
        let inverse = inverse(65535.0, largest);
        // SAFETY: the array has 64 bytes.
        let bytes = unsafe { _mm512_loadu_si512(BYTES_APART.as_ptr().cast()) };
        let inverse = _mm512_set1_ps(inverse);
        for (two, to) in products
            .as_chunks::<2>()
            .0
            .iter()
            .zip(&mut self.weights[i * NEAR / 32..])
        {
            let first = _mm512_cvtps_epi32(_mm512_mul_ps(two[0], inverse));
            let second = _mm512_cvtps_epi32(_mm512_mul_ps(two[1], inverse));
            // SAFETY: 64 bytes.
            unsafe {
                let apart = _mm512_permutex2var_epi8(first, bytes, second);
                _mm512_storeu_si512(to.as_mut_ptr().cast(), apart);
            }
        }
        // A number that is none makes the sums none.
        let none = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(all, all) != 0;
        if none { f32::NAN } else { largest / 65535.0 }
    }
}
