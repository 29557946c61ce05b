//! Element by element, split over the threads when there are many.
use super::Params;
use crate::kernel::CpuCall;

/// Elements of a task: below this a second thread costs more than it brings.
const CHUNK: usize = 8192;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (gate, up) = (c.read::<f32>(0), c.read::<f32>(1));
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let isa = c.cpu.isa;
    c.cpu.pool.for_chunks(y, CHUNK, |i, y| {
        let range = i * CHUNK..i * CHUNK + y.len();
        y.copy_from_slice(&gate[range.clone()]);
        crate::act::apply(isa, p.act, y);
        for (y, u) in y.iter_mut().zip(&up[range]) {
            *y *= u;
        }
    });
}
