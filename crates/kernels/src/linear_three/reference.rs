//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [x, weights @ .., q, key, v] = values else { return };
    let k = p.k as usize;
    for ((w, y), n) in weights.iter().zip([q, key, v]).zip(p.n) {
        for (t, y) in y.chunks_mut(n as usize).enumerate() {
            let x = &x[t * k..(t + 1) * k];
            for (y, row) in y.iter_mut().zip(w.chunks(k)) {
                *y = x.iter().zip(row).map(|(a, b)| a * b).sum();
            }
        }
    }
}
