//! One task per token and head: scores of the span's keys, softmax, then the weighted values.
use super::Params;
use crate::cpu::{Isa, vecmath};
use crate::kernel::CpuCall;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let isa = c.cpu.isa;
    let (q, k, v, spans) = (c.read::<f32>(0), c.read::<f32>(1), c.read::<f32>(2), c.read::<u32>(3));
    let out: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let row = (p.nh * p.hd) as usize;
    c.cpu.pool.for_chunks(out, row, |t, out| {
        let mut scores = Vec::new();
        for (h, out) in out.chunks_mut(p.hd as usize).enumerate() {
            head(&p, isa, [q, k, v], (spans[2 * t], spans[2 * t + 1]), t, h, &mut scores, out);
        }
    });
}

#[allow(clippy::too_many_arguments)]
fn head(
    p: &Params,
    isa: Isa,
    [q, k, v]: [&[f32]; 3],
    span: (u32, u32),
    t: usize,
    h: usize,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let hd = p.hd as usize;
    let kv_head = h / (p.nh / p.nkv) as usize;
    let cell = |i: usize, row: usize, head: usize| row * p.stride[i] as usize + p.first[i] as usize + head * hd;
    let q = &q[cell(0, t, h)..][..hd];
    let keys = span.0 as usize..span.1.min(p.s) as usize;
    scores.clear();
    scores.extend(keys.clone().map(|j| vecmath::dot_f32(isa, q, &k[cell(1, j, kv_head)..][..hd]) * p.scale));
    let top = vecmath::max_f32(isa, scores);
    vecmath::add_scalar(isa, -top, scores);
    vecmath::exp(isa, scores);
    let total = vecmath::sum_f32(isa, scores);
    out.fill(0.0);
    for (j, s) in keys.zip(scores.iter()) {
        vecmath::axpy_f32(isa, s / total, &v[cell(2, j, kv_head)..][..hd], out);
    }
}
