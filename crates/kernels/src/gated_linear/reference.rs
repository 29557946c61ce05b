//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [x, w, up, y] = values else { return };
    let (n, k) = (p.n as usize, p.k as usize);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for (t, y) in y.chunks_mut(n).enumerate() {
        let x = &x[t * k..(t + 1) * k];
        for (i, y) in y.iter_mut().enumerate() {
            let row = i * k..(i + 1) * k;
            *y = crate::act::reference::of(p.act, dot(x, &w[row.clone()])) * dot(x, &up[row]);
        }
    }
}
