//! The largest logit in one pass; borders of the restricted draw by selection instead of radix passes.
use super::{BAD_LOGITS, Params, uniform};
use crate::kernel::CpuCall;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (logits, settings) = (c.read::<f32>(0), c.read::<u32>(1));
    let v = p.v as usize;
    let [counts, token] = &mut c.writes[..] else { return };
    let counts: &mut [u32] = bytemuck::cast_slice_mut(counts);
    let token: &mut [u32] = bytemuck::cast_slice_mut(token);
    for (b, (counts, token)) in counts.chunks_mut(v).zip(token.iter_mut()).enumerate() {
        *token = one(&logits[b * v..(b + 1) * v], &settings[8 * b..8 * b + 8], counts);
        if let Some(count) = counts.get_mut(*token as usize) {
            *count += 1;
        }
    }
}

fn one(logits: &[f32], settings: &[u32], counts: &[u32]) -> u32 {
    let temperature = f32::from_bits(settings[0]);
    let penalty = f32::from_bits(settings[4]);
    let adjusted: Vec<f32>;
    let logits = if penalty == 1.0 {
        logits
    } else {
        adjusted = logits
            .iter()
            .zip(counts)
            .map(|(&l, &c)| match (c > 0, l > 0.0) {
                (false, _) => l,
                (true, true) => l / penalty,
                (true, false) => l * penalty,
            })
            .collect();
        &adjusted
    };
    let Some(best) = argmax(logits) else { return BAD_LOGITS };
    if temperature <= 0.0 {
        return best as u32;
    }
    let inv_t = 1.0 / temperature;
    let scaled: Vec<f32> = logits.iter().map(|l| l * inv_t).collect();
    draw(&scaled, best, settings) as u32
}

/// The largest logit, lowest index first; `None` if one is NaN or none is above −∞.
fn argmax(logits: &[f32]) -> Option<usize> {
    // Blocks, so that the pass over the vocabulary is a plain vectorised maximum.
    let mut best = f32::NEG_INFINITY;
    let mut at = None;
    let mut nan = false;
    for (block, chunk) in logits.chunks(256).enumerate() {
        let mut top = [f32::NEG_INFINITY; 16];
        let mut bad = [false; 16];
        for part in chunk.chunks(16) {
            for ((t, b), &l) in top.iter_mut().zip(&mut bad).zip(part) {
                *t = if l > *t { l } else { *t };
                *b |= l.is_nan();
            }
        }
        nan |= bad.contains(&true);
        let block_top = top.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if block_top > best {
            best = block_top;
            at = chunk.iter().position(|&l| l == best).map(|i| block * 256 + i);
        }
    }
    if nan { None } else { at }
}

fn draw(logits: &[f32], best: usize, settings: &[u32]) -> usize {
    let (top_k, top_p) = (settings[1] as usize, f32::from_bits(settings[2]));
    let min_p = f32::from_bits(settings[3]);
    let top = logits[best];
    let mut border = f32::NEG_INFINITY;
    if top_k > 0 && top_k < logits.len() {
        let mut copy = logits.to_vec();
        let (_, kth, _) = copy.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a));
        border = *kth;
    }
    if top_p < 1.0 {
        // Likeliest first, until the mass is covered; what is below 2^-30 of the top cannot matter.
        let mut kept: Vec<f32> =
            logits.iter().copied().filter(|&l| l >= border && l > top - 21.0).collect();
        kept.sort_unstable_by(|a, b| b.total_cmp(a));
        let mass: f64 =
            logits.iter().filter(|&&l| l >= border).map(|l| f64::from(l - top).exp()).sum();
        let mut sum = 0.0;
        for l in kept {
            sum += f64::from(l - top).exp();
            if sum >= f64::from(top_p) * mass {
                border = border.max(l);
                break;
            }
        }
    }
    if min_p > 0.0 {
        border = border.max(top + min_p.ln());
    }
    let weight = |l: f32| if l >= border { f64::from(l - top).exp() } else { 0.0 };
    let all: f64 = logits.iter().map(|&l| weight(l)).sum();
    let goal = f64::from(uniform(settings[5], settings[6], settings[7])) * all;
    let mut at = 0.0;
    for (i, &l) in logits.iter().enumerate() {
        at += weight(l);
        if at > goal {
            return i;
        }
    }
    best
}
