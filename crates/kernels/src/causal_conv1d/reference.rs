//! The formula, naive: a list of inputs per sequence, the state's first.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [x, w, rows, state, y] = values else { return };
    let (channels, taps) = (p.c as usize, p.k as usize);
    for seq in 0..p.nseq as usize {
        for c in 0..channels {
            // Inputs by position, as far as they are known.
            let mut inputs = std::collections::BTreeMap::new();
            for t in 0..p.t as usize {
                if rows[2 * t] as usize != seq {
                    continue;
                }
                let pos = rows[2 * t + 1] as usize;
                let slot = |pos: usize| (seq * taps + pos % taps) * channels + c;
                if inputs.is_empty() {
                    for old in pos.saturating_sub(taps - 1)..pos {
                        inputs.insert(old, state[slot(old)]);
                    }
                }
                inputs.insert(pos, x[t * channels + c]);
                let sum: f64 = (0..taps)
                    .filter(|j| pos + j + 1 >= taps)
                    .map(|j| w[j * channels + c] * inputs[&(pos + j + 1 - taps)])
                    .sum();
                y[t * channels + c] = sum / (1.0 + (-sum).exp());
                state[slot(pos)] = inputs[&pos];
            }
        }
    }
}
