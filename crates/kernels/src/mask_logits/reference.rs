//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [logits, mask] = values else { return };
    let (v, words) = (p.v as usize, (p.v as usize).div_ceil(32));
    for (i, l) in logits.iter_mut().enumerate() {
        let (b, at) = (i / v, i % v);
        let allowed = mask[b * words + at / 32] as u64 >> (at % 32) & 1 == 1;
        if !allowed && !l.is_nan() {
            *l = f64::NEG_INFINITY;
        }
    }
}
