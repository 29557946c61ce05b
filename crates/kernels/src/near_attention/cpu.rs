//! Token by token, split over the threads.
use super::Params;
use crate::kernel::CpuCall;

/// Tokens of a task.
const ROWS: usize = 16;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (nh, hd) = (p.nh as usize, p.hd as usize);
    let (q, k, v, r) = (c.read::<f32>(0), c.read::<f32>(1), c.read::<f32>(2), c.read::<f32>(3));
    let out: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let row = (nh * hd).max(1);
    c.cpu.pool.for_chunks(out, ROWS * row, |i, chunk| {
        let mut weights = [0.0f32; 64];
        for (t, out) in (i * ROWS..).zip(chunk.chunks_mut(row)) {
            let weights = &mut weights[..(p.p as usize).min(t + 1)];
            for (h, out) in out.chunks_mut(hd).enumerate() {
                let at = |t: usize| t * row + h * hd;
                let query = &q[at(t)..][..hd];
                let dot = |b: &[f32]| query.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
                for (j, w) in weights.iter_mut().enumerate() {
                    let s = p.kscale * dot(&k[at(t - j)..][..hd]) + dot(&r[at(j)..][..hd]);
                    *w = p.cap * (s / p.cap).tanh();
                }
                let top = weights.iter().fold(f32::NEG_INFINITY, |m, &s| m.max(s));
                weights.iter_mut().for_each(|w| *w = (*w - top).exp());
                let total: f32 = weights.iter().sum();
                out.fill(0.0);
                for (j, w) in weights.iter().enumerate() {
                    let value = &v[at(t - j)..][..hd];
                    out.iter_mut().zip(value).for_each(|(o, v)| *o += w / total * v);
                }
            }
        }
    });
}
