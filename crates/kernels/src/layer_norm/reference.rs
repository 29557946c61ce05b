//! The formula, naive.
use super::Params;

pub(crate) fn rows(p: &Params, x: &[f64], w: &[f64], b: &[f64], y: &mut [f64]) {
    let d = p.d as usize;
    for (x, y) in x.chunks(d).zip(y.chunks_mut(d)) {
        let mean = x.iter().sum::<f64>() / d as f64;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / d as f64;
        for i in 0..d {
            y[i] = (x[i] - mean) / (var + f64::from(p.eps)).sqrt() * w[i];
            if p.bias == 1 {
                y[i] += b[i];
            }
        }
    }
}
