//! One token at a time, with [`crate::rope_kv`]'s rotation: the work is small beside the products around it.
use super::Params;
use crate::kernel::CpuCall;
use crate::rope_kv::cpu::rotate;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (rows, rope) = (c.read::<u32>(0), c.read::<f32>(1));
    let q: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let (hd, pairs) = (p.hd as usize, p.pairs as usize);
    for (t, q) in q.chunks_mut(p.nh as usize * hd).enumerate() {
        let pos = rows[2 * t + 1] as usize;
        if pos < p.positions as usize {
            let angles = &rope[pos * pairs * 2..][..pairs * 2];
            q.chunks_mut(hd).for_each(|head| rotate(p.pairing, pairs, head, angles));
        }
    }
}
