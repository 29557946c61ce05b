//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [x, gate, w, y] = values else { return };
    let d = p.d as usize;
    for (row, y) in y.chunks_mut(d).enumerate() {
        let (x, gate) = (&x[row * d..(row + 1) * d], &gate[row * d..(row + 1) * d]);
        let mean = x.iter().map(|x| x * x).sum::<f64>() / d as f64;
        let scale = 1.0 / (mean + f64::from(p.eps)).sqrt();
        for i in 0..d {
            y[i] = x[i] * scale * w[i] * gate[i] / (1.0 + (-gate[i]).exp());
        }
    }
}
