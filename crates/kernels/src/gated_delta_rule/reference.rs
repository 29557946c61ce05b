//! The rule as it is written down: decay, correct, read.
use super::{EPS, Params};

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [qkv, b, a, decay, rows, state, y] = values else { return };
    let (nk, nv, hk, hv) = (p.nk as usize, p.nv as usize, p.hk as usize, p.hv as usize);
    let width = p.width() as usize;
    for t in 0..p.t as usize {
        let (seq, pos) = (rows[2 * t] as usize, rows[2 * t + 1] as usize);
        if seq >= p.nseq as usize {
            continue;
        }
        let row = &qkv[t * width..(t + 1) * width];
        for h in 0..nv {
            let head = p.key_head(h);
            let unit = |x: &[f64]| {
                let norm = (x.iter().map(|x| x * x).sum::<f64>() + f64::from(EPS)).sqrt();
                x.iter().map(|x| x / norm).collect::<Vec<f64>>()
            };
            let q = unit(&row[head * hk..(head + 1) * hk]);
            let k = unit(&row[(nk + head) * hk..(nk + head + 1) * hk]);
            let v = &row[2 * nk * hk + h * hv..][..hv];
            let beta = 1.0 / (1.0 + (-b[t * nv + h]).exp());
            let alpha = (decay[h] * (a[t * nv + h] + decay[nv + h]).exp().ln_1p()).exp();
            let s = &mut state[(seq * nv + h) * hk * hv..][..hk * hv];
            s.iter_mut().for_each(|s| *s *= if pos == 0 { 0.0 } else { alpha });
            for c in 0..hv {
                let held: f64 = (0..hk).map(|i| s[i * hv + c] * k[i]).sum();
                let delta = beta * (v[c] - held);
                (0..hk).for_each(|i| s[i * hv + c] += k[i] * delta);
                y[(t * nv + h) * hv + c] = (0..hk).map(|i| s[i * hv + c] * q[i]).sum::<f64>() * f64::from(p.scale);
            }
        }
    }
}
