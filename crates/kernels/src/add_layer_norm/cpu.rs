//! The add, then the norm, row by row while the row is in the cache.
use super::Params;
use crate::cpu::vecmath;
use crate::kernel::CpuCall;
use crate::layer_norm::cpu::{row, rows_of_task};

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (x, w) = (c.read::<f32>(0), c.read::<f32>(1));
    let b = (p.bias == 1).then(|| c.read::<f32>(2));
    let (isa, d) = (c.cpu.isa, p.d as usize);
    let rows = rows_of_task(c.cpu, d);
    let [h, y] = &mut c.writes[..] else { return };
    let h: &mut [f32] = bytemuck::cast_slice_mut(h);
    let y: &mut [f32] = bytemuck::cast_slice_mut(y);
    let pairs: Vec<_> = h.chunks_mut(rows * d).zip(y.chunks_mut(rows * d)).map(std::sync::Mutex::new).collect();
    c.cpu.pool.run(pairs.len(), |i| {
        let mut pair = pairs[i].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (h, y) = &mut *pair;
        let x = &x[i * rows * d..][..h.len()];
        for ((h, y), x) in h.chunks_mut(d).zip(y.chunks_mut(d)).zip(x.chunks(d)) {
            vecmath::axpy_f32(isa, 1.0, x, h);
            row(isa, &p, h, w, b, y);
        }
    });
}
