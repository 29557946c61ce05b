//! One row per task; the sum of squares is the SIMD part.
use super::Params;
use crate::cpu::{Cpu, vecmath};
use crate::kernel::CpuCall;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (x, w) = (c.read::<f32>(0), c.read::<f32>(1));
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    rows(c.cpu, &p, x, w, y);
}

/// Normalises rows of `x` into `y`; also the second half of `add_rms_norm`.
pub(crate) fn rows(cpu: &Cpu, p: &Params, x: &[f32], w: &[f32], y: &mut [f32]) {
    let d = p.d as usize;
    let row = |x: &[f32], y: &mut [f32]| {
        let scale = 1.0 / (vecmath::sum_squares(cpu.isa, x) / d as f32 + p.eps).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
            *y = x * scale * (w + p.offset);
        }
    };
    // A single token is done sooner than a second thread wakes.
    if y.len() < 16_384 {
        y.chunks_mut(d).zip(x.chunks(d)).for_each(|(y, x)| row(x, y));
    } else {
        cpu.pool.for_chunks(y, d, |r, y| row(&x[r * d..(r + 1) * d], y));
    }
}
