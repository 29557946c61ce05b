//! Q5_1: 32 values of 5 bits with an offset. `value = d·q + m`, `q` in 0..32.

use super::q5_0::{pack5, unpack5};
use super::{Block, inverse, min_max, scale, scale_bytes};
use crate::DType;
use bytemuck::{Pod, Zeroable};

/// 24 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// The step, f16.
    pub d: [u8; 2],
    /// The smallest value, f16.
    pub m: [u8; 2],
    /// A little-endian u32 whose bit `i` is bit 4 of value `i`.
    pub qh: [u8; 4],
    /// The low bits. Byte `i`: value `i` in the low 4 bits, value `i + 16` in the high 4.
    pub qs: [u8; 16],
}

impl Block<32> for BlockQ5_1 {
    const DTYPE: DType = DType::Q5_1;

    fn dequantize(&self, out: &mut [f32; 32]) {
        let (d, m) = (scale(self.d), scale(self.m));
        for (out, q) in out.iter_mut().zip(unpack5(self.qh, &self.qs)) {
            *out = d * f32::from(q) + m;
        }
    }

    /// The range from smallest to largest in 31 steps, rounded half up.
    fn quantize(values: &[f32; 32]) -> Self {
        let (min, max) = min_max(values);
        let d = (max - min) / 31.0;
        let inv = inverse(d);
        let (qh, qs) = pack5(values.map(|v| (((v - min) * inv + 0.5) as u8).min(31)));
        BlockQ5_1 {
            d: scale_bytes(d),
            m: scale_bytes(min),
            qh,
            qs,
        }
    }
}
