//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [parts, out] = values else { return };
    let (hd, each) = (p.hd as usize, p.parts as usize * (p.hd as usize + 4));
    for (head, out) in parts.chunks(each).zip(out.chunks_mut(hd)) {
        let parts = || head.chunks(hd + 4);
        let top = parts().map(|part| part[hd]).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = parts().map(|part| (part[hd] - top).exp() * part[hd + 1]).sum();
        for (d, out) in out.iter_mut().enumerate() {
            *out = parts().map(|part| (part[hd] - top).exp() * part[d]).sum::<f64>() / total;
        }
    }
}
