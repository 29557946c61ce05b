//! A word of the mask at a time: most allow nothing or everything.
use super::Params;
use crate::kernel::CpuCall;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (v, low) = (p.v as usize, f32::from_bits(p.low));
    let mask = c.read::<u32>(0);
    let logits: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    for (row, words) in logits.chunks_mut(v).zip(mask.chunks(v.div_ceil(32))) {
        for (logits, &word) in row.chunks_mut(32).zip(words) {
            if word == u32::MAX {
                continue;
            }
            for (bit, l) in logits.iter_mut().enumerate() {
                *l = if word >> bit & 1 == 1 || l.is_nan() {
                    *l
                } else {
                    low
                };
            }
        }
    }
}
