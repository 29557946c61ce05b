//! Q3_K: 256 values of 3 bits in 16 sub-blocks of 16, each with a 6-bit scale; symmetric.
//! `value = d·(s − 32)·(q − 4)`, `q` in 0..8, `s` in 0..64.

use super::q2_k::place2;
use super::{Block, inverse, scale, scale_bytes, search, signed_max};
use crate::DType;
use bytemuck::{Pod, Zeroable};

/// 110 bytes. The super-scale comes last.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ3K {
    /// Bit 2 of the values: bit `j` of byte `i` belongs to value `32·j + i`.
    pub hmask: [u8; 32],
    /// Bits 0 and 1, placed as in Q2_K: byte `i` of each 32 holds values `i`, `i + 32`, `i + 64`, `i + 96` of 128.
    pub qs: [u8; 64],
    /// 16 scales of 6 bits: the low 4 bits of scales `j` and `j + 8` in byte `j`; the high 2 bits of scales `i`, `i + 4`,
    /// `i + 8`, `i + 12` in byte `8 + i`, lowest first.
    pub scales: [u8; 12],
    /// The super-scale, f16.
    pub d: [u8; 2],
}

impl BlockQ3K {
    /// The scales, `s − 32`: −32 to 31.
    pub fn unpack_scales(&self) -> [i8; 16] {
        std::array::from_fn(|j| {
            let low = self.scales[j % 8] >> (j / 8 * 4) & 15;
            let high = self.scales[8 + j % 4] >> (j / 4 * 2) & 3;
            (low | high << 4) as i8 - 32
        })
    }
}

impl Block<256> for BlockQ3K {
    const DTYPE: DType = DType::Q3K;

    fn dequantize(&self, out: &mut [f32; 256]) {
        let d = scale(self.d);
        let scales = self.unpack_scales();
        let subs = out.as_chunks_mut::<16>().0.iter_mut().zip(scales);
        for (j, (out, s)) in subs.enumerate() {
            let s = d * f32::from(s);
            let (first, shift) = place2(16 * j);
            let (qs, hmask) = (&self.qs[first..][..16], &self.hmask[first % 32..][..16]);
            for ((out, q), h) in out.iter_mut().zip(qs).zip(hmask) {
                let q = q >> shift & 3 | (h >> (j / 2) & 1) << 2;
                *out = s * (f32::from(q) - 4.0);
            }
        }
    }

    fn quantize(values: &[f32; 256]) -> Self {
        let subs = search::sub_blocks::<16>(values);
        let wanted: [f32; 16] = std::array::from_fn(|j| search::symmetric(&subs[j], 4.0));
        let d = scale_bytes(signed_max(&wanted) / -32.0);
        let inv = inverse(scale(d));
        let s = wanted.map(|s| search::nearest(s * inv, -32.0, 31.0));
        let mut block = BlockQ3K {
            hmask: [0; 32],
            qs: [0; 64],
            scales: [0; 12],
            d,
        };
        for (j, (x, s)) in subs.iter().zip(s).enumerate() {
            let stored = (s + 32.0) as u8;
            block.scales[j % 8] |= (stored & 15) << (j / 8 * 4);
            block.scales[8 + j % 4] |= (stored >> 4) << (j / 4 * 2);
            let inv = inverse(scale(d) * s);
            for (i, x) in x.iter().enumerate() {
                let at = 16 * j + i;
                let q = (search::nearest(x * inv, -4.0, 3.0) + 4.0) as u8;
                let (byte, shift) = place2(at);
                block.qs[byte] |= (q & 3) << shift;
                block.hmask[at % 32] |= (q >> 2) << (at / 32);
            }
        }
        block
    }
}
