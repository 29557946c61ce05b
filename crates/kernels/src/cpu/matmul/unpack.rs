//! The ten block formats brought to one canonical form, 256 weights of a row at a time.
//!
//! Every format is `w = scale[g] · u + min[g]` with an unsigned `u` of 2 to 8 bits and one `(scale, min)` per group `g` of
//! 16 or 32 consecutive weights; formats without a minimum have a zero point instead: `min[g] = -ZERO · scale[g]`.
//! A format is written once, in the byte-vector operations of [`Simd`], and compiled per instruction set. Its quants come out in
//! vectors of 32 consecutive weights, which a [`Sink`] takes: it multiplies them at once or stores them.
//!
//! Layouts: the block structs of ggml (`ggml-common.h`), as GGUF files store them.

use super::simd::Simd;

/// Weights of a row that are unpacked together (the block length of the k-quants, 8 blocks of the others).
pub(super) const CHUNK: usize = 256;

/// Groups of a chunk for the formats with groups of 16; those with 32 use the first half.
pub(super) const GROUPS: usize = 16;

/// A number for each group of a chunk; 0 for groups that it does not have.
pub(super) type Groups = [f32; GROUPS];

/// 256 weights in canonical form. A chunk at the end of a row may be shorter: the groups beyond it have scale and min 0.
#[repr(C, align(64))]
pub(super) struct Chunk {
    /// The unsigned quants, in the order of the row.
    pub(super) q: [u8; CHUNK],
    /// The factor of each group.
    pub(super) scale: Groups,
    /// What is added in each group.
    pub(super) min: Groups,
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

/// Takes the quants of a chunk, 32 weights at a time.
pub(super) trait Sink<S: Simd> {
    /// Weights `32 · i ..` of the chunk.
    fn take(&mut self, simd: S, i: usize, q: S::B);
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

    /// The scale and, if [`Format::HAS_MIN`], the minimum of each group in `bytes` (whole blocks: one chunk, or the shorter
    /// rest of a row, whose missing groups get 0).
    fn scales<S: Simd>(simd: S, bytes: &[u8], scale: &mut Groups, min: &mut Groups);

    /// The quants in `bytes`.
    fn quants<S: Simd>(simd: S, bytes: &[u8], sink: &mut impl Sink<S>);

    /// Bytes of a full chunk.
    const CHUNK_BYTES: usize = CHUNK / Self::BLOCK * Self::BYTES;
    /// The format stores minima.
    const HAS_MIN: bool = Self::ZERO == 0;

    /// Scales and minima, those of formats with a zero point too.
    #[inline(always)]
    fn scales_and_mins<S: Simd>(simd: S, bytes: &[u8], scale: &mut Groups, min: &mut Groups) {
        Self::scales(simd, bytes, scale, min);
        if !Self::HAS_MIN {
            let zero = simd.splat(-Self::ZERO as f32);
            for i in (0..GROUPS).step_by(S::LANES) {
                // SAFETY: LANES divides GROUPS at every level.
                unsafe {
                    let scale = simd.load(scale.as_ptr().add(i));
                    simd.store(min.as_mut_ptr().add(i), simd.mul(zero, scale));
                }
            }
        }
    }

    /// All of a chunk, stored.
    #[inline(always)]
    fn unpack<S: Simd>(simd: S, bytes: &[u8], out: &mut Chunk) {
        Self::scales_and_mins(simd, bytes, &mut out.scale, &mut out.min);
        Self::quants(simd, bytes, &mut Store(&mut out.q));
    }
}

struct Store<'a>(&'a mut [u8; CHUNK]);

impl<S: Simd> Sink<S> for Store<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, i: usize, q: S::B) {
        if let Some(to) = self.0.as_chunks_mut::<32>().0.get_mut(i) {
            simd.store_bytes(to, q);
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

/// The f16 numbers at byte `at` of each block, 0 for those beyond the last.
#[inline(always)]
fn halves_at<S: Simd, const N: usize>(simd: S, blocks: &[[u8; N]], at: usize, out: &mut Groups) {
    let mut bits = [0u16; GROUPS];
    for (bits, block) in bits.iter_mut().zip(blocks) {
        *bits = u16::from_le_bytes([block[at], block[at + 1]]);
    }
    simd.widen_halves(&bits, out);
}

/// 16 bytes of a block from `at` on.
#[inline(always)]
fn run<const N: usize, const LEN: usize>(block: &[u8; N], at: usize) -> &[u8; LEN] {
    // Both sizes are constants of the formats: the check is gone when this is compiled.
    block[at..].first_chunk().unwrap_or(&[0; LEN])
}

macro_rules! legacy {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, zero $zero:literal, wide $wide:literal,
     |$simd:ident, $b:ident| $quants:expr) => {
        $(#[$doc])*
        pub(super) struct $name;
        impl Format for $name {
            const BLOCK: usize = 32;
            const BYTES: usize = $bytes;
            const GROUP: usize = 32;
            const ZERO: i32 = $zero;
            const WIDE: bool = $wide;

            #[inline(always)]
            fn scales<S: Simd>(simd: S, bytes: &[u8], scale: &mut Groups, min: &mut Groups) {
                let blocks = bytes.as_chunks::<$bytes>().0;
                halves_at(simd, blocks, 0, scale);
                if Self::HAS_MIN {
                    halves_at(simd, blocks, 2, min);
                }
            }

            #[inline(always)]
            fn quants<S: Simd>($simd: S, bytes: &[u8], sink: &mut impl Sink<S>) {
                for (i, $b) in bytes.as_chunks::<$bytes>().0.iter().enumerate() {
                    let q = $quants;
                    sink.take($simd, i, q);
                }
            }
        }
    };
}

legacy!(
    /// f16 scale, 16 bytes of nibbles.
    Q4_0, 18, zero 8, wide false, |simd, b| simd.nibbles(run(b, 2))
);
legacy!(
    /// f16 scale, f16 min, 16 bytes of nibbles.
    Q4_1, 20, zero 0, wide false, |simd, b| simd.nibbles(run(b, 4))
);
legacy!(
    /// f16 scale, 32 fifth bits, 16 bytes of nibbles.
    Q5_0, 22, zero 16, wide false, |simd, b| {
        simd.or(simd.nibbles(run(b, 6)), simd.fifth_bits(u32::from_le_bytes(*run(b, 2))))
    }
);
legacy!(
    /// f16 scale, f16 min, 32 fifth bits, 16 bytes of nibbles.
    Q5_1, 24, zero 0, wide false, |simd, b| {
        simd.or(simd.nibbles(run(b, 8)), simd.fifth_bits(u32::from_le_bytes(*run(b, 4))))
    }
);
legacy!(
    /// f16 scale, 32 signed bytes.
    Q8_0, 34, zero 128, wide true, |simd, b| simd.xor(simd.load_bytes(run(b, 2)), 0x80)
);

/// `d · factors`, for each group.
#[inline(always)]
fn scaled<S: Simd>(simd: S, d: f32, factors: &[i8; GROUPS], out: &mut Groups) {
    simd.widen_bytes(factors, out);
    for i in (0..GROUPS).step_by(S::LANES) {
        // SAFETY: LANES divides GROUPS at every level.
        unsafe {
            let at = out.as_mut_ptr().add(i);
            simd.store(at, simd.mul(simd.load(at), simd.splat(d)));
        }
    }
}

/// Four 32-bit words as the 16 bytes of factors.
#[inline(always)]
fn factors(words: [u32; 4]) -> [i8; GROUPS] {
    let mut out = [0; GROUPS];
    for (out, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *out = word.to_le_bytes().map(|byte| byte as i8);
    }
    out
}

#[inline(always)]
fn word<const N: usize>(block: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes(*run(block, at))
}

/// 16 bytes of 4-bit (scale, min), 64 of 2-bit quants, f16 scale and min of these; groups of 16.
pub(super) struct Q2K;
impl Format for Q2K {
    const BLOCK: usize = 256;
    const BYTES: usize = 84;
    const GROUP: usize = 16;
    const ZERO: i32 = 0;

    #[inline(always)]
    fn scales<S: Simd>(simd: S, bytes: &[u8], scale: &mut Groups, min: &mut Groups) {
        let Some(b) = bytes.first_chunk::<84>() else {
            return;
        };
        let pairs = [word(b, 0), word(b, 4), word(b, 8), word(b, 12)];
        scaled(
            simd,
            half_at(b, 80),
            &factors(pairs.map(|w| w & 0x0f0f_0f0f)),
            scale,
        );
        scaled(
            simd,
            -half_at(b, 82),
            &factors(pairs.map(|w| w >> 4 & 0x0f0f_0f0f)),
            min,
        );
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, bytes: &[u8], sink: &mut impl Sink<S>) {
        let Some(b) = bytes.first_chunk::<84>() else {
            return;
        };
        for half in 0..2 {
            let q = simd.load_bytes(run(b, 16 + 32 * half));
            for i in 0..4 {
                sink.take(simd, 4 * half + i, simd.extract(q, 2 * i as i32, 3));
            }
        }
    }
}

/// 32 bytes of third bits, 64 of 2-bit quants, 16 6-bit scales in 12 bytes, f16 scale of these; groups of 16. Bit `j` of a byte
/// of third bits belongs to the `j`-th run of 32 weights.
pub(super) struct Q3K;
impl Format for Q3K {
    const BLOCK: usize = 256;
    const BYTES: usize = 110;
    const GROUP: usize = 16;
    const ZERO: i32 = 4;

    #[inline(always)]
    fn scales<S: Simd>(simd: S, bytes: &[u8], scale: &mut Groups, _: &mut Groups) {
        let Some(b) = bytes.first_chunk::<110>() else {
            return;
        };
        let (a, c, high) = (word(b, 96), word(b, 100), word(b, 104));
        let six = |low: u32, i: u32| low & 0x0f0f_0f0f | (high >> (2 * i) & 0x0303_0303) << 4;
        // 6 bits, less 32 in each byte: their sixth bit turned round and carried into the sign.
        let signed = |v: u32| {
            let v = v ^ 0x2020_2020;
            v | (v & 0x2020_2020) << 1 | (v & 0x2020_2020) << 2
        };
        let words = [six(a, 0), six(c, 1), six(a >> 4, 2), six(c >> 4, 3)];
        scaled(simd, half_at(b, 108), &factors(words.map(signed)), scale);
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, bytes: &[u8], sink: &mut impl Sink<S>) {
        let Some(b) = bytes.first_chunk::<110>() else {
            return;
        };
        let high = simd.load_bytes(run(b, 0));
        for half in 0..2 {
            let q = simd.load_bytes(run(b, 32 + 32 * half));
            for i in 0..4 {
                let run = 4 * half + i;
                let third = simd.extract(high, run as i32 - 2, 4);
                sink.take(simd, run, simd.or(simd.extract(q, 2 * i as i32, 3), third));
            }
        }
    }
}

/// The eight 6-bit (scale, min) pairs of Q4_K and Q5_K, times the block's own scale and min.
#[inline(always)]
fn six_bit_pairs<S: Simd, const N: usize>(
    simd: S,
    b: &[u8; N],
    scale: &mut Groups,
    min: &mut Groups,
) {
    let (s, m, high) = (word(b, 4), word(b, 8), word(b, 12));
    let two = |w: u32| (w >> 6 & 0x0303_0303) << 4;
    let scales = [s & 0x3f3f_3f3f, high & 0x0f0f_0f0f | two(s)];
    let mins = [m & 0x3f3f_3f3f, high >> 4 & 0x0f0f_0f0f | two(m)];
    scaled(
        simd,
        half_at(b, 0),
        &factors([scales[0], scales[1], 0, 0]),
        scale,
    );
    scaled(
        simd,
        -half_at(b, 2),
        &factors([mins[0], mins[1], 0, 0]),
        min,
    );
}

/// f16 scale and min, eight 6-bit pairs in 12 bytes, 128 bytes of nibbles; groups of 32.
pub(super) struct Q4K;
impl Format for Q4K {
    const BLOCK: usize = 256;
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const ZERO: i32 = 0;

    #[inline(always)]
    fn scales<S: Simd>(simd: S, bytes: &[u8], scale: &mut Groups, min: &mut Groups) {
        let Some(b) = bytes.first_chunk::<144>() else {
            return;
        };
        six_bit_pairs(simd, b, scale, min);
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, bytes: &[u8], sink: &mut impl Sink<S>) {
        let Some(b) = bytes.first_chunk::<144>() else {
            return;
        };
        for i in 0..4 {
            let q = simd.load_bytes(run(b, 16 + 32 * i));
            sink.take(simd, 2 * i, simd.extract(q, 0, 15));
            sink.take(simd, 2 * i + 1, simd.extract(q, 4, 15));
        }
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
    fn scales<S: Simd>(simd: S, bytes: &[u8], scale: &mut Groups, min: &mut Groups) {
        let Some(b) = bytes.first_chunk::<176>() else {
            return;
        };
        six_bit_pairs(simd, b, scale, min);
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, bytes: &[u8], sink: &mut impl Sink<S>) {
        let Some(b) = bytes.first_chunk::<176>() else {
            return;
        };
        let high = simd.load_bytes(run(b, 16));
        for i in 0..4 {
            let q = simd.load_bytes(run(b, 48 + 32 * i));
            for (half, shift) in [(0, 0), (1, 4)] {
                let run = 2 * i + half;
                let fifth = simd.extract(high, run as i32 - 4, 16);
                sink.take(simd, run, simd.or(simd.extract(q, shift, 15), fifth));
            }
        }
    }
}

/// 128 bytes of low nibbles, 64 of 2-bit high parts, 16 signed scales, f16 scale of these; groups of 16. Per half of the block:
/// two runs of 32 from the low nibbles of 64 bytes, then two from the high ones.
pub(super) struct Q6K;
impl Format for Q6K {
    const BLOCK: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const ZERO: i32 = 32;

    #[inline(always)]
    fn scales<S: Simd>(simd: S, bytes: &[u8], scale: &mut Groups, _: &mut Groups) {
        let Some(b) = bytes.first_chunk::<210>() else {
            return;
        };
        let words = [word(b, 192), word(b, 196), word(b, 200), word(b, 204)];
        scaled(simd, half_at(b, 208), &factors(words), scale);
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, bytes: &[u8], sink: &mut impl Sink<S>) {
        let Some(b) = bytes.first_chunk::<210>() else {
            return;
        };
        for half in 0..2 {
            let high = simd.load_bytes(run(b, 128 + 32 * half));
            let low = [
                simd.load_bytes(run(b, 64 * half)),
                simd.load_bytes(run(b, 64 * half + 32)),
            ];
            for i in 0..4 {
                let four = simd.extract(low[i % 2], 4 * (i / 2) as i32, 15);
                let two = simd.extract(high, 2 * i as i32 - 4, 0x30);
                sink.take(simd, 4 * half + i, simd.or(four, two));
            }
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
