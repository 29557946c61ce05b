//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [gate, up, y] = values else { return };
    for ((y, g), u) in y.iter_mut().zip(gate.iter()).zip(up.iter()) {
        *y = crate::act::reference::of(p.act, *g) * u;
    }
}
