//! Q4_0: 32 values of 4 bits, symmetric. `value = d·(q − 8)`, `q` in 0..16.

use super::{Block, inverse, scale, scale_bytes, signed_max};
use crate::DType;
use bytemuck::{Pod, Zeroable};

/// 18 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// The scale, f16.
    pub d: [u8; 2],
    /// Byte `i`: value `i` in the low 4 bits, value `i + 16` in the high 4.
    pub qs: [u8; 16],
}

impl Block<32> for BlockQ4_0 {
    const DTYPE: DType = DType::Q4_0;

    fn dequantize(&self, out: &mut [f32; 32]) {
        let d = scale(self.d);
        let (low, high) = out.split_at_mut(16);
        for ((q, low), high) in self.qs.iter().zip(low).zip(high) {
            *low = d * (f32::from(q & 15) - 8.0);
            *high = d * (f32::from(q >> 4) - 8.0);
        }
    }

    /// The value of largest magnitude becomes exactly −8·d; the rest round half up.
    fn quantize(values: &[f32; 32]) -> Self {
        let d = signed_max(values) / -8.0;
        let inv = inverse(d);
        let q = |v: f32| ((v * inv + 8.5) as u8).min(15);
        BlockQ4_0 {
            d: scale_bytes(d),
            qs: std::array::from_fn(|i| q(values[i]) | q(values[i + 16]) << 4),
        }
    }
}
