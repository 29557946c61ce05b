//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [q, k, v, rows, rope, kc, vc] = values else { return };
    let (hd, nh, nkv, cap) = (p.hd as usize, p.nh as usize, p.nkv as usize, p.cap as usize);
    for t in 0..p.t as usize {
        let (seq, pos) = (rows[2 * t] as usize, rows[2 * t + 1] as usize);
        if (pos + 1) * 2 * p.pairs as usize > rope.len() {
            continue;
        }
        let angles = &rope[pos * p.pairs as usize * 2..];
        for head in q[t * nh * hd..(t + 1) * nh * hd].chunks_mut(hd) {
            rotate(p, head, angles);
        }
        let cell = (seq * cap + pos % cap) * nkv * hd;
        let keys = &mut kc[cell..cell + nkv * hd];
        keys.copy_from_slice(&k[t * nkv * hd..(t + 1) * nkv * hd]);
        for head in keys.chunks_mut(hd) {
            rotate(p, head, angles);
        }
        vc[cell..cell + nkv * hd].copy_from_slice(&v[t * nkv * hd..(t + 1) * nkv * hd]);
    }
}

fn rotate(p: &Params, head: &mut [f64], angles: &[f64]) {
    let pairs = p.pairs as usize;
    for i in 0..pairs {
        let (a, b) = if p.pairing == 0 { (i, i + pairs) } else { (2 * i, 2 * i + 1) };
        let (c, s) = (angles[2 * i], angles[2 * i + 1]);
        (head[a], head[b]) = (head[a] * c - head[b] * s, head[a] * s + head[b] * c);
    }
}
