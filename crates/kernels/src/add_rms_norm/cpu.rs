//! The add, then the norm's rows.
use super::Params;
use crate::kernel::CpuCall;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (x, w) = (c.read::<f32>(0), c.read::<f32>(1));
    let [h, y] = &mut c.writes[..] else { return };
    let h: &mut [f32] = bytemuck::cast_slice_mut(h);
    for (h, x) in h.iter_mut().zip(x) {
        *h += x;
    }
    crate::rms_norm::cpu::rows(c.cpu, &p, h, w, bytemuck::cast_slice_mut(y));
}
