//! Q6_K: 256 values of 6 bits in 16 sub-blocks of 16, each with an 8-bit scale; symmetric.
//! `value = d·s·(q − 32)`, `q` in 0..64, `s` in −128..128.

use super::{Block, inverse, scale, scale_bytes, search, signed_max};
use crate::DType;
use bytemuck::{Pod, Zeroable};

/// 210 bytes. The super-scale comes last.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ6K {
    /// Bits 0 to 3, 64 bytes per 128 values: byte `i` holds value `i` in the low 4 bits and value `i + 64` in the high 4.
    pub ql: [u8; 128],
    /// Bits 4 and 5, 32 bytes per 128 values: byte `i` holds values `i`, `i + 32`, `i + 64`, `i + 96`, lowest bits first.
    pub qh: [u8; 64],
    /// The scales of the sub-blocks.
    pub scales: [i8; 16],
    /// The super-scale, f16.
    pub d: [u8; 2],
}

impl Block<256> for BlockQ6K {
    const DTYPE: DType = DType::Q6K;

    fn dequantize(&self, out: &mut [f32; 256]) {
        let d = scale(self.d);
        for (n, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            let (ql, qh) = (&self.ql[64 * n..][..64], &self.qh[32 * n..][..32]);
            for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let ql = &ql[j % 2 * 32..][..32];
                for (i, out) in out.iter_mut().enumerate() {
                    let s = d * f32::from(self.scales[8 * n + 2 * j + i / 16]);
                    let q = ql[i] >> (j / 2 * 4) & 15 | (qh[i] >> (2 * j) & 3) << 4;
                    *out = s * (f32::from(q) - 32.0);
                }
            }
        }
    }

    fn quantize(values: &[f32; 256]) -> Self {
        let subs = search::sub_blocks::<16>(values);
        let wanted: [f32; 16] = std::array::from_fn(|j| search::symmetric(&subs[j], 32.0));
        let d = scale_bytes(signed_max(&wanted) / -128.0);
        let inv = inverse(scale(d));
        let s = wanted.map(|s| search::nearest(s * inv, -128.0, 127.0));
        let mut block = BlockQ6K {
            ql: [0; 128],
            qh: [0; 64],
            scales: s.map(|s| s as i8),
            d,
        };
        for (at, x) in values.iter().enumerate() {
            let inv = inverse(scale(d) * s[at / 16]);
            let q = (search::nearest(x * inv, -32.0, 31.0) + 32.0) as u8;
            let (n, i) = (at / 128, at % 128);
            block.ql[64 * n + i % 64] |= (q & 15) << (i / 64 * 4);
            block.qh[32 * n + i % 32] |= (q >> 4) << (i / 32 * 2);
        }
        block
    }
}
