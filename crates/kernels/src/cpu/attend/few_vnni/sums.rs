//! Sums: weights times values.

use super::{BYTES, Cells, LANES, NEAR, Scratch, ask_all, check, inverse, lanes, row};
use std::arch::x86_64::*;

/// Of 32 numbers of four bytes, four by four: the second byte of each, then the first of each.
const BYTES_APART: [u8; 64] = {
    let mut apart = [0; 64];
    let mut i = 0;
    while i < 32 {
        let to = i / 4 * 8 + i % 4;
        (apart[to], apart[to + 4]) = (4 * i as u8 + 1, 4 * i as u8);
        i += 1;
    }
    apart
};
/// What the largest of some weights becomes.
const MOST: f32 = 65535.0;

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
        self.weights.resize(N * NEAR / 32, [0; 64]);
        let stride = heads * blocks * BYTES;
        for near in (0..count).step_by(NEAR) {
            let there = NEAR.min(count - near);
            self.side_by_side(v, near, there);
            for b in 0..heads * blocks {
                let h = b / blocks;
                let scales = self.scales_of(b);
                // A number that is none makes the sums none.
                let mut nothing = _mm512_setzero_ps();
                for scale in scales {
                    nothing = _mm512_fmadd_ps(scale, _mm512_setzero_ps(), nothing);
                }
                let nothing = _mm512_reduce_add_ps(nothing);
                let mut steps = [nothing; N];
                for i in 0..N {
                    let weights = &weights[(h * N + i) * step + near..][..there];
                    steps[i] += self.round_weights(weights, &scales, i);
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
        let (mut rows, mut apart) = (from.wrapping_add(2), [stride, 2 * stride, 3 * stride]);
        // SAFETY: the caller's promise; what is read beyond the last row is the last row, and weighs nothing.
        unsafe {
            for j in (0..there).step_by(4) {
                ask_all(ahead.wrapping_add(j * BYTES), 4 * BYTES);
                if there - j < 4 {
                    for (i, apart) in apart.iter_mut().enumerate() {
                        *apart = (i + 1).min(there - j - 1) * stride;
                    }
                }
                let r = [
                    _mm256_loadu_si256(rows.cast()),
                    _mm256_loadu_si256(rows.add(apart[0]).cast()),
                    _mm256_loadu_si256(rows.add(apart[1]).cast()),
                    _mm256_loadu_si256(rows.add(apart[2]).cast()),
                ];
                rows = rows.wrapping_add(4 * stride);
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
                    let at = weights.add(2 * (i * NEAR + j)).cast::<i32>();
                    let (wh, wl) = (
                        _mm256_set1_epi32(at.read_unaligned()),
                        _mm256_set1_epi32(at.add(1).read_unaligned()),
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

    /// Scales of block `b` of the positions that are near.
    #[target_feature(enable = "avx512f,f16c")]
    #[inline]
    fn scales_of(&self, b: usize) -> [__m512; NEAR / LANES] {
        let mut scales = [_mm512_setzero_ps(); NEAR / LANES];
        for (at, scale) in scales.iter_mut().enumerate() {
            // SAFETY: `scales` has `NEAR` for each block.
            *scale = unsafe { self.scale(b, at * LANES) };
        }
        scales
    }

    /// Rounds the weights of query `i` times `scales` to 16 bits; gives what a step of them is.
    #[target_feature(enable = "avx2,avx512f,avx512vbmi")]
    #[inline]
    fn round_weights(&mut self, weights: &[f32], scales: &[__m512; NEAR / LANES], i: usize) -> f32 {
        let mut products = *scales;
        for (at, product) in products.iter_mut().enumerate() {
            let there = lanes(LANES.min(weights.len().saturating_sub(at * LANES)));
            // SAFETY: the lanes that are read are those there are.
            let weights =
                unsafe { _mm512_maskz_loadu_ps(there, weights.as_ptr().wrapping_add(at * LANES)) };
            *product = _mm512_mul_ps(weights, *product);
        }
        let mut most = products[0];
        for product in &products[1..] {
            most = _mm512_max_ps(most, *product);
        }
        let largest = _mm512_reduce_max_ps(most);
        let inverse = _mm512_set1_ps(inverse(MOST, largest));
        // SAFETY: the array has 64 bytes.
        let bytes = unsafe { _mm512_loadu_si512(BYTES_APART.as_ptr().cast()) };
        let to = &mut self.weights[i * NEAR / 32..][..NEAR / 32];
        for (two, to) in products.as_chunks::<2>().0.iter().zip(to) {
            let first = _mm512_cvtps_epi32(_mm512_mul_ps(two[0], inverse));
            let second = _mm512_cvtps_epi32(_mm512_mul_ps(two[1], inverse));
            // SAFETY: 64 bytes.
            unsafe {
                let apart = _mm512_permutex2var_epi8(first, bytes, second);
                _mm512_storeu_si512(to.as_mut_ptr().cast(), apart);
            }
        }
        largest / MOST
    }
}
