//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [x, y] = values else { return };
    let (ldx, n, first) = (p.ldx as usize, p.n as usize, p.first as usize);
    for r in 0..p.rows as usize {
        for j in 0..n {
            y[r * n + j] = x[r * ldx + first + j];
        }
    }
}
