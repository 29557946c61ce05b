//! The formula, naive: softmax over all, sort, renormalise.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [logits, scale, ids, w] = values else { return };
    let (e, k) = (p.e as usize, p.k as usize);
    for t in 0..p.t as usize {
        let row = &logits[t * e..][..e];
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = row.iter().map(|l| (l - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut order: Vec<usize> = (0..e).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        let chosen: f64 = order[..k].iter().map(|&i| weights[i] / total).sum();
        for (j, &i) in order[..k].iter().enumerate() {
            ids[t * k + j] = i as f64;
            w[t * k + j] = weights[i] / total / chosen * scale[i];
        }
    }
}
