//! Q4_K: 256 values of 4 bits in 8 sub-blocks of 32, each with a 6-bit scale and a 6-bit offset.
//! `value = d·s·q − dmin·m`, `q` in 0..16, `s` and `m` in 0..64.

use super::{Block, scale, scale_bytes, search};
use crate::DType;
use bytemuck::{Pod, Zeroable};

/// 144 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4K {
    /// The super-scale of the scales, f16.
    pub d: [u8; 2],
    /// The super-scale of the offsets, f16.
    pub dmin: [u8; 2],
    /// 8 scales and 8 offsets of 6 bits; see [`scale_and_min`].
    pub scales: [u8; 12],
    /// 32 bytes per 64 values: the first 32 in the low 4 bits, the next 32 in the high 4.
    pub qs: [u8; 128],
}

/// Scale and offset of sub-block `j` (0..8) from the 12 bytes of Q4_K and Q5_K.
///
/// Sub-blocks 0 to 3: scale in the low 6 bits of byte `j`, offset in those of byte `j + 4`. Sub-blocks 4 to 7: the low 4
/// bits of scale and offset in byte `j + 4`, their high 2 bits in the high 2 bits of bytes `j − 4` and `j`.
#[inline]
pub fn scale_and_min(j: usize, scales: &[u8; 12]) -> (u8, u8) {
    if j < 4 {
        (scales[j] & 63, scales[j + 4] & 63)
    } else {
        (
            scales[j + 4] & 15 | scales[j - 4] >> 6 << 4,
            scales[j + 4] >> 4 | scales[j] >> 6 << 4,
        )
    }
}

/// The inverse of [`scale_and_min`].
pub(super) fn pack_scales(s: &[u8; 8], m: &[u8; 8]) -> [u8; 12] {
    std::array::from_fn(|i| match i {
        0..4 => s[i] | s[i + 4] >> 4 << 6,
        4..8 => m[i - 4] | m[i] >> 4 << 6,
        _ => s[i - 4] & 15 | (m[i - 4] & 15) << 4,
    })
}

/// Scales of a Q4_K or Q5_K super-block: super-scales, packed scales, and the integers 0..=`top`.
pub(super) fn fit(values: &[f32; 256], top: f32) -> ([u8; 2], [u8; 2], [u8; 12], [u8; 256]) {
    let subs = search::sub_blocks::<32>(values);
    let fits: [_; 8] = std::array::from_fn(|j| search::affine(&subs[j], top));
    let (s, m) = (fits.map(|f| f.0), fits.map(|f| f.1));
    let d = scale_bytes(search::largest(&s) / 63.0);
    let dmin = scale_bytes(search::largest(&m) / 63.0);
    let s = search::levels(&s, scale(d), 63.0);
    let m = search::levels(&m, scale(dmin), 63.0);
    let mut q = [0; 256];
    for (j, (q, x)) in q.as_chunks_mut::<32>().0.iter_mut().zip(subs).enumerate() {
        let offset = scale(dmin) * f32::from(m[j]);
        *q = search::levels(&x.map(|v| v + offset), scale(d) * f32::from(s[j]), top);
    }
    (d, dmin, pack_scales(&s, &m), q)
}

impl Block<256> for BlockQ4K {
    const DTYPE: DType = DType::Q4K;

    fn dequantize(&self, out: &mut [f32; 256]) {
        let (d, dmin) = (scale(self.d), scale(self.dmin));
        let quarters = self
            .qs
            .as_chunks::<32>()
            .0
            .iter()
            .zip(out.as_chunks_mut::<64>().0);
        for (i, (qs, out)) in quarters.enumerate() {
            let (low, high) = out.split_at_mut(32);
            for (j, out) in [low, high].into_iter().enumerate() {
                let (s, m) = scale_and_min(2 * i + j, &self.scales);
                let (s, m) = (d * f32::from(s), dmin * f32::from(m));
                for (out, q) in out.iter_mut().zip(qs) {
                    *out = s * f32::from(q >> (4 * j) & 15) - m;
                }
            }
        }
    }

    fn quantize(values: &[f32; 256]) -> Self {
        let (d, dmin, scales, q) = fit(values, 15.0);
        let qs = std::array::from_fn(|i| {
            let at = i / 32 * 64 + i % 32;
            q[at] | q[at + 32] << 4
        });
        BlockQ4K {
            d,
            dmin,
            scales,
            qs,
        }
    }
}
