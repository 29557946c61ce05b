//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [x, w, ids, y] = values else { return };
    let (n, k, share) = (p.n as usize, p.k as usize, p.share as usize);
    for r in 0..p.r as usize {
        for i in 0..n {
            let row = (ids[r] as usize * n + i).wrapping_sub(p.row0 as usize);
            if row < p.rows as usize {
                let x = &x[r / share * k..][..k];
                y[r * n + i] = x.iter().zip(&w[row * k..][..k]).map(|(a, b)| a * b).sum();
            }
        }
    }
}
