//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [q, rows, rope] = values else { return };
    let (nh, hd, pairs) = (p.nh as usize, p.hd as usize, p.pairs as usize);
    for t in 0..p.t as usize {
        let pos = rows[2 * t + 1] as usize;
        if pos >= p.positions as usize {
            continue;
        }
        for head in q[t * nh * hd..][..nh * hd].chunks_mut(hd) {
            for i in 0..pairs {
                let (a, b) = if p.pairing == 0 { (i, i + pairs) } else { (2 * i, 2 * i + 1) };
                let (c, s) = (rope[(pos * pairs + i) * 2], rope[(pos * pairs + i) * 2 + 1]);
                (head[a], head[b]) = (head[a] * c - head[b] * s, head[a] * s + head[b] * c);
            }
        }
    }
}
