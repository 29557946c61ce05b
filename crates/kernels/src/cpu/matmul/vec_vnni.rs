//! Few tokens, the formats with blocks of 32, AVX-512 with VNNI and VBMI: four blocks to a vector.
//!
//! A quad is four neighbouring blocks of a row, 128 weights in 72 to 136 bytes. Byte permutations bring it into three vectors of
//! four lanes per block: the first halves of the blocks, their second halves, and their scales (and minima). The activations
//! lie in the same order ([`Quads`]). This reads weights about three times as fast as [`super::vec`] does, faster than memory
//! delivers them.

use super::prepare::{Buffer, Prepared};
use super::unpack::{self, Format};
use super::{Columns, MatmulArgs};
use std::arch::x86_64::*;
use std::ops::Range;

/// Where a format with blocks of 32 keeps what; the f16 scale is at 0, the f16 minimum (if any) at 2.
pub(super) trait Quad: Format {
    /// Byte of the block where its quants begin.
    const QUANTS: usize;
    /// Byte where its fifth bits begin, if it has them.
    const FIFTH: Option<usize> = None;
}

impl Quad for unpack::Q4_0 {
    const QUANTS: usize = 2;
}
impl Quad for unpack::Q4_1 {
    const QUANTS: usize = 4;
}
impl Quad for unpack::Q5_0 {
    const QUANTS: usize = 6;
    const FIFTH: Option<usize> = Some(2);
}
impl Quad for unpack::Q5_1 {
    const QUANTS: usize = 8;
    const FIFTH: Option<usize> = Some(4);
}
impl Quad for unpack::Q8_0 {
    const QUANTS: usize = 2;
}

/// Rows that share the loads of the activations.
const ROWS: usize = 4;

/// Bytes ahead of the first row's that are fetched from memory: the hardware follows one stream well, not four. Memory takes as long
/// to answer as a core takes for 3 or 4 KB.
const AHEAD: usize = 6144;

/// 8-bit activations in the order of quads; elements beyond K are 0.
#[derive(Default)]
pub(super) struct Quads {
    /// Quads of a token.
    count: usize,
    /// Per quad 128 bytes: the first halves of the four blocks, then the second halves.
    q: Buffer,
    /// Per quad 16 lanes, four per block: the block's scale; -ZERO · Σ q in the first lane of each four and 0 in the others;
    /// scale · Σ q / 4 (for formats with a minimum).
    scale: Buffer,
    begin: Buffer,
    sum: Buffer,
}

impl Quads {
    /// Brings prepared activations of `tokens` tokens into this order.
    pub(super) fn update(
        &mut self,
        tokens: usize,
        k: usize,
        q: &[i8],
        scale: &[f32],
        sum: &[f32],
        begin: &[i32],
    ) {
        self.count = k.div_ceil(128);
        let quads = tokens * self.count;
        // Quads of a token in the source, whose rows are padded to whole chunks.
        let stride = q.len() / tokens / 128;
        let to = self.q.resize::<i8>(quads * 128).as_chunks_mut::<128>().0;
        let scales = self.scale.resize::<f32>(quads * 16).as_chunks_mut::<16>().0;
        let sums = self.sum.resize::<f32>(quads * 16).as_chunks_mut::<16>().0;
        let begins = self.begin.resize::<i32>(quads * 16).as_chunks_mut::<16>().0;
        let q = q.as_chunks::<128>().0;
        let (scale, sum) = (scale.as_chunks::<4>().0, sum.as_chunks::<4>().0);
        let begin = begin.as_chunks::<4>().0;
        for t in 0..tokens {
            for quad in 0..self.count {
                let (from, at) = (t * stride + quad, t * self.count + quad);
                for (b, q) in q[from].as_chunks::<32>().0.iter().enumerate() {
                    to[at][16 * b..16 * b + 16].copy_from_slice(&q[..16]);
                    to[at][64 + 16 * b..80 + 16 * b].copy_from_slice(&q[16..]);
                    scales[at][4 * b..4 * b + 4].fill(scale[from][b]);
                    sums[at][4 * b..4 * b + 4].fill(sum[from][b] / 4.0);
                    begins[at][4 * b..4 * b + 4].copy_from_slice(&[begin[from][b], 0, 0, 0]);
                }
            }
        }
    }
}

/// Byte permutations that sort a format's quad. The quad is in two vectors: its first 64 bytes, and 64 bytes from [`tail_at`] on.
struct Sort {
    /// First halves or nibbles (low: first half, high: second half).
    quants: [u8; 64],
    /// For each first-half quant, then for each second-half quant, the byte with its fifth bit.
    fifth: [[u8; 64]; 2],
    /// As 16-bit words: the scale of each lane's block, then its minimum.
    scales: [u16; 32],
}

/// Where the second vector begins: it ends with the quad; for the 136 bytes of Q8_0, too long for two vectors, it begins with the
/// third block, which serves the scales (its quants are loaded otherwise).
const fn tail_at<F: Quad>() -> usize {
    if F::WIDE {
        2 * F::BYTES
    } else {
        4 * F::BYTES - 64
    }
}

/// Index of byte `at` of a quad in the two vectors.
const fn index<F: Quad>(at: usize) -> u8 {
    if at < 64 {
        at as u8
    } else {
        (at - tail_at::<F>() + 64) as u8
    }
}

const fn sort<F: Quad>() -> Sort {
    let mut sort = Sort {
        quants: [0; 64],
        fifth: [[0; 64]; 2],
        scales: [0; 32],
    };
    let mut i = 0;
    while i < 64 {
        let block = i / 16 * F::BYTES;
        sort.quants[i] = index::<F>(block + F::QUANTS + i % 16);
        if let Some(fifth) = F::FIFTH {
            sort.fifth[0][i] = index::<F>(block + fifth + i % 16 / 8);
            sort.fifth[1][i] = index::<F>(block + fifth + 2 + i % 16 / 8);
        }
        i += 1;
    }
    let mut i = 0;
    while i < 32 {
        let at = i % 16 / 4 * F::BYTES + i / 16 * 2;
        sort.scales[i] = (index::<F>(at) / 2) as u16;
        i += 1;
    }
    sort
}

/// The loaded permutations.
#[derive(Clone, Copy)]
struct Sorter {
    quants: __m512i,
    fifth: [__m512i; 2],
    bit: __m512i,
    scales: __m512i,
}

/// Computes `rows` for all tokens, each with `PASSES` rows of activations.
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL, DQ, VNNI and VBMI; nobody else uses these rows of `out` meanwhile; the activations are in the
/// form of quads.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn rows<F: Quad, const PASSES: usize>(
    args: &MatmulArgs<'_>,
    prepared: &Prepared,
    rows: Range<usize>,
    out: &Columns<'_>,
) {
    let sort = const { sort::<F>() };
    // SAFETY: the arrays have 64 bytes each.
    let sorter = unsafe {
        Sorter {
            quants: _mm512_loadu_si512(sort.quants.as_ptr().cast()),
            fifth: [
                _mm512_loadu_si512(sort.fifth[0].as_ptr().cast()),
                _mm512_loadu_si512(sort.fifth[1].as_ptr().cast()),
            ],
            bit: _mm512_set1_epi64(0x8040_2010_0804_0201_u64 as i64),
            scales: _mm512_loadu_si512(sort.scales.as_ptr().cast()),
        }
    };
    let x = &prepared.quads;
    let bytes = 4 * F::BYTES;
    for first in rows.clone().step_by(ROWS) {
        let n = ROWS.min(rows.end - first);
        let mut w = [args.row(first); ROWS];
        for (i, w) in w.iter_mut().enumerate().take(n) {
            *w = args.row(first + i);
        }
        let (whole, rest) = (w[0].len() / bytes, w[0].len() % bytes);
        for t in 0..args.t {
            let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
            for quad in 0..x.count {
                if t == 0 {
                    let ahead = w[0].as_ptr().wrapping_add(ROWS * quad * bytes + AHEAD);
                    for line in 0..(ROWS * bytes).div_ceil(64) {
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line).cast());
                    }
                }
                let from = w.map(|w| w.as_ptr().wrapping_add(quad * bytes));
                let at = t * PASSES * x.count + quad;
                // SAFETY: the rows have `whole` quads and `rest` more bytes; `quad` is one of token t's.
                unsafe {
                    if quad < whole {
                        add_quads::<F, PASSES, true>(&mut acc, sorter, from, bytes, x, at);
                    } else {
                        add_quads::<F, PASSES, false>(&mut acc, sorter, from, rest, x, at);
                    }
                }
            }
            // SAFETY: the caller's promise.
            unsafe { out.put(t, first, &sums(acc)[..n], false) };
        }
    }
}

/// The sums of each row's accumulators.
#[target_feature(enable = "avx2,avx512f,avx512dq")]
#[inline]
fn sums(acc: [[__m512; 2]; ROWS]) -> [f32; ROWS] {
    let mut four = [_mm_setzero_ps(); ROWS];
    for (four, acc) in four.iter_mut().zip(acc) {
        let sum = _mm512_add_ps(acc[0], acc[1]);
        let eight = _mm256_add_ps(
            _mm512_castps512_ps256(sum),
            _mm512_extractf32x8_ps::<1>(sum),
        );
        *four = _mm_add_ps(
            _mm256_castps256_ps128(eight),
            _mm256_extractf128_ps::<1>(eight),
        );
    }
    let [a, b, c, d] = four;
    let sums = _mm_hadd_ps(_mm_hadd_ps(a, b), _mm_hadd_ps(c, d));
    let mut out = [0.0; ROWS];
    // SAFETY: four numbers.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), sums) };
    out
}

/// Adds the products of a quad of each row.
///
/// # Safety
/// Each of `from` is valid for reading `len` bytes, 4 · BYTES if `WHOLE`, else fewer blocks; `x` has quad `at`, and that of the next
/// row if there are two passes.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
#[inline]
unsafe fn add_quads<F: Quad, const PASSES: usize, const WHOLE: bool>(
    acc: &mut [[__m512; 2]; ROWS],
    sorter: Sorter,
    from: [*const u8; ROWS],
    len: usize,
    x: &Quads,
    at: usize,
) {
    // SAFETY: the activations have 128 bytes and three times 16 lanes for each quad, aligned to 64 bytes.
    unsafe {
        let mut sum = _mm512_setzero_ps();
        let mut passes = [Activations {
            first: _mm512_setzero_si512(),
            second: _mm512_setzero_si512(),
            begin: _mm512_setzero_si512(),
            scale: _mm512_setzero_ps(),
        }; PASSES];
        for (pass, to) in passes.iter_mut().enumerate() {
            let at = at + pass * x.count;
            let q = x.q.get::<i8>().as_ptr().add(128 * at);
            to.first = _mm512_load_si512(q.cast());
            to.second = _mm512_load_si512(q.add(64).cast());
            to.scale = _mm512_load_ps(x.scale.get::<f32>().as_ptr().add(16 * at));
            if F::HAS_MIN {
                let more = _mm512_load_ps(x.sum.get::<f32>().as_ptr().add(16 * at));
                sum = _mm512_add_ps(sum, more);
            } else {
                to.begin = _mm512_load_si512(x.begin.get::<i32>().as_ptr().add(16 * at).cast());
            }
        }
        for (acc, from) in acc.iter_mut().zip(from) {
            // SAFETY: the caller's promise.
            *acc = add_quad::<F, PASSES, WHOLE>(*acc, sorter, from, len, &passes, sum);
        }
    }
}

/// The vectors of a quad's activations.
#[derive(Clone, Copy)]
struct Activations {
    first: __m512i,
    second: __m512i,
    begin: __m512i,
    scale: __m512,
}

/// Adds a quad's products: those of the quants to the first accumulator, those of the minima to the second. Missing blocks of the
/// last quad of a row are zeros, whose scales are 0.
///
/// # Safety
/// `from` is valid for reading `len` bytes, 4 · BYTES if `WHOLE`, else fewer blocks.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
#[inline]
unsafe fn add_quad<F: Quad, const PASSES: usize, const WHOLE: bool>(
    acc: [__m512; 2],
    sorter: Sorter,
    from: *const u8,
    len: usize,
    passes: &[Activations; PASSES],
    sum: __m512,
) -> [__m512; 2] {
    let (head, tail, first, second);
    // SAFETY: all reads are in the quad's first `len` bytes: those of a whole quad by the layout, others by their masks.
    unsafe {
        head = load::<WHOLE>(from, 0, len);
        tail = load::<WHOLE>(from, const { tail_at::<F>() }, len);
        if F::WIDE {
            (first, second) = (
                signed::<WHOLE>(from, 2, len),
                signed::<WHOLE>(from, 18, len),
            );
        } else {
            (first, second) = low_bits::<F>(sorter, head, tail);
        }
    }
    let scales = _mm512_permutex2var_epi16(head, sorter.scales, tail);
    let scale = _mm512_cvtph_ps(_mm512_castsi512_si256(scales));
    let mut total = _mm512_setzero_ps();
    for (pass, x) in passes.iter().enumerate() {
        let dots = _mm512_dpbusd_epi32(x.begin, first, x.first);
        let dots = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(dots, second, x.second));
        total = match pass {
            0 => _mm512_mul_ps(dots, x.scale),
            _ => _mm512_fmadd_ps(dots, x.scale, total),
        };
    }
    let quants = _mm512_fmadd_ps(total, scale, acc[0]);
    if !F::HAS_MIN {
        return [quants, acc[1]];
    }
    let min = _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(scales));
    [quants, _mm512_fmadd_ps(min, sum, acc[1])]
}

/// The first and second halves of a quad's blocks of 4- or 5-bit quants.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
#[inline]
fn low_bits<F: Quad>(sorter: Sorter, head: __m512i, tail: __m512i) -> (__m512i, __m512i) {
    let quants = _mm512_permutex2var_epi8(head, sorter.quants, tail);
    let low = _mm512_set1_epi8(15);
    let first = _mm512_and_si512(quants, low);
    let second = _mm512_and_si512(_mm512_srli_epi16::<4>(quants), low);
    if F::FIFTH.is_none() {
        return (first, second);
    }
    let sixteen = _mm512_set1_epi8(16);
    let bytes = _mm512_permutex2var_epi8(head, sorter.fifth[0], tail);
    let bits = _mm512_test_epi8_mask(bytes, sorter.bit);
    let first = _mm512_mask_add_epi8(first, bits, first, sixteen);
    let bytes = _mm512_permutex2var_epi8(head, sorter.fifth[1], tail);
    let bits = _mm512_test_epi8_mask(bytes, sorter.bit);
    (first, _mm512_mask_add_epi8(second, bits, second, sixteen))
}

/// 64 bytes from `at` on; unless `WHOLE` those beyond `len` are 0.
///
/// # Safety
/// `from` is valid for reading `len` bytes, and if `WHOLE` for at + 64.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn load<const WHOLE: bool>(from: *const u8, at: usize, len: usize) -> __m512i {
    // SAFETY: masked bytes are not read; the rest is the caller's promise.
    unsafe {
        if WHOLE {
            return _mm512_loadu_si512(from.add(at).cast());
        }
        let bytes = len.saturating_sub(at).min(64) as u32;
        let mask = u64::MAX.checked_shr(64 - bytes).unwrap_or(0);
        _mm512_maskz_loadu_epi8(mask, from.wrapping_add(at).cast())
    }
}

/// 16 bytes from `at` on of each of a quad's four 34-byte blocks, as unsigned quants with zero point 128.
///
/// # Safety
/// `from` is valid for reading `len` bytes: four blocks if `WHOLE`, else fewer.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn signed<const WHOLE: bool>(from: *const u8, at: usize, len: usize) -> __m512i {
    let mut parts = [_mm_setzero_si128(); 4];
    for (i, part) in parts.iter_mut().enumerate() {
        if WHOLE || 34 * i < len {
            // SAFETY: block i is there.
            *part = unsafe { _mm_loadu_si128(from.add(34 * i + at).cast()) };
        }
    }
    let v = _mm512_castsi128_si512(parts[0]);
    let v = _mm512_inserti32x4::<1>(v, parts[1]);
    let v = _mm512_inserti32x4::<2>(v, parts[2]);
    let v = _mm512_inserti32x4::<3>(v, parts[3]);
    _mm512_xor_si512(v, _mm512_set1_epi8(-128))
}
