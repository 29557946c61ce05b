//! Scores: queries times keys.

use super::{BYTES, Cells, LANES, NEAR, Scratch, ask_all, check, inverse, lanes, row};
use std::arch::x86_64::*;

/// What the largest number of a block of queries becomes: its high byte is 127, its low one 0.
const MOST: f32 = 32512.0;

/// A block of queries, rounded: what is multiplied with bytes 4 d to 4 d + 3 of a block of keys.
#[derive(Clone, Copy, Default)]
pub(super) struct Query {
    high: [i32; 8],
    /// Signed, too.
    low: [i32; 8],
    /// -128 times the sum: keys are taken 128 too large.
    begin: i32,
    /// What a step of the rounded numbers is.
    step: f32,
}

impl Scratch {
    /// Rounds queries `[…, hd]` to 16 bits, in blocks of 32.
    ///
    /// # Safety
    /// The CPU has AVX-512 F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn set_queries(&mut self, queries: &[f32]) {
        self.queries.clear();
        for block in queries.as_chunks::<32>().0 {
            // SAFETY: a block has two vectors.
            let x = unsafe {
                let from = block.as_ptr();
                [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(LANES))]
            };
            let largest =
                _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(x[0]), _mm512_abs_ps(x[1])));
            // A number that is none makes the scores none.
            let zero = _mm512_setzero_ps();
            let nothing = _mm512_fmadd_ps(x[0], zero, _mm512_mul_ps(x[1], zero));
            let inverse = _mm512_set1_ps(inverse(MOST, largest));
            let mut query = Query {
                step: largest / MOST + _mm512_reduce_add_ps(nothing),
                ..Query::default()
            };
            for (half, x) in x.into_iter().enumerate() {
                let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
                query.begin -= 128 * _mm512_reduce_add_epi32(rounded);
                let high =
                    _mm512_srai_epi32::<8>(_mm512_add_epi32(rounded, _mm512_set1_epi32(128)));
                // SAFETY: sixteen bytes are half of each.
                unsafe {
                    let to_high = query.high.as_mut_ptr().cast::<__m128i>().add(half);
                    let to_low = query.low.as_mut_ptr().cast::<__m128i>().add(half);
                    _mm_storeu_si128(to_high, _mm512_cvtepi32_epi8(high));
                    _mm_storeu_si128(to_low, _mm512_cvtepi32_epi8(rounded));
                }
            }
            self.queries.push(query);
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
        let Cells { count, heads, .. } = k;
        let blocks = check(k);
        assert!(self.queries.len() >= heads * N * blocks);
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
                    for b in 0..blocks {
                        let at = h * blocks + b;
                        ask_all(ahead.wrapping_add(at * LANES * BYTES), LANES * BYTES);
                        // SAFETY: sixteen rows of `heads · blocks` blocks are there, and the queries of all heads.
                        unsafe {
                            let queries = self.queries.as_ptr().add(h * N * blocks + b);
                            let sums =
                                products::<N>(queries, blocks, rows.add(at * BYTES + 2), stride);
                            let scale = self.scale(at, j);
                            for i in 0..N {
                                let step = _mm512_set1_ps((*queries.add(i * blocks)).step);
                                let sum = _mm512_cvtepi32_ps(sums[i]);
                                found[i] =
                                    _mm512_fmadd_ps(sum, _mm512_mul_ps(scale, step), found[i]);
                            }
                        }
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
}

/// Products of a block of each of `N` rounded queries, which are `blocks` apart, with 32 bytes of sixteen rows.
///
/// # Safety
/// The queries are there, and the bytes, which begin at `from`; rows are `stride` bytes apart. The CPU has the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
unsafe fn products<const N: usize>(
    queries: *const Query,
    blocks: usize,
    from: *const u8,
    stride: usize,
) -> [__m512i; N] {
    let (mut high, mut low) = ([_mm512_setzero_si512(); N], [_mm512_setzero_si512(); N]);
    // SAFETY: the caller's promise.
    unsafe {
        for i in 0..N {
            low[i] = _mm512_set1_epi32((*queries.add(i * blocks)).begin);
        }
        for half in 0..2 {
            let turned = turn(from.add(16 * half), stride);
            for d in 0..4 {
                let k = _mm512_xor_si512(turned[d], _mm512_set1_epi8(-128));
                for i in 0..N {
                    let q = &*queries.add(i * blocks);
                    let at = 4 * half + d;
                    high[i] = _mm512_dpbusd_epi32(high[i], k, _mm512_set1_epi32(q.high[at]));
                    low[i] = _mm512_dpbusd_epi32(low[i], k, _mm512_set1_epi32(q.low[at]));
                }
            }
        }
    }
    for i in 0..N {
        low[i] = _mm512_add_epi32(low[i], _mm512_slli_epi32::<8>(high[i]));
    }
    low
}

/// 16 bytes of each of 16 rows, turned: vector `d` has bytes 4 d to 4 d + 3 of all rows in their order.
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
            // Every fourth row, one to 128 bits.
            let from = from.add(i * stride);
            let rows = _mm512_castsi128_si512(_mm_loadu_si128(from.cast()));
            let second = _mm_loadu_si128(from.add(4 * stride).cast());
            let rows = _mm512_inserti32x4::<1>(rows, second);
            let third = _mm_loadu_si128(from.add(8 * stride).cast());
            let rows = _mm512_inserti32x4::<2>(rows, third);
            let fourth = _mm_loadu_si128(from.add(12 * stride).cast());
            *r = _mm512_inserti32x4::<3>(rows, fourth);
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
