//! Rows shared among the threads when there are many; the sum of squares and the gate are the SIMD parts.
use super::Params;
use crate::cpu::vecmath;
use crate::kernel::CpuCall;

/// Elements of a task: below this a second thread costs more than it brings.
const CHUNK: usize = 8192;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (isa, d) = (c.cpu.isa, p.d as usize);
    let (x, gate, w) = (c.read::<f32>(0), c.read::<f32>(1), c.read::<f32>(2));
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let rows = (CHUNK / d).max(1);
    c.cpu.pool.for_chunks(y, rows * d, |i, y| {
        let at = i * rows * d;
        y.copy_from_slice(&gate[at..at + y.len()]);
        vecmath::silu(isa, y);
        for (y, x) in y.chunks_mut(d).zip(x[at..].chunks(d)) {
            let scale = 1.0 / (vecmath::sum_squares(isa, x) / d as f32 + p.eps).sqrt();
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y *= x * scale * w;
            }
        }
    });
}
