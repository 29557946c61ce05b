//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [q, kc, vc, rows, out] = values else { return };
    let (nh, nkv, hd, cap) = (p.nh as usize, p.nkv as usize, p.hd as usize, p.cap as usize);
    let parts = p.parts as usize;
    for t in 0..p.t as usize {
        let (seq, pos) = (rows[2 * t] as usize, rows[2 * t + 1] as usize);
        let held = if p.window > 0 { cap.min(p.window as usize) } else { cap };
        let all = held.min(pos + 1);
        let share = all.div_ceil(parts).next_multiple_of(128);
        for h in 0..nh {
            let at = (t * nh + h) * hd;
            let cell = |j: usize| ((seq * cap + j % cap) * nkv + h / (nh / nkv)) * hd;
            for part in 0..parts {
                let first = pos + 1 - all;
                let keys = first + all.min(part * share)..first + all.min((part + 1) * share);
                let score = |j: usize| {
                    let k = &kc[cell(j)..cell(j) + hd];
                    let dot: f64 = q[at..at + hd].iter().zip(k).map(|(a, b)| a * b).sum();
                    let (s, cap) = (dot * f64::from(p.scale), f64::from(p.softcap));
                    if cap > 0.0 { cap * (s / cap).tanh() } else { s }
                };
                let scores: Vec<f64> = keys.clone().map(score).collect();
                let top = scores.iter().copied().fold(-3.0e38, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
                let to = &mut out[((t * nh + h) * parts + part) * (hd + 4)..][..hd + 4];
                for (d, to) in to[..hd].iter_mut().enumerate() {
                    *to = keys.clone().zip(&weights).map(|(j, w)| w * vc[cell(j) + d]).sum();
                }
                to[hd..].copy_from_slice(&[top, weights.iter().sum(), 0.0, 0.0]);
            }
        }
    }
}
