//! Tap by tap over rows of channels, rows split over the threads.
use super::Params;
use crate::kernel::CpuCall;

/// Elements of a task: below this a second thread costs more than it brings.
const CHUNK: usize = 8192;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (channels, taps) = ((p.c as usize).max(1), p.k as usize);
    let (x, w) = (c.read::<f32>(0), c.read::<f32>(1));
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let rows = (CHUNK / channels).max(1);
    c.cpu.pool.for_chunks(y, rows * channels, |i, chunk| {
        for (t, row) in (i * rows..).zip(chunk.chunks_mut(channels)) {
            row.fill(0.0);
            for tap in (0..taps).filter(|tap| t + tap + 1 >= taps) {
                let from = &x[(t + tap + 1 - taps) * channels..][..channels];
                for ((y, x), w) in row.iter_mut().zip(from).zip(w.iter().skip(tap).step_by(taps)) {
                    *y += x * w;
                }
            }
        }
    });
}
