//! The formulas, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [gate, up, y] = values else { return };
    for ((y, g), u) in y.iter_mut().zip(gate.iter()).zip(up.iter()) {
        let a = match p.act {
            0 => g / (1.0 + (-g).exp()),
            2 => 1.0 / (1.0 + (-g).exp()),
            _ => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3));
                0.5 * g * (1.0 + inner.tanh())
            }
        };
        *y = a * u;
    }
}
