//! The formula, naive: two-pass softmax.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [q, k, v, r, out] = values else { return };
    let (nh, hd) = (p.nh as usize, p.hd as usize);
    let (cap, kscale) = (f64::from(p.cap), f64::from(p.kscale));
    for t in 0..p.t as usize {
        for h in 0..nh {
            let at = |t: usize| (t * nh + h) * hd;
            let dot = |b: &[f64]| q[at(t)..][..hd].iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let seen = (p.p as usize).min(t + 1);
            let scores: Vec<f64> = (0..seen)
                .map(|j| cap * ((kscale * dot(&k[at(t - j)..][..hd]) + dot(&r[at(j)..][..hd])) / cap).tanh())
                .collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..hd {
                out[at(t) + d] = weights.iter().enumerate().map(|(j, w)| w * v[at(t - j) + d]).sum::<f64>() / total;
            }
        }
    }
}
