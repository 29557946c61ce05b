//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [x, w, y] = values else { return };
    let (n, k, ldy) = (p.n as usize, p.k as usize, p.ldy as usize);
    for t in 0..p.t as usize {
        for i in 0..n {
            let row = &w[i * k..(i + 1) * k];
            y[t * ldy + p.col0 as usize + i] =
                x[t * k..(t + 1) * k].iter().zip(row).map(|(a, b)| a * b).sum();
        }
    }
}
