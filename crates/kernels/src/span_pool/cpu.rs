//! One span per task, row by row.
use super::Params;
use crate::cpu::vecmath;
use crate::kernel::CpuCall;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (x, spans) = (c.read::<f32>(0), c.read::<u32>(1));
    let (isa, d) = (c.cpu.isa, p.d as usize);
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    c.cpu.pool.for_chunks(y, d, |i, y| {
        let (begin, end) = (spans[2 * i] as usize, spans[2 * i + 1].min(p.rows) as usize);
        y.fill(0.0);
        if begin >= end {
            return;
        }
        let rows = x[begin * d..end * d].chunks(d);
        let n = (end - begin) as f32;
        let by = match p.pool {
            0 => n,
            1 => n.sqrt(),
            2 => {
                y.copy_from_slice(&x[begin * d..][..d]);
                for row in rows {
                    y.iter_mut().zip(row).for_each(|(y, x)| *y = y.max(*x));
                }
                return;
            }
            _ => 0.5 * n * (n + 1.0),
        };
        for (r, row) in rows.enumerate() {
            let weight = if p.pool == 3 { (r + 1) as f32 } else { 1.0 };
            vecmath::axpy_f32(isa, weight, row, y);
        }
        y.iter_mut().for_each(|y| *y /= by);
    });
}
