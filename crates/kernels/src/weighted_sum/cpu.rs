//! Token by token, split over the threads when there are many.
use super::Params;
use crate::cpu::vecmath;
use crate::kernel::CpuCall;

/// Elements read by a task: below this a second thread costs more than it brings.
const CHUNK: usize = 32_768;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (isa, k, d) = (c.cpu.isa, p.k as usize, p.d as usize);
    let (x, w) = (c.read::<f32>(0), c.read::<f32>(1));
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let tokens = (CHUNK / (k * d)).max(1);
    c.cpu.pool.for_chunks(y, tokens * d, |i, y| {
        for (t, y) in (i * tokens..).zip(y.chunks_mut(d)) {
            y.fill(0.0);
            for (w, x) in w[t * k..][..k].iter().zip(x[t * k * d..].chunks(d)) {
                vecmath::axpy_f32(isa, *w, x, y);
            }
        }
    });
}
