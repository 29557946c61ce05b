//! A few rows per task.
use super::Params;
use crate::cpu::{Cpu, Isa, vecmath};
use crate::kernel::CpuCall;

/// Elements of a task: below this a second thread costs more than it brings.
const CHUNK: usize = 16_384;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (x, w) = (c.read::<f32>(0), c.read::<f32>(1));
    let b = (p.bias == 1).then(|| c.read::<f32>(2));
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let (isa, d) = (c.cpu.isa, p.d as usize);
    let rows = rows_of_task(c.cpu, d);
    c.cpu.pool.for_chunks(y, rows * d, |i, y| {
        let x = &x[i * rows * d..][..y.len()];
        for (x, y) in x.chunks(d).zip(y.chunks_mut(d)) {
            row(isa, &p, x, w, b, y);
        }
    });
}

/// Rows that make a task worth handing over; all of them where there is one thread.
pub(crate) fn rows_of_task(cpu: &Cpu, d: usize) -> usize {
    if cpu.pool.threads() == 1 { usize::MAX / 2 / d } else { (CHUNK / d).max(1) }
}

/// Normalises one row; also the second half of `add_layer_norm`.
pub(crate) fn row(isa: Isa, p: &Params, x: &[f32], w: &[f32], b: Option<&[f32]>, y: &mut [f32]) {
    let d = x.len() as f32;
    let mean = vecmath::sum_f32(isa, x) / d;
    y.copy_from_slice(x);
    vecmath::add_scalar(isa, -mean, y);
    let scale = 1.0 / (vecmath::sum_squares(isa, y) / d + p.eps).sqrt();
    vecmath::scale_shift(isa, scale, w, b, y);
}
