//! Row by row, split over the threads when there are many.
use super::Params;
use crate::cpu::vecmath;
use crate::kernel::CpuCall;

/// Elements of a task: below this a second thread costs more than it brings.
const CHUNK: usize = 16_384;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (isa, n, b) = (c.cpu.isa, p.n as usize, c.read::<f32>(0));
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let whole_rows = (CHUNK / n).max(1) * n;
    c.cpu.pool.for_chunks(y, whole_rows, |_, rows| {
        for row in rows.chunks_mut(n) {
            vecmath::axpy_f32(isa, 1.0, b, row);
        }
    });
}
