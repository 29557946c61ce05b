//! The formula, naive: two-pass softmax.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [q, k, v, spans, out] = values else { return };
    let (nh, nkv, hd) = (p.nh as usize, p.nkv as usize, p.hd as usize);
    let at = |i: usize, row: usize, head: usize| row * p.stride[i] as usize + p.first[i] as usize + head * hd;
    for t in 0..p.t as usize {
        let (begin, end) = (spans[2 * t] as usize, (spans[2 * t + 1] as usize).min(p.s as usize));
        for h in 0..nh {
            let query = &q[at(0, t, h)..][..hd];
            let kv = h / (nh / nkv);
            let scores: Vec<f64> = (begin..end)
                .map(|j| query.iter().zip(&k[at(1, j, kv)..][..hd]).map(|(a, b)| a * b).sum::<f64>() * f64::from(p.scale))
                .collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..hd {
                let sum: f64 = (begin..end).zip(&weights).map(|(j, w)| w * v[at(2, j, kv) + d]).sum();
                out[(t * nh + h) * hd + d] = if weights.is_empty() { 0.0 } else { sum / total };
            }
        }
    }
}
