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

/// The integer nearest to `v`, half away from zero. `f32::round` is a library call on x86-64 before SSE4.1.
fn nearest(v: f32) -> i8 {
    // Not ½ itself: the number before it and ½ would make 1.
    (v + 0.5_f32.next_down().copysign(v)) as i8
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
            qs: values.map(|v| nearest(v * inv)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_round() {
        for i in -1_100..=1_100 {
            let tie = i as f32 / 8.0;
            for v in [tie.next_down(), tie, tie.next_up()] {
                assert_eq!(nearest(v), v.round() as i8, "{v:?}");
            }
        }
        assert_eq!(nearest(f32::NAN), 0);
    }
}
