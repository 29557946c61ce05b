//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [x, w, y] = values else { return };
    let (k, d) = (p.k as usize, p.d as usize);
    for t in 0..p.t as usize {
        for i in 0..d {
            y[t * d + i] = (0..k).map(|j| w[t * k + j] * x[(t * k + j) * d + i]).sum();
        }
    }
}
