//! Element by element, split over the threads when there are many.
use super::Params;
use crate::kernel::CpuCall;

/// Elements of a task: below this a second thread costs more than it brings.
const CHUNK: usize = 16_384;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let x = c.read::<f32>(0);
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    c.cpu.pool.for_chunks(y, CHUNK, |i, y| {
        for (y, x) in y.iter_mut().zip(&x[i * CHUNK..]) {
            *y = x.clamp(p.lo, p.hi);
        }
    });
}
