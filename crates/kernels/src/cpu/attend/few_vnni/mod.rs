//! Few queries against caches in q8_0, AVX-512 with VNNI: dot products of bytes, sixteen positions to a vector.
//!
//! Queries and weights are rounded to 16 bits, in two bytes that are multiplied apart, so that next to nothing is lost beside what
//! the cache lost. Keys are turned in registers until a lane holds four elements of one position, values until it holds one
//! element of four positions: next to no sums across lanes are needed, and all queries of a head share the turning.

mod scores;
mod sums;

use super::{Cells, QUERIES, ask};
use crate::cpu::Isa;
use crate::cpu::matmul::Level;
use firelight_tensor::DType;
use std::arch::x86_64::*;

/// Positions whose scales are laid side by side before they are worked on: what that reads stays in the first cache. Sums of so many
/// values fit in 32 bits.
const NEAR: usize = 128;
/// Positions of a vector.
const LANES: usize = 16;
/// Bytes of a block, of which 32 are elements.
const BYTES: usize = 34;

/// What is kept between calls, so that nothing is allocated once it has grown.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[heads, N, hd / 32]`.
    queries: Vec<scores::Query>,
    /// Scales of some positions as f16: `[heads · hd / 32, NEAR]`.
    scales: Vec<u16>,
    /// Weights of some positions, `[N, NEAR / 32]`: the high bytes of four, then the low ones.
    weights: Vec<[u8; 64]>,
    /// The last rows where there are not [`LANES`] of them, the last again and again.
    rest: Vec<u8>,
}

macro_rules! by_queries {
    ($n:expr, $call:ident($($arg:expr),*), $own:expr) => {
        // SAFETY: `Dots` proves the instructions.
        unsafe {
            match $n {
                1 => $own.$call::<1>($($arg),*),
                2 => $own.$call::<2>($($arg),*),
                3 => $own.$call::<3>($($arg),*),
                _ => $own.$call::<QUERIES>($($arg),*),
            }
        }
    };
}

/// Proof that this CPU has the instructions.
#[derive(Clone, Copy)]
pub(crate) struct Dots(());

impl Dots {
    /// `None` where the CPU has them not, or the cache is of another type.
    pub(crate) fn of(isa: Isa, dtype: DType) -> Option<Self> {
        (isa.level() == Level::Avx512Vnni && dtype == DType::Q8_0).then_some(Dots(()))
    }

    /// Sets the queries, `[heads, n, hd]`, that [`Dots::scores`] multiplies.
    pub(crate) fn set_queries(self, scratch: &mut Scratch, queries: &[f32]) {
        // SAFETY: `Dots` proves the instructions.
        unsafe { scratch.set_queries(queries) };
    }

    /// As [`super::FewScores`] for the queries that were set, `n` for each head: 1 to [`QUERIES`].
    pub(crate) fn scores(
        self,
        scratch: &mut Scratch,
        n: usize,
        k: Cells<'_>,
        scores: &mut [f32],
        step: usize,
    ) {
        by_queries!(n, scores(k, scores, step), scratch);
    }

    /// As [`super::FewSums`] for `n` queries of each head, 1 to [`QUERIES`], and weights that are not negative.
    pub(crate) fn sums(
        self,
        scratch: &mut Scratch,
        n: usize,
        (weights, step): (&[f32], usize),
        v: Cells<'_>,
        sums: &mut [f32],
    ) {
        by_queries!(n, sums(weights, step, v, sums), scratch);
    }
}

impl Scratch {
    /// Lays the scales of `there` positions from `near` on side by side; those beyond are 0.
    #[target_feature(enable = "avx2")]
    fn side_by_side(&mut self, cells: Cells<'_>, near: usize, there: usize) {
        let blocks = cells.heads * cells.hd / 32;
        let (rows, stride) = (row(cells, near), blocks * BYTES);
        self.scales.resize(blocks * NEAR, 0);
        for (b, scales) in self.scales.as_chunks_mut::<NEAR>().0.iter_mut().enumerate() {
            let mut from = rows.wrapping_add(b * BYTES);
            let (eights, rest) = scales[..there].as_chunks_mut::<8>();
            for eight in eights {
                // SAFETY: the positions are inside the cache, by `check`.
                unsafe {
                    let mut v = _mm_setzero_si128();
                    v = _mm_insert_epi16::<0>(v, scale_at(from));
                    v = _mm_insert_epi16::<1>(v, scale_at(from.add(stride)));
                    v = _mm_insert_epi16::<2>(v, scale_at(from.add(2 * stride)));
                    v = _mm_insert_epi16::<3>(v, scale_at(from.add(3 * stride)));
                    v = _mm_insert_epi16::<4>(v, scale_at(from.add(4 * stride)));
                    v = _mm_insert_epi16::<5>(v, scale_at(from.add(5 * stride)));
                    v = _mm_insert_epi16::<6>(v, scale_at(from.add(6 * stride)));
                    v = _mm_insert_epi16::<7>(v, scale_at(from.add(7 * stride)));
                    _mm_storeu_si128(eight.as_mut_ptr().cast(), v);
                }
                from = from.wrapping_add(8 * stride);
            }
            for to in rest {
                // SAFETY: as above.
                *to = unsafe { scale_at(from) } as u16;
                from = from.wrapping_add(stride);
            }
            scales[there..].fill(0);
        }
    }

    /// Scales of block `b` of sixteen positions from `j` on.
    ///
    /// # Safety
    /// They are side by side.
    #[target_feature(enable = "avx512f,f16c")]
    #[inline]
    unsafe fn scale(&self, b: usize, j: usize) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe {
            _mm512_cvtph_ps(_mm256_loadu_si256(
                self.scales.as_ptr().add(b * NEAR + j).cast(),
            ))
        }
    }
}

/// Asks for `len` bytes from `at` on, there or not.
#[inline(always)]
fn ask_all(at: *const u8, len: usize) {
    for line in (0..len).step_by(64) {
        ask(at.wrapping_add(line));
    }
}

/// `most / largest`, or 0 where that is not a number to reckon with.
fn inverse(most: f32, largest: f32) -> f32 {
    let inverse = most / largest;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The first `n` lanes.
fn lanes(n: usize) -> u16 {
    ((1u32 << n) - 1) as u16
}

/// Panics unless all positions are inside and heads are whole blocks; blocks of a head.
fn check(cells: Cells<'_>) -> usize {
    let row = cells.heads * cells.hd;
    assert!(cells.hd.is_multiple_of(32) && cells.first.is_multiple_of(32));
    let end = (cells.first + cells.count * row) / 32 * BYTES;
    assert!(end <= cells.bytes.len(), "attention: beyond the cache");
    cells.hd / 32
}

/// The bits of a block's scale.
///
/// # Safety
/// `block` is valid for reading two bytes.
#[inline(always)]
unsafe fn scale_at(block: *const u8) -> i32 {
    // SAFETY: the caller's promise.
    i32::from(unsafe { block.cast::<u16>().read_unaligned() })
}

/// Where position `j` begins.
fn row(cells: Cells<'_>, j: usize) -> *const u8 {
    cells
        .bytes
        .as_ptr()
        .wrapping_add((cells.first + j * cells.heads * cells.hd) / 32 * BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use firelight_tensor::quant::{Block, BlockQ8_0};

    /// Scores of one query of ones with 20 keys and sums of their values weighted with ones, where the fifth key is `of_fifth`.
    fn answers(query: f32, of_fifth: &BlockQ8_0) -> Option<(Vec<f32>, Vec<f32>)> {
        let dots = Dots::of(Isa::detect(), DType::Q8_0)?;
        let mut blocks = vec![BlockQ8_0::quantize(&[0.5; 32]); 40];
        blocks[8] = *of_fifth;
        let cells = Cells {
            bytes: bytemuck::cast_slice(&blocks),
            dtype: DType::Q8_0,
            first: 0,
            count: 20,
            heads: 1,
            hd: 64,
        };
        let (mut scores, mut sums) = (vec![9.0; 32], vec![9.0; 64]);
        let mut scratch = Scratch::default();
        dots.set_queries(&mut scratch, &[query; 64]);
        dots.scores(&mut scratch, 1, cells, &mut scores, 32);
        dots.sums(&mut scratch, 1, (&[1.0; 32], 32), cells, &mut sums);
        Some((scores, sums))
    }

    #[test]
    fn what_is_no_number_spreads_and_nothing_else_does() {
        let half = BlockQ8_0::quantize(&[0.5; 32]);
        let Some((scores, sums)) = answers(1.0, &half) else {
            return firelight_testing::skip!("few_vnni", "this processor has no AVX-512 VNNI");
        };
        assert!(
            scores[..20].iter().all(|s| (s - 32.0).abs() < 0.02),
            "{scores:?}"
        );
        assert!(scores[20..].iter().all(|s| *s == 9.0));
        assert!(sums.iter().all(|s| (s - 10.0).abs() < 0.01), "{sums:?}");
        let mut none = half;
        none.d = half::f16::NAN.to_le_bytes();
        let (scores, sums) = answers(1.0, &none).expect("it ran before");
        assert!(
            scores[..20]
                .iter()
                .enumerate()
                .all(|(j, s)| s.is_nan() == (j == 4)),
            "{scores:?}"
        );
        assert!(
            sums.iter().enumerate().all(|(d, s)| s.is_nan() == (d < 32)),
            "{sums:?}"
        );
        for query in [f32::NAN, f32::INFINITY] {
            let (scores, _) = answers(query, &half).expect("it ran before");
            assert!(scores[..20].iter().all(|s| s.is_nan()), "{scores:?}");
        }
        for query in [0.0, f32::MIN_POSITIVE, -1e-38] {
            let (scores, _) = answers(query, &half).expect("it ran before");
            assert!(scores[..20].iter().all(|s| s.abs() < 1e-35), "{scores:?}");
        }
    }
}
