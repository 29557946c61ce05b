//! Q5_0: 32 values of 5 bits, symmetric. `value = d·(q − 16)`, `q` in 0..32.

use super::{Block, inverse, scale, scale_bytes, signed_max};
use crate::DType;
use bytemuck::{Pod, Zeroable};

/// 22 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// The scale, f16.
    pub d: [u8; 2],
    /// A little-endian u32 whose bit `i` is bit 4 of value `i`.
    pub qh: [u8; 4],
    /// The low bits. Byte `i`: value `i` in the low 4 bits, value `i + 16` in the high 4.
    pub qs: [u8; 16],
}

impl Block<32> for BlockQ5_0 {
    const DTYPE: DType = DType::Q5_0;

    fn dequantize(&self, out: &mut [f32; 32]) {
        let d = scale(self.d);
        for (out, q) in out.iter_mut().zip(unpack5(self.qh, &self.qs)) {
            *out = d * (f32::from(q) - 16.0);
        }
    }

    /// The value of largest magnitude becomes exactly −16·d; the rest round half up.
    fn quantize(values: &[f32; 32]) -> Self {
        let d = signed_max(values) / -16.0;
        let inv = inverse(d);
        let (qh, qs) = pack5(values.map(|v| ((v * inv + 16.5) as u8).min(31)));
        BlockQ5_0 {
            d: scale_bytes(d),
            qh,
            qs,
        }
    }
}

/// The 5-bit integers of Q5_0 and Q5_1.
pub(super) fn unpack5(qh: [u8; 4], qs: &[u8; 16]) -> [u8; 32] {
    let high = u32::from_le_bytes(qh);
    std::array::from_fn(|i| {
        let low = if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 };
        low | ((high >> i & 1) as u8) << 4
    })
}

/// The inverse of [`unpack5`].
pub(super) fn pack5(q: [u8; 32]) -> ([u8; 4], [u8; 16]) {
    let high = q
        .iter()
        .enumerate()
        .fold(0u32, |h, (i, q)| h | u32::from(q >> 4 & 1) << i);
    (
        high.to_le_bytes(),
        std::array::from_fn(|i| q[i] & 15 | (q[i + 16] & 15) << 4),
    )
}
