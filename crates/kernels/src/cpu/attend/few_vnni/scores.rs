//! Scores: queries times keys.

use super::{BYTES, Cells, LANES, NEAR, Scratch, ask, check, inverse, lanes, row};
use std::arch::x86_64::*;

/// What the largest number of a block of queries becomes: its high byte is 127, its low one 0.
const MOST: f32 = 32512.0;
impl Scratch {
    /// Rounds queries `[…, hd]` to 16 bits, in blocks of 32.
    pub(crate) fn set_queries(&mut self, queries: &[f32]) {
        let [high, low] = &mut self.queries;
        high.clear();
        low.clear();
        self.steps.clear();
        self.begins.clear();
        for block in queries.as_chunks::<32>().0 {
            let largest = block.iter().fold(0f32, |most, q| most.max(q.abs()));
            // A number that is none makes the scores none.
            let nothing = block.iter().map(|q| q * 0.0).sum::<f32>();
            let inverse = inverse(MOST, largest);
            self.steps.push(largest / MOST + nothing);
            let (mut sum, at) = (0, high.len());
            high.resize(at + 4, [0; 8]);
            low.resize(at + 4, [0; 8]);
            for (d, four) in block.as_chunks::<4>().0.iter().enumerate() {
                let (mut highs, mut lows) = ([0; 4], [0; 4]);
                for i in 0..4 {
                    // `f32::round` is a library call where the compiler may not use what this CPU has.
                    let x = four[i] * inverse;
                    let rounded = (x + 0.5_f32.copysign(x)) as i32;
                    // The low byte is signed, too.
                    (highs[i], lows[i]) = (((rounded + 128) >> 8) as u8, rounded as u8);
                    sum += rounded;
                }
                high[at + d % 4][d / 4 * 4..][..4].fill(i32::from_le_bytes(highs));
                low[at + d % 4][d / 4 * 4..][..4].fill(i32::from_le_bytes(lows));
            }
            self.begins.push(-128 * sum);
        }
    }

    /// `scores[h, i, j] = q[h, i] · k[j, h]` for the `N` queries of each head that were set; `scores` is `[heads, N, step]`.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW, VL, DQ, VNNI and VBMI.
    #[target_feature(
        enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi"
    )]
    pub(super) unsafe fn scores<const N: usize>(
        &mut self,
        k: Cells<'_>,
        scores: &mut [f32],
        step: usize,
    ) {
        let Cells {
            hd, count, heads, ..
        } = k;
        let blocks = check(k);
        assert!(
            self.queries.iter().all(|q| q.len() >= heads * N * hd / 8)
                && self.steps.len() >= heads * N * blocks
        );
        assert!(count <= step && scores.len() >= heads * N * step);
        let stride = heads * blocks * BYTES;
        for near in (0..count).step_by(NEAR) {
            let there = NEAR.min(count - near);
            self.side_by_side(k, near, there);
            for j in (0..there).step_by(LANES) {
                let n = LANES.min(there - j);
                let mut rows = row(k, near + j);
                let ahead = rows.wrapping_add(NEAR * stride);
                if n < LANES {
                    self.rest.resize(LANES * stride, 0);
                    for (i, to) in self.rest.chunks_exact_mut(stride).enumerate() {
                        // SAFETY: the row is inside the cache, by `check`.
                        to.copy_from_slice(unsafe {
                            std::slice::from_raw_parts(rows.add(i.min(n - 1) * stride), stride)
                        });
                    }
                    rows = self.rest.as_ptr();
                }
                for h in 0..heads {
                    let mut found = [_mm512_setzero_ps(); N];
                    for b in h * blocks..(h + 1) * blocks {
                        ask(ahead.wrapping_add(b * LANES * BYTES), LANES * BYTES);
                        // SAFETY: sixteen rows of `heads · blocks` blocks are there; the rest was asserted.
                        unsafe {
                            self.add_block::<N>(
                                &mut found,
                                rows.add(b * BYTES),
                                stride,
                                (h, b, blocks),
                                j,
                            )
                        };
                    }
                    for i in 0..N {
                        let to = &mut scores[(h * N + i) * step + near + j..][..n];
                        // SAFETY: the first `n` lanes are those of `to`.
                        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), lanes(n), found[i]) };
                    }
                }
            }
        }
    }

    /// Adds what block `b` of all blocks of a position, one of head `h`, gives the scores of sixteen positions.
    ///
    /// # Safety
    /// `from` is block `b` of the first of sixteen rows that are `stride` bytes apart, position `j` of those whose scales are side by
    /// side; the queries are set for all heads.
    #[target_feature(
        enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi"
    )]
    #[inline]
    unsafe fn add_block<const N: usize>(
        &self,
        found: &mut [__m512; N],
        from: *const u8,
        stride: usize,
        (h, b, blocks): (usize, usize, usize),
        j: usize,
    ) {
        let [q_high, q_low] = [self.queries[0].as_ptr(), self.queries[1].as_ptr()];
        // Of eight rows each.
        let (mut high, mut low) = (
            [[_mm512_setzero_si512(); 2]; N],
            [[_mm512_setzero_si512(); 2]; N],
        );
        // SAFETY: the caller's promise; query `i` of the head has four numbers for each of its blocks.
        unsafe {
            for rows in 0..2 {
                let turned = turn(from.add(8 * rows * stride + 2), stride);
                for d in 0..4 {
                    let k = _mm512_xor_si512(turned[d], _mm512_set1_epi8(-128));
                    for i in 0..N {
                        let at = ((h * N + i) * blocks + b - h * blocks) * 4 + d;
                        let q = _mm512_broadcast_i64x4(_mm256_loadu_si256(q_high.add(at).cast()));
                        high[i][rows] = _mm512_dpbusd_epi32(high[i][rows], k, q);
                        let q = _mm512_broadcast_i64x4(_mm256_loadu_si256(q_low.add(at).cast()));
                        low[i][rows] = _mm512_dpbusd_epi32(low[i][rows], k, q);
                    }
                }
            }
            let scale = self.scale(b, j);
            for i in 0..N {
                let at = (h * N + i) * blocks + b - h * blocks;
                let begin = _mm512_set1_epi32(*self.begins.as_ptr().add(at));
                let mut sums = low[i];
                for rows in 0..2 {
                    sums[rows] =
                        _mm512_add_epi32(sums[rows], _mm512_slli_epi32::<8>(high[i][rows]));
                }
                // Four rows' first halves of the block, then their second halves.
                let first = _mm512_shuffle_i32x4::<0x88>(sums[0], sums[1]);
                let second = _mm512_shuffle_i32x4::<0xdd>(sums[0], sums[1]);
                let sum = _mm512_add_epi32(_mm512_add_epi32(first, second), begin);
                let step = _mm512_mul_ps(scale, _mm512_set1_ps(*self.steps.as_ptr().add(at)));
                found[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), step, found[i]);
            }
        }
    }
}

/// 32 bytes of each of 8 rows, turned: of vector `d` the first four lanes have bytes 4 d to 4 d + 3 of rows 0 to 3, the next four
/// bytes 16 + 4 d to 16 + 4 d + 3 of them, and the others the same of rows 4 to 7.
///
/// # Safety
/// The bytes are valid for reading; rows are `stride` bytes apart.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn turn(from: *const u8, stride: usize) -> [__m512i; 4] {
    let mut r = [_mm512_setzero_si512(); 4];
    for (i, r) in r.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let from = from.add(i * stride);
            let first = _mm512_castsi256_si512(_mm256_loadu_si256(from.cast()));
            *r = _mm512_inserti64x4::<1>(first, _mm256_loadu_si256(from.add(4 * stride).cast()));
        }
    }
    let (a, b) = (
        _mm512_unpacklo_epi32(r[0], r[1]),
        _mm512_unpacklo_epi32(r[2], r[3]),
    );
    let (c, d) = (
        _mm512_unpackhi_epi32(r[0], r[1]),
        _mm512_unpackhi_epi32(r[2], r[3]),
    );
    [
        _mm512_unpacklo_epi64(a, b),
        _mm512_unpackhi_epi64(a, b),
        _mm512_unpacklo_epi64(c, d),
        _mm512_unpackhi_epi64(c, d),
    ]
}
