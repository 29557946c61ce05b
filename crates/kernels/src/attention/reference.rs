//! The formula, naive: two-pass softmax.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [q, kc, vc, rows, ends, out] = values else { return };
    let (nh, nkv, hd, cap) = (p.nh as usize, p.nkv as usize, p.hd as usize, p.cap as usize);
    for t in 0..p.t as usize {
        let (seq, pos) = (rows[2 * t] as usize, rows[2 * t + 1] as usize);
        let mut end = pos + 1;
        let held = if p.window > 0 { cap.min(p.window as usize) } else { cap };
        let begin = end.saturating_sub(held);
        if p.mutual > 0 {
            end = end.max(ends[t] as usize).min(begin + cap);
        }
        for h in 0..nh {
            let at = (t * nh + h) * hd;
            let cell = |j: usize| ((seq * cap + j % cap) * nkv + h / (nh / nkv)) * hd;
            let mut scores: Vec<f64> = (begin..end)
                .map(|j| {
                    let k = &kc[cell(j)..cell(j) + hd];
                    let dot: f64 = q[at..at + hd].iter().zip(k).map(|(a, b)| a * b).sum();
                    let s = dot * f64::from(p.scale);
                    let cap = f64::from(p.softcap);
                    if cap > 0.0 { cap * (s / cap).tanh() } else { s }
                })
                .collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            scores.iter_mut().for_each(|s| *s = (*s - top).exp());
            let total: f64 = scores.iter().sum();
            for d in 0..hd {
                out[at + d] = (begin..end).zip(&scores).map(|(j, s)| s * vc[cell(j) + d]).sum::<f64>() / total;
            }
        }
    }
}
