//! Q5_K: 256 values of 5 bits in 8 sub-blocks of 32, each with a 6-bit scale and a 6-bit offset.
//! `value = d·s·q − dmin·m`, `q` in 0..32, `s` and `m` in 0..64.

use super::q4_k::{fit, scale_and_min};
use super::{Block, scale};
use crate::DType;
use bytemuck::{Pod, Zeroable};

/// 176 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5K {
    /// The super-scale of the scales, f16.
    pub d: [u8; 2],
    /// The super-scale of the offsets, f16.
    pub dmin: [u8; 2],
    /// 8 scales and 8 offsets of 6 bits; see [`scale_and_min`].
    pub scales: [u8; 12],
    /// Bit 4 of the values: bit `j` of byte `i` belongs to value `i` of sub-block `j`.
    pub qh: [u8; 32],
    /// Bits 0 to 3, 32 bytes per 64 values: the first 32 in the low 4 bits, the next 32 in the high 4.
    pub qs: [u8; 128],
}

impl Block<256> for BlockQ5K {
    const DTYPE: DType = DType::Q5K;

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
                let sub = 2 * i + j;
                let (s, m) = scale_and_min(sub, &self.scales);
                let (s, m) = (d * f32::from(s), dmin * f32::from(m));
                for ((out, q), h) in out.iter_mut().zip(qs).zip(&self.qh) {
                    *out = s * f32::from(q >> (4 * j) & 15 | (h >> sub & 1) << 4) - m;
                }
            }
        }
    }

    fn quantize(values: &[f32; 256]) -> Self {
        let (d, dmin, scales, q) = fit(values, 31.0);
        let qs = std::array::from_fn(|i| {
            let at = i / 32 * 64 + i % 32;
            q[at] & 15 | (q[at + 32] & 15) << 4
        });
        let qh = std::array::from_fn(|i| (0..8).fold(0, |h, j| h | (q[32 * j + i] >> 4) << j));
        BlockQ5K {
            d,
            dmin,
            scales,
            qh,
            qs,
        }
    }
}
