//! When a token was said, from where its cross-attention looks.
//!
//! For the heads that were found to follow the sound: the attention of each token over the clip's states, normalised per state over
//! the tokens (mean 0, deviation 1), smoothed along time by a median of `width` states, averaged over the heads. The path through
//! the matrix `[tokens, states]` that collects most of it, one state at a time and never back, says at which state each token begins.
//! Dynamic time warping, Sakoe & Chiba 1978; `find_alignment` in OpenAI's `whisper/timing.py`.

use super::SpeechState;
use crate::{Error, Result};

/// Where tokens begin.
#[derive(Clone, Debug, PartialEq)]
pub struct Alignment {
    /// For each row the first state of the token after it, and the end: one more than rows.
    pub starts: Vec<usize>,
}

impl SpeechState {
    /// Aligns the tokens of `clip` from `first` on with its first `states` states; what was decoded so far is overwritten: `tokens` are all that were decoded, from the
    /// start token on to the end token. A token's row says where the one after it is said, so the end token has none. `heads` are
    /// pairs of layer and head; `width` of the median is odd.
    ///
    /// # Errors
    /// `InvalidInput` if there are no heads, tokens or states, or a head that the model does not have; as [`SpeechState::step`].
    pub async fn align(
        &mut self,
        clip: usize,
        tokens: &[u32],
        first: usize,
        states: usize,
        heads: &[(usize, usize)],
        width: usize,
    ) -> Result<Alignment> {
        let states = states.min(self.states());
        let spec = self.spec();
        let (hidden, all_heads) = (spec.hidden, spec.cross_heads.max(1));
        let hd = hidden / all_heads;
        if heads.is_empty() || first + 1 >= tokens.len() || states == 0 || hd == 0 {
            return Err(Error::invalid(
                "nothing to align: no heads, no tokens or no sound",
            ));
        }
        if let Some((layer, head)) = heads.iter().find(|(_, h)| *h >= all_heads) {
            return Err(Error::invalid(format!(
                "head {head} of layer {layer}; there are {all_heads}"
            )));
        }
        let mut layers: Vec<usize> = heads.iter().map(|(l, _)| *l).collect();
        layers.sort_unstable();
        layers.dedup();
        let looks = self.look(clip, tokens, &layers).await?;
        let mut sum = vec![0.0f32; tokens.len() * states];
        for &(layer, head) in heads {
            let at = layers.binary_search(&layer).unwrap_or(0);
            let Some((q, k)) = looks.get(at) else {
                continue;
            };
            let weights = attention(q, k, (hidden, head * hd, hd), states);
            let smooth = normalize(weights, states, width);
            sum.iter_mut().zip(&smooth).for_each(|(s, w)| *s += w);
        }
        let rows = &sum[first * states..(tokens.len() - 1) * states];
        Ok(Alignment {
            starts: path(rows, states),
        })
    }
}

/// The attention `[T, S]` of one head.
fn attention(
    q: &[f32],
    k: &[f32],
    (hidden, at, hd): (usize, usize, usize),
    states: usize,
) -> Vec<f32> {
    let scale = (hd as f32).powf(-0.5);
    let mut out = Vec::with_capacity(q.len() / hidden.max(1) * states);
    for q in q.chunks_exact(hidden) {
        let q = &q[at..at + hd];
        let start = out.len();
        out.extend(k.chunks_exact(hidden).take(states).map(|k| {
            let dot: f32 = q.iter().zip(&k[at..at + hd]).map(|(a, b)| a * b).sum();
            dot * scale
        }));
        let row = &mut out[start..];
        let top = row.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
        row.iter_mut().for_each(|v| *v = (*v - top).exp());
        let total: f32 = row.iter().sum();
        row.iter_mut().for_each(|v| *v /= total);
    }
    out
}

/// Each column to mean 0 and deviation 1 over the tokens, then each row smoothed by a median.
fn normalize(mut weights: Vec<f32>, states: usize, width: usize) -> Vec<f32> {
    let tokens = weights.len() / states.max(1);
    for s in 0..states {
        let column = || (0..tokens).map(|t| weights[t * states + s]);
        let mean = column().sum::<f32>() / tokens as f32;
        let deviation = (column().map(|v| (v - mean).powi(2)).sum::<f32>() / tokens as f32).sqrt();
        for t in 0..tokens {
            let v = &mut weights[t * states + s];
            *v = match deviation > 0.0 {
                true => (*v - mean) / deviation,
                false => 0.0,
            };
        }
    }
    let half = width / 2;
    if half == 0 || states <= half {
        return weights;
    }
    let mut out = Vec::with_capacity(weights.len());
    let mut window = Vec::with_capacity(width);
    for row in weights.chunks_exact(states) {
        for s in 0..states {
            window.clear();
            // Beyond the ends the row is mirrored, the end itself not repeated.
            window.extend((0..2 * half + 1).map(|i| {
                let at = (s + i).abs_diff(half);
                let at = if at >= states {
                    2 * (states - 1) - at
                } else {
                    at
                };
                row[at]
            }));
            let (_, middle, _) = window.select_nth_unstable_by(half, f32::total_cmp);
            out.push(*middle);
        }
    }
    out
}

/// The first state of each row on the best path, and where the last row ends.
fn path(rows: &[f32], states: usize) -> Vec<usize> {
    let tokens = rows.len() / states;
    // Costs of the cell to the left of and above each; steps: 0 both, 1 the next token, 2 the next state.
    let mut before = vec![f32::INFINITY; states + 1];
    before[0] = 0.0;
    let mut steps = vec![0u8; tokens * states];
    for (row, steps) in rows
        .chunks_exact(states)
        .zip(steps.chunks_exact_mut(states))
    {
        let mut now = vec![f32::INFINITY; states + 1];
        for s in 0..states {
            let (both, token, state) = (before[s], before[s + 1], now[s]);
            let (cost, step) = if both < token && both < state {
                (both, 0)
            } else if token < both && token < state {
                (token, 1)
            } else {
                (state, 2)
            };
            now[s + 1] = cost - row[s];
            steps[s] = step;
        }
        before = now;
    }
    let mut starts = vec![0; tokens + 1];
    let (mut t, mut s) = (tokens, states);
    if let Some(end) = starts.last_mut() {
        *end = states;
    }
    while t > 0 && s > 0 {
        starts[t - 1] = s - 1;
        match steps[(t - 1) * states + s - 1] {
            0 => (t, s) = (t - 1, s - 1),
            1 => t -= 1,
            _ => s -= 1,
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_follows_the_light() {
        // Three tokens over states 0-1, 2-4, 5.
        let mut rows = vec![-0.5; 18];
        for (t, range) in [0..2, 2..5, 5..6].into_iter().enumerate() {
            rows[t * 6..][range].fill(1.0);
        }
        assert_eq!(path(&rows, 6), [0, 2, 5, 6]);
        // One token has everything.
        assert_eq!(path(&[0.5; 4], 4), [0, 4]);
        // More tokens than states still go forward.
        let starts = path(&[0.1; 10], 2);
        assert_eq!(starts.len(), 6);
        assert!(starts.windows(2).all(|w| w[0] <= w[1]), "{starts:?}");
    }

    #[test]
    fn a_median_takes_single_spikes_away() {
        let mut weights = vec![0.0; 2 * 9];
        weights[4] = 1.0;
        let out = normalize(weights, 9, 7);
        assert!(out.iter().all(|v| *v == 0.0), "{out:?}");
        // A flat column has no deviation and stays a number.
        assert!(normalize(vec![0.25; 8], 4, 3).iter().all(|v| *v == 0.0));
    }
}
