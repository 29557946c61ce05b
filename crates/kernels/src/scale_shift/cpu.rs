//! Row by row, split over the threads when there are many.
use super::Params;
use crate::kernel::CpuCall;

/// Elements of a task: below this a second thread costs more than it brings.
const CHUNK: usize = 16_384;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (n, w, b) = (p.n as usize, c.read::<f32>(0), c.read::<f32>(1));
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let whole_rows = (CHUNK / n.max(1)).max(1) * n.max(1);
    c.cpu.pool.for_chunks(y, whole_rows, |_, rows| {
        for row in rows.chunks_mut(n.max(1)) {
            for (y, (w, b)) in row.iter_mut().zip(w.iter().zip(b)) {
                *y = *y * w + b;
            }
        }
    });
}
