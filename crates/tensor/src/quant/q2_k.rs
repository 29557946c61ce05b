//! Q2_K: 256 values of 2 bits in 16 sub-blocks of 16, each with a 4-bit scale and a 4-bit offset.
//! `value = d·s·q − dmin·m`, `q` in 0..4, `s` and `m` in 0..16.

use super::{Block, scale, scale_bytes, search};
use crate::DType;
use bytemuck::{Pod, Zeroable};

/// 84 bytes. The super-scales come last.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ2K {
    /// Sub-block `j`: scale in the low 4 bits of byte `j`, offset in the high 4.
    pub scales: [u8; 16],
    /// 32 bytes per 128 values: byte `i` holds values `i`, `i + 32`, `i + 64`, `i + 96`, lowest bits first.
    pub qs: [u8; 64],
    /// The super-scale of the scales, f16.
    pub d: [u8; 2],
    /// The super-scale of the offsets, f16.
    pub dmin: [u8; 2],
}

impl Block<256> for BlockQ2K {
    const DTYPE: DType = DType::Q2K;

    fn dequantize(&self, out: &mut [f32; 256]) {
        let (d, dmin) = (scale(self.d), scale(self.dmin));
        for (j, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let s = d * f32::from(self.scales[j] & 15);
            let m = dmin * f32::from(self.scales[j] >> 4);
            for (i, out) in out.iter_mut().enumerate() {
                let (byte, shift) = place2(16 * j + i);
                *out = s * f32::from(self.qs[byte] >> shift & 3) - m;
            }
        }
    }

    fn quantize(values: &[f32; 256]) -> Self {
        let subs = search::sub_blocks::<16>(values);
        let fits: [_; 16] = std::array::from_fn(|j| search::affine(&subs[j], 3.0));
        let (s, m) = (fits.map(|f| f.0), fits.map(|f| f.1));
        let d = scale_bytes(search::largest(&s) / 15.0);
        let dmin = scale_bytes(search::largest(&m) / 15.0);
        let s = search::levels(&s, scale(d), 15.0);
        let m = search::levels(&m, scale(dmin), 15.0);
        let mut qs = [0; 64];
        for (j, x) in subs.iter().enumerate() {
            let offset = scale(dmin) * f32::from(m[j]);
            let q = search::levels(&x.map(|v| v + offset), scale(d) * f32::from(s[j]), 3.0);
            for (i, q) in q.into_iter().enumerate() {
                let (byte, shift) = place2(16 * j + i);
                qs[byte] |= q << shift;
            }
        }
        BlockQ2K {
            scales: std::array::from_fn(|j| s[j] | m[j] << 4),
            qs,
            d,
            dmin,
        }
    }
}

/// Byte and shift of the 2 low bits of value `i` (0..256), in Q2_K and Q3_K.
pub(super) fn place2(i: usize) -> (usize, usize) {
    (i / 128 * 32 + i % 32, i % 128 / 32 * 2)
}
