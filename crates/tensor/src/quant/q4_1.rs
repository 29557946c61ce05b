//! Q4_1: 32 values of 4 bits with an offset. `value = d·q + m`, `q` in 0..16.

use super::{Block, inverse, min_max, scale, scale_bytes};
use crate::DType;
use bytemuck::{Pod, Zeroable};

/// 20 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_1 {
    /// The step, f16.
    pub d: [u8; 2],
    /// The smallest value, f16.
    pub m: [u8; 2],
    /// Byte `i`: value `i` in the low 4 bits, value `i + 16` in the high 4.
    pub qs: [u8; 16],
}

impl Block<32> for BlockQ4_1 {
    const DTYPE: DType = DType::Q4_1;

    fn dequantize(&self, out: &mut [f32; 32]) {
        let (d, m) = (scale(self.d), scale(self.m));
        let (low, high) = out.split_at_mut(16);
        for ((q, low), high) in self.qs.iter().zip(low).zip(high) {
            *low = d * f32::from(q & 15) + m;
            *high = d * f32::from(q >> 4) + m;
        }
    }

    /// The range from smallest to largest in 15 steps, rounded half up.
    fn quantize(values: &[f32; 32]) -> Self {
        let (min, max) = min_max(values);
        let d = (max - min) / 15.0;
        let inv = inverse(d);
        let q = |v: f32| (((v - min) * inv + 0.5) as u8).min(15);
        BlockQ4_1 {
            d: scale_bytes(d),
            m: scale_bytes(min),
            qs: std::array::from_fn(|i| q(values[i]) | q(values[i + 16]) << 4),
        }
    }
}
