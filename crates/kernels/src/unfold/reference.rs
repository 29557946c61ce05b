//! The formula, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [x, y] = values else { return };
    let size = |list: [u32; 2]| (list[0] as usize, list[1] as usize);
    let ((h, w), (oh, ow), (kh, kw)) = (size(p.size), size(p.out), size(p.kernel));
    let ((sh, sw), (ph, pw)) = (size(p.stride), size(p.pad));
    let (c, ldy) = (p.c as usize, p.ldy as usize);
    y.fill(0.0);
    for b in 0..p.b as usize {
        for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
            for ci in 0..c {
                for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                    let (iy, ix) = ((oy * sh + ky).wrapping_sub(ph), (ox * sw + kx).wrapping_sub(pw));
                    if iy < h && ix < w {
                        let to = ((b * oh + oy) * ow + ox) * ldy + (ci * kh + ky) * kw + kx;
                        y[to] = x[((b * h + iy) * w + ix) * c + ci];
                    }
                }
            }
        }
    }
}
