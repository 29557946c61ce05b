//! Token by token: the largest logit that comes after the one chosen before.
use super::Params;
use crate::kernel::CpuCall;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (e, k) = (p.e as usize, p.k as usize);
    let (logits, scale) = (c.read::<f32>(0), c.read::<f32>(1));
    let [ids, w] = &mut c.writes[..] else { return };
    let ids: &mut [u32] = bytemuck::cast_slice_mut(ids);
    let w: &mut [f32] = bytemuck::cast_slice_mut(w);
    let tokens = logits.chunks_exact(e).zip(ids.chunks_exact_mut(k)).zip(w.chunks_exact_mut(k));
    for ((row, ids), w) in tokens {
        let mut last = (f32::INFINITY, None);
        let (mut first, mut sum) = (0.0, 0.0);
        for j in 0..k {
            let mut best = (f32::NEG_INFINITY, None);
            for (i, &l) in row.iter().enumerate() {
                let after = l < last.0 || (l == last.0 && Some(i) > last.1);
                if after && (l > best.0 || best.1.is_none()) {
                    best = (l, Some(i));
                }
            }
            // Nothing compares with NaN: then the weight says so.
            let (l, i) = (row[best.1.unwrap_or(0)], best.1.unwrap_or(0));
            if j == 0 {
                first = l;
            }
            (ids[j], w[j]) = (i as u32, (l - first).exp());
            sum += w[j];
            last = (l, Some(i));
        }
        for (w, &i) in w.iter_mut().zip(ids.iter()) {
            *w = *w / sum * scale[i as usize];
        }
    }
}
