//! Blocks of a row's columns shared among the threads; each rank is one `axpy`.
use super::Params;
use crate::cpu::vecmath;
use crate::kernel::CpuCall;

/// Columns of a task.
const CHUNK: usize = 2048;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (isa, r, n) = (c.cpu.isa, p.r as usize, p.n as usize);
    let (h, b) = (c.read::<f32>(0), c.read::<f32>(1));
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    // Whole rows, or parts of one: a task never spans the end of a row.
    let mut parts: Vec<(usize, usize, &mut [f32])> = Vec::new();
    for (t, row) in y.chunks_mut(n).enumerate() {
        parts.extend(row.chunks_mut(CHUNK).enumerate().map(|(i, part)| (t, i * CHUNK, part)));
    }
    c.cpu.pool.for_chunks(&mut parts, 4, |_, parts| {
        for (t, first, part) in parts {
            for (r, h) in h[*t * r..(*t + 1) * r].iter().enumerate() {
                vecmath::axpy_f32(isa, p.scale * h, &b[r * n + *first..][..part.len()], part);
            }
        }
    });
}
