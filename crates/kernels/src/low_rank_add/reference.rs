//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [h, b, y] = values else { return };
    let (rank, n) = (p.r as usize, p.n as usize);
    for (i, y) in y.iter_mut().enumerate() {
        let (t, col) = (i / n, i % n);
        *y += f64::from(p.scale) * (0..rank).map(|r| h[t * rank + r] * b[r * n + col]).sum::<f64>();
    }
}
