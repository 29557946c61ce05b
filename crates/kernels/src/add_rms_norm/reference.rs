//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [h, x, w, y] = values else { return };
    let d = p.d as usize;
    for ((h, x), y) in h.chunks_mut(d).zip(x.chunks(d)).zip(y.chunks_mut(d)) {
        for (h, x) in h.iter_mut().zip(x) {
            *h += x;
        }
        let mean = h.iter().map(|v| v * v).sum::<f64>() / d as f64;
        for ((y, h), w) in y.iter_mut().zip(h.iter()).zip(w.iter()) {
            *y = h / (mean + f64::from(p.eps)).sqrt() * (w + f64::from(p.offset));
        }
    }
}
