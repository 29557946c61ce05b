//! Q8_0: 32 values of 8 bits, symmetric. `value = d·q`, `q` in −127..=127 (−128 is read too).

use super::{Block, inverse, scale, scale_bytes, signed_max};
use crate::DType;
use bytemuck::{Pod, Zeroable};

/// 34 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// The scale, f16.
    pub d: [u8; 2],
    /// The values in order.
    pub qs: [i8; 32],
}

impl Block<32> for BlockQ8_0 {
    const DTYPE: DType = DType::Q8_0;

    fn dequantize(&self, out: &mut [f32; 32]) {
        let d = scale(self.d);
        for (out, &q) in out.iter_mut().zip(&self.qs) {
            *out = d * f32::from(q);
        }
    }

    /// The largest magnitude becomes ±127·d; the rest round half away from zero.
    fn quantize(values: &[f32; 32]) -> Self {
        let d = signed_max(values).abs() / 127.0;
        let inv = inverse(d);
        BlockQ8_0 {
            d: scale_bytes(d),
            qs: values.map(|v| (v * inv).round() as i8),
        }
    }
}
