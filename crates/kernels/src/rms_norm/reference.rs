//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [x, w, y] = values else { return };
    let d = p.d as usize;
    for (x, y) in x.chunks(d).zip(y.chunks_mut(d)) {
        let mean = x.iter().map(|v| v * v).sum::<f64>() / d as f64;
        let scale = 1.0 / (mean + f64::from(p.eps)).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(w.iter()) {
            *y = x * scale * (w + f64::from(p.offset));
        }
    }
}
