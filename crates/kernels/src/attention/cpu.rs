//! One task per token and head: scores of all visible keys, softmax, then the weighted values.
use super::Params;
use crate::cpu::{Isa, vecmath};
use crate::kernel::CpuCall;
use firelight_tensor::DType;
use half::f16;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let isa = c.cpu.isa;
    let (q, rows) = (c.read::<f32>(0), [c.read::<u32>(3), c.read::<u32>(4)]);
    let (hd, pool) = (p.hd as usize, &c.cpu.pool);
    let cache = c.call.operands[1].dtype;
    let (kb, vb) = (c.reads[1], c.reads[2]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    if cache == DType::F16 {
        let (k, v): (&[f16], &[f16]) = (bytemuck::cast_slice(kb), bytemuck::cast_slice(vb));
        pool.for_chunks(out, hd, |i, out| {
            head(&p, isa, rows, i, out, |at| vecmath::dot_f16(isa, &q[i * hd..][..hd], &k[at..][..hd]), |at, w, out| {
                vecmath::axpy_f16(isa, w, &v[at..][..hd], out);
            });
        });
    } else {
        let (k, v): (&[f32], &[f32]) = (bytemuck::cast_slice(kb), bytemuck::cast_slice(vb));
        pool.for_chunks(out, hd, |i, out| {
            head(&p, isa, rows, i, out, |at| vecmath::dot_f32(isa, &q[i * hd..][..hd], &k[at..][..hd]), |at, w, out| {
                vecmath::axpy_f32(isa, w, &v[at..][..hd], out);
            });
        });
    }
}

fn head(
    p: &Params,
    isa: Isa,
    [rows, ends]: [&[u32]; 2],
    i: usize,
    out: &mut [f32],
    dot: impl Fn(usize) -> f32,
    add: impl Fn(usize, f32, &mut [f32]),
) {
    let (nh, nkv, hd, cap) = (p.nh as usize, p.nkv as usize, p.hd as usize, p.cap as usize);
    let (t, h) = (i / nh, i % nh);
    let (seq, pos) = (rows[2 * t] as usize, rows[2 * t + 1] as usize);
    let held = if p.window > 0 { cap.min(p.window as usize) } else { cap };
    let begin = (pos + 1).saturating_sub(held);
    let end = if p.mutual > 0 { (pos + 1).max(ends[t] as usize).min(begin + cap) } else { pos + 1 };
    let cell = |j: usize| ((seq * cap + j % cap) * nkv + h / (nh / nkv)) * hd;
    let mut scores: Vec<f32> = (begin..end).map(|j| dot(cell(j)) * p.scale).collect();
    if p.softcap > 0.0 {
        scores.iter_mut().for_each(|s| *s = p.softcap * (*s / p.softcap).tanh());
    }
    let total = vecmath::softmax_sum(isa, 1.0, &mut scores);
    out.fill(0.0);
    for (j, s) in (begin..end).zip(&scores) {
        add(cell(j), s / total, out);
    }
}
