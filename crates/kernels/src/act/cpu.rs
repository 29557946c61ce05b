//! Whole rows per task; bias and function while the row is in the cache.
use super::Params;
use crate::cpu::vecmath;
use crate::kernel::CpuCall;

/// Elements of a task: below this a second thread costs more than it brings.
const CHUNK: usize = 8192;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (isa, n) = (c.cpu.isa, p.n as usize);
    let b = (p.bias == 1).then(|| c.read::<f32>(0));
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let Some(b) = b else {
        c.cpu.pool.for_chunks(y, CHUNK, |_, y| super::apply(isa, p.act, y));
        return;
    };
    c.cpu.pool.for_chunks(y, (CHUNK / n).max(1) * n, |_, rows| {
        for row in rows.chunks_mut(n) {
            vecmath::axpy_f32(isa, 1.0, b, row);
            super::apply(isa, p.act, row);
        }
    });
}
