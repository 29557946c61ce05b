//! Element by element, split over the threads when there are many.
use super::Params;
use crate::kernel::CpuCall;

/// Elements of a task: below this a second thread costs more than it brings.
const CHUNK: usize = 2048;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let x: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    c.cpu.pool.for_chunks(x, CHUNK, |_, x| {
        x.iter_mut().for_each(|x| *x = p.cap * (*x / p.cap).tanh());
    });
}
