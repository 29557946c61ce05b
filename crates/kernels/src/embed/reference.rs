//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [ids, w, out] = values else { return };
    let k = p.k as usize;
    for t in 0..p.t as usize {
        let row = (ids[t] as i64) - i64::from(p.row0);
        if row < 0 || row >= i64::from(p.rows) {
            continue;
        }
        for j in 0..k {
            out[t * k + j] = w[row as usize * k + j] * f64::from(p.scale);
        }
    }
}
