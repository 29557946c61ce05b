//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [h, x] = values else { return };
    for (h, x) in h.iter_mut().zip(x.iter()) {
        *h = (*h + x) * f64::from(p.scale);
    }
}
