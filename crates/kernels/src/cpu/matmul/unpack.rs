//! The ten block formats brought to one canonical form, 256 weights of a row at a time.
//!
//! Every format is `w = scale[g] · u + min[g]` with an unsigned `u` of 2 to 8 bits and one `(scale, min)` per group `g` of
//! 16 or 32 consecutive weights; formats without a minimum have a zero point instead: `min[g] = -ZERO · scale[g]`.
//! The loops below are plain Rust without branches, inlined into one copy per instruction set and vectorised there by the
//! compiler. Layouts: the block structs of ggml (`ggml-common.h`), as GGUF files store them.

use super::simd::Simd;

/// Weights of a row that are unpacked together (the block length of the k-quants, 8 blocks of the others).
pub(super) const CHUNK: usize = 256;

/// Groups of a chunk for the formats with groups of 16; those with 32 use the first half.
pub(super) const GROUPS: usize = 16;

/// 256 weights in canonical form. A chunk at the end of a row may be shorter: the groups beyond it have scale and min 0.
#[repr(C, align(64))]
pub(super) struct Chunk {
    /// The unsigned quants, in the order of the row.
    pub(super) q: [u8; CHUNK],
    /// The factor of each group.
    pub(super) scale: [f32; GROUPS],
    /// What is added in each group.
    pub(super) min: [f32; GROUPS],
}

impl Chunk {
    pub(super) const fn zeroed() -> Self {
        Chunk {
            q: [0; CHUNK],
            scale: [0.0; GROUPS],
            min: [0.0; GROUPS],
        }
    }
}

/// A block format.
pub(super) trait Format {
    /// Weights per block.
    const BLOCK: usize;
    /// Bytes per block.
    const BYTES: usize;
    /// Weights per `(scale, min)`.
    const GROUP: usize;
    /// The zero point, 0 if the format stores minima.
    const ZERO: i32;
    /// The quants use all 8 bits, so that products with 8-bit activations do not fit pairwise in 16 bits.
    const WIDE: bool = false;

    /// Unpacks `bytes` (whole blocks, one chunk or the shorter rest of a row).
    fn unpack<S: Simd>(simd: S, bytes: &[u8], out: &mut Chunk);

    /// Bytes of a full chunk.
    const CHUNK_BYTES: usize = CHUNK / Self::BLOCK * Self::BYTES;
    /// The format stores minima.
    const HAS_MIN: bool = Self::ZERO == 0;

    /// [`Format::unpack`], then zeroes the groups beyond the end of the row.
    #[inline(always)]
    fn unpack_rest<S: Simd>(simd: S, bytes: &[u8], out: &mut Chunk) {
        Self::unpack(simd, bytes, out);
        let groups = bytes.len() / Self::BYTES * Self::BLOCK / Self::GROUP;
        for (scale, min) in out.scale.iter_mut().zip(&mut out.min).skip(groups) {
            (*scale, *min) = (0.0, 0.0);
        }
    }
}

/// f16 bits to f32 without a table, a branch or a CPU feature, so that loops over it vectorise.
#[inline(always)]
pub(super) fn half_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff);
    // As f32 bits the number is 2^-112 of its value, subnormals included; infinity and NaN need their exponent back.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let special = if magnitude >= 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled.to_bits() | special | (u32::from(bits & 0x8000) << 16))
}

/// bf16 bits to f32.
#[inline(always)]
pub(super) fn bhalf_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[inline(always)]
fn half_at<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    half_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// The low nibbles of 16 bytes, then the high ones: the order of the legacy 4- and 5-bit formats.
#[inline(always)]
fn nibbles(qs: &[u8], q: &mut [u8; 32]) {
    for (j, byte) in qs.iter().take(16).enumerate() {
        q[j] = byte & 15;
        q[j + 16] = byte >> 4;
    }
}

/// Adds bit `j` of `high` to quant `j` as its bit 4.
#[inline(always)]
fn fifth_bits(high: [u8; 4], q: &mut [u8; 32]) {
    for (j, q) in q.iter_mut().enumerate() {
        *q |= u8::from(high[j / 8] & (1 << (j % 8)) != 0) << 4;
    }
}

/// The f16 numbers at byte `at` of each block.
#[inline(always)]
fn halves_at<S: Simd, const N: usize>(
    simd: S,
    blocks: &[[u8; N]],
    at: usize,
    out: &mut [f32; GROUPS],
) {
    let mut bits = [0u16; GROUPS];
    for (bits, block) in bits.iter_mut().zip(blocks) {
        *bits = u16::from_le_bytes([block[at], block[at + 1]]);
    }
    simd.widen_halves(&bits, out);
}

macro_rules! legacy {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, zero $zero:literal, wide $wide:literal,
     |$b:ident, $q:ident| $quants:expr) => {
        $(#[$doc])*
        pub(super) struct $name;
        impl Format for $name {
            const BLOCK: usize = 32;
            const BYTES: usize = $bytes;
            const GROUP: usize = 32;
            const ZERO: i32 = $zero;
            const WIDE: bool = $wide;

            #[inline(always)]
            fn unpack<S: Simd>(simd: S, bytes: &[u8], out: &mut Chunk) {
                let blocks = bytes.as_chunks::<$bytes>().0;
                for ($b, $q) in blocks.iter().zip(out.q.as_chunks_mut::<32>().0) {
                    $quants;
                }
                halves_at(simd, blocks, 0, &mut out.scale);
                if Self::HAS_MIN {
                    halves_at(simd, blocks, 2, &mut out.min);
                } else {
                    for (min, scale) in out.min.iter_mut().zip(&out.scale) {
                        *min = -$zero as f32 * scale;
                    }
                }
            }
        }
    };
}

legacy!(
    /// f16 scale, 16 bytes of nibbles.
    Q4_0, 18, zero 8, wide false, |b, q| nibbles(&b[2..], q)
);
legacy!(
    /// f16 scale, f16 min, 16 bytes of nibbles.
    Q4_1, 20, zero 0, wide false, |b, q| nibbles(&b[4..], q)
);
legacy!(
    /// f16 scale, 32 fifth bits, 16 bytes of nibbles.
    Q5_0, 22, zero 16, wide false,
    |b, q| { nibbles(&b[6..], q); fifth_bits([b[2], b[3], b[4], b[5]], q) }
);
legacy!(
    /// f16 scale, f16 min, 32 fifth bits, 16 bytes of nibbles.
    Q5_1, 24, zero 0, wide false,
    |b, q| { nibbles(&b[8..], q); fifth_bits([b[4], b[5], b[6], b[7]], q) }
);
legacy!(
    /// f16 scale, 32 signed bytes.
    Q8_0, 34, zero 128, wide true,
    |b, q| { for (q, byte) in q.iter_mut().zip(&b[2..]) { *q = byte ^ 0x80; } }
);

/// 16 bytes of 4-bit (scale, min), 64 of 2-bit quants, f16 scale and min of these; groups of 16.
pub(super) struct Q2K;
impl Format for Q2K {
    const BLOCK: usize = 256;
    const BYTES: usize = 84;
    const GROUP: usize = 16;
    const ZERO: i32 = 0;

    #[inline(always)]
    fn unpack<S: Simd>(_: S, bytes: &[u8], out: &mut Chunk) {
        let Some(b) = bytes.first_chunk::<84>() else {
            return;
        };
        two_bits(&b[16..80], &mut out.q);
        let (d, dmin) = (half_at(b, 80), half_at(b, 82));
        for g in 0..16 {
            out.scale[g] = d * f32::from(b[g] & 15);
            out.min[g] = -dmin * f32::from(b[g] >> 4);
        }
    }
}

/// 32 bytes of third bits, 64 of 2-bit quants, 16 6-bit scales in 12 bytes, f16 scale of these; groups of 16.
pub(super) struct Q3K;
impl Format for Q3K {
    const BLOCK: usize = 256;
    const BYTES: usize = 110;
    const GROUP: usize = 16;
    const ZERO: i32 = 4;

    #[inline(always)]
    fn unpack<S: Simd>(_: S, bytes: &[u8], out: &mut Chunk) {
        let Some(b) = bytes.first_chunk::<110>() else {
            return;
        };
        two_bits(&b[32..96], &mut out.q);
        for (j, q) in out.q.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (q, high) in q.iter_mut().zip(&b[..32]) {
                *q |= (high >> j & 1) << 2;
            }
        }
        let d = half_at(b, 108);
        for g in 0..16 {
            let low = if g < 8 {
                b[96 + g] & 15
            } else {
                b[96 + g - 8] >> 4
            };
            let high = b[104 + g % 4] >> (2 * (g / 4)) & 3;
            out.scale[g] = d * f32::from((low | high << 4) as i8 - 32);
            out.min[g] = -4.0 * out.scale[g];
        }
    }
}

/// 2-bit quants: bits `2i..2i+2` of a half's 32 bytes are its `i`-th run of 32 weights.
#[inline(always)]
fn two_bits(qs: &[u8], q: &mut [u8; CHUNK]) {
    for (qs, q) in qs
        .as_chunks::<32>()
        .0
        .iter()
        .zip(q.as_chunks_mut::<128>().0)
    {
        for (i, q) in q.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (q, byte) in q.iter_mut().zip(qs) {
                *q = byte >> (2 * i) & 3;
            }
        }
    }
}

/// The eight 6-bit (scale, min) pairs of Q4_K and Q5_K, times the block's own scale and min.
#[inline(always)]
fn six_bit_pairs(d: f32, dmin: f32, s: &[u8], out: &mut Chunk) {
    for j in 0..4 {
        let (a, b, c) = (s[j], s[j + 4], s[j + 8]);
        out.scale[j] = d * f32::from(a & 63);
        out.min[j] = -dmin * f32::from(b & 63);
        out.scale[j + 4] = d * f32::from(c & 15 | a >> 6 << 4);
        out.min[j + 4] = -dmin * f32::from(c >> 4 | b >> 6 << 4);
    }
}

/// Low nibbles of each 32 bytes, then their high ones.
#[inline(always)]
fn nibble_runs(qs: &[u8], q: &mut [u8; CHUNK]) {
    for (qs, q) in qs.as_chunks::<32>().0.iter().zip(q.as_chunks_mut::<64>().0) {
        for (j, byte) in qs.iter().enumerate() {
            q[j] = byte & 15;
            q[j + 32] = byte >> 4;
        }
    }
}

/// f16 scale and min, eight 6-bit pairs in 12 bytes, 128 bytes of nibbles; groups of 32.
pub(super) struct Q4K;
impl Format for Q4K {
    const BLOCK: usize = 256;
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const ZERO: i32 = 0;

    #[inline(always)]
    fn unpack<S: Simd>(_: S, bytes: &[u8], out: &mut Chunk) {
        let Some(b) = bytes.first_chunk::<144>() else {
            return;
        };
        nibble_runs(&b[16..], &mut out.q);
        six_bit_pairs(half_at(b, 0), half_at(b, 2), &b[4..16], out);
    }
}

/// As [`Q4K`] with 32 bytes of fifth bits before the nibbles: bit `j` belongs to the `j`-th run of 32 weights.
pub(super) struct Q5K;
impl Format for Q5K {
    const BLOCK: usize = 256;
    const BYTES: usize = 176;
    const GROUP: usize = 32;
    const ZERO: i32 = 0;

    #[inline(always)]
    fn unpack<S: Simd>(_: S, bytes: &[u8], out: &mut Chunk) {
        let Some(b) = bytes.first_chunk::<176>() else {
            return;
        };
        nibble_runs(&b[48..], &mut out.q);
        for (j, q) in out.q.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (q, high) in q.iter_mut().zip(&b[16..48]) {
                *q |= (high >> j & 1) << 4;
            }
        }
        six_bit_pairs(half_at(b, 0), half_at(b, 2), &b[4..16], out);
    }
}

/// 128 bytes of low nibbles, 64 of 2-bit high parts, 16 signed scales, f16 scale of these; groups of 16.
pub(super) struct Q6K;
impl Format for Q6K {
    const BLOCK: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const ZERO: i32 = 32;

    #[inline(always)]
    fn unpack<S: Simd>(_: S, bytes: &[u8], out: &mut Chunk) {
        let Some(b) = bytes.first_chunk::<210>() else {
            return;
        };
        let halves = b
            .as_chunks::<64>()
            .0
            .iter()
            .zip(b[128..192].as_chunks::<32>().0);
        for ((low, high), q) in halves.zip(out.q.as_chunks_mut::<128>().0) {
            for j in 0..32 {
                q[j] = low[j] & 15 | (high[j] & 3) << 4;
                q[j + 32] = low[j + 32] & 15 | (high[j] >> 2 & 3) << 4;
                q[j + 64] = low[j] >> 4 | (high[j] >> 4 & 3) << 4;
                q[j + 96] = low[j + 32] >> 4 | (high[j] >> 6) << 4;
            }
        }
        let d = half_at(b, 208);
        for g in 0..16 {
            out.scale[g] = d * f32::from(b[192 + g] as i8);
            out.min[g] = -32.0 * out.scale[g];
        }
    }
}

/// Reads little-endian 16-bit words.
#[inline(always)]
pub(super) fn halves(bytes: &[u8]) -> impl ExactSizeIterator<Item = u16> + '_ {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|b| u16::from_le_bytes(*b))
}
