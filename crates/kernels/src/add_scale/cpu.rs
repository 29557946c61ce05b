//! Element by element, split over the threads when there are many.
use super::Params;
use crate::kernel::CpuCall;

/// Elements of a task: below this a second thread costs more than it brings.
const CHUNK: usize = 16_384;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let x = c.read::<f32>(0);
    let h: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    c.cpu.pool.for_chunks(h, CHUNK, |i, h| {
        for (h, x) in h.iter_mut().zip(&x[i * CHUNK..]) {
            *h = (*h + x) * p.scale;
        }
    });
}
