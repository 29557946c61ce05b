//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [x, w, y] = values else { return };
    let (channels, taps) = (p.c as usize, p.k as usize);
    for t in 0..p.t as usize {
        for c in 0..channels {
            y[t * channels + c] = (0..taps)
                .filter(|i| t + i + 1 >= taps)
                .map(|i| w[c * taps + i] * x[(t + i + 1 - taps) * channels + c])
                .sum();
        }
    }
}
