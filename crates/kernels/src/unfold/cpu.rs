//! Patch by patch, split over the threads.
use super::Params;
use crate::kernel::CpuCall;

/// Elements of a task: below this a second thread costs more than it brings.
const CHUNK: usize = 16_384;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let x = c.read::<f32>(0);
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let size = |list: [u32; 2]| (list[0] as usize, list[1] as usize);
    let ((h, w), (oh, ow), (kh, kw)) = (size(p.size), size(p.out), size(p.kernel));
    let ((sh, sw), (ph, pw)) = (size(p.stride), size(p.pad));
    let (channels, ldy) = (p.c as usize, p.ldy as usize);
    let rows = (CHUNK / ldy).max(1);
    c.cpu.pool.for_chunks(y, rows * ldy, |i, chunk| {
        for (patch, row) in (i * rows..).zip(chunk.chunks_mut(ldy)) {
            row.fill(0.0);
            let (b, oy, ox) = (patch / (oh * ow), patch / ow % oh, patch % ow);
            for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                let (iy, ix) = ((oy * sh + ky).wrapping_sub(ph), (ox * sw + kx).wrapping_sub(pw));
                if iy < h && ix < w {
                    let cell = &x[((b * h + iy) * w + ix) * channels..][..channels];
                    let places = row[ky * kw + kx..].iter_mut().step_by(kh * kw);
                    for (to, from) in places.zip(cell) {
                        *to = *from;
                    }
                }
            }
        }
    });
}
