//! The definition by sorting, in f64.
use super::{BAD_LOGITS, Params, uniform};

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [logits, settings, counts, token] = values else { return };
    let v = p.v as usize;
    for b in 0..p.b as usize {
        let s: Vec<u32> = settings[8 * b..8 * b + 8].iter().map(|&w| w as u32).collect();
        let counts = &mut counts[b * v..(b + 1) * v];
        let chosen = one(&logits[b * v..(b + 1) * v], &s, counts);
        token[b] = chosen.map_or(f64::from(BAD_LOGITS), |i| i as f64);
        if let Some(i) = chosen {
            counts[i] += 1.0;
        }
    }
}

fn one(logits: &[f64], s: &[u32], counts: &[f64]) -> Option<usize> {
    let [temperature, top_p, min_p, penalty] = [s[0], s[2], s[3], s[4]].map(|w| f64::from(f32::from_bits(w)));
    let mut l: Vec<(usize, f64)> = logits
        .iter()
        .zip(counts)
        .map(|(&l, &c)| match (c > 0.0, l > 0.0) {
            (false, _) => l,
            (true, true) => l / penalty,
            (true, false) => l * penalty,
        })
        .enumerate()
        .collect();
    if l.iter().any(|(_, l)| l.is_nan()) {
        return None;
    }
    l.sort_by(|a, b| b.1.total_cmp(&a.1));
    let top = l[0];
    if top.1 == f64::NEG_INFINITY {
        return None;
    }
    if temperature <= 0.0 {
        return Some(top.0);
    }
    let mut p: Vec<(usize, f64)> = l.iter().map(|&(i, l)| (i, ((l - top.1) / temperature).exp())).collect();
    if s[1] > 0 && (s[1] as usize) < p.len() {
        let border = p[s[1] as usize - 1].1;
        p.retain(|x| x.1 >= border);
    }
    let mass: f64 = p.iter().map(|x| x.1).sum();
    let mut sum = 0.0;
    let border = p.iter().find(|x| {
        sum += x.1;
        sum >= top_p * mass
    });
    if let (true, Some(&(_, border))) = (top_p < 1.0, border) {
        p.retain(|x| x.1 >= border);
    }
    p.retain(|x| x.1 >= min_p);
    p.sort_by_key(|x| x.0);
    let goal = f64::from(uniform(s[5], s[6], s[7])) * p.iter().map(|x| x.1).sum::<f64>();
    let mut at = 0.0;
    p.iter().find(|x| {
        at += x.1;
        at > goal
    }).or(p.last()).map(|x| x.0)
}
