//! The scale searches of the k-quants.
//!
//! Rounding to the widest range is not the best: a slightly smaller or larger step often lets more values land close to a
//! level. Both searches try a few steps around the obvious one, fit scale (and offset) to the integers each gives by
//! weighted least squares, and keep the fit of least weighted squared error. A value `x` weighs `rms + |x|`: large weights
//! move a dot product more.

/// The weights of the values of a sub-block.
fn weights<const N: usize>(x: &[f32; N]) -> [f32; N] {
    let rms = (x.iter().map(|v| v * v).sum::<f32>() / N as f32).sqrt();
    x.map(|v| rms + v.abs())
}

/// The scale `s` for `x ≈ s·q` with `q` in `-half..half`, signed so that the value of largest magnitude maps to `-half`.
pub(super) fn symmetric<const N: usize>(x: &[f32; N], half: f32) -> f32 {
    let max = super::signed_max(x);
    if max == 0.0 {
        return 0.0;
    }
    let w = weights(x);
    let (mut best, mut best_scale) = (0.0, max / -half);
    for step in -9..=9 {
        let inv = -(half + 0.1 * step as f32) / max;
        let (mut xq, mut qq) = (0.0, 0.0);
        for (&x, &w) in x.iter().zip(&w) {
            let q = (x * inv).round_ties_even().clamp(-half, half - 1.0);
            xq += w * x * q;
            qq += w * q * q;
        }
        // With s = xq/qq the error is Σwx² − xq²/qq: least where the last term is largest.
        if qq > 0.0 && xq * xq > best * qq {
            (best, best_scale) = (xq * xq / qq, xq / qq);
        }
    }
    best_scale
}

/// The scale `s ≥ 0` and offset `m ≥ 0` for `x ≈ s·q − m` with `q` in `0..=top`.
pub(super) fn affine<const N: usize>(x: &[f32; N], top: f32) -> (f32, f32) {
    let (lo, hi) = super::min_max(x);
    // The offset only ever lowers: a sub-block of positive values starts at 0.
    let lo = lo.min(0.0);
    if hi <= lo {
        return (0.0, -lo);
    }
    let w = weights(x);
    let (mut best, mut found) = (f32::INFINITY, ((hi - lo) / top, -lo));
    for step in -10..=10 {
        let inv = (top + 0.1 * step as f32) / (hi - lo);
        let (mut sw, mut sx, mut sq, mut sqq, mut sxq) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (&x, &w) in x.iter().zip(&w) {
            let q = level(x, lo, inv, top);
            sw += w;
            sx += w * x;
            sq += w * q;
            sqq += w * q * q;
            sxq += w * x * q;
        }
        let det = sw * sqq - sq * sq;
        let (mut s, mut m) = if det > 0.0 {
            ((sw * sxq - sx * sq) / det, (sxq * sq - sx * sqq) / det)
        } else {
            (1.0 / inv, -lo)
        };
        if m < 0.0 {
            (s, m) = (if sqq > 0.0 { sxq / sqq } else { 0.0 }, 0.0);
        }
        if s.is_nan() || s < 0.0 {
            continue;
        }
        let error: f32 = x
            .iter()
            .zip(&w)
            .map(|(&x, &w)| {
                let e = s * level(x, lo, inv, top) - m - x;
                w * e * e
            })
            .sum();
        if error < best {
            (best, found) = (error, (s, m));
        }
    }
    found
}

fn level(x: f32, lo: f32, inv: f32, top: f32) -> f32 {
    ((x - lo) * inv).round_ties_even().clamp(0.0, top)
}

/// The integers `0..=top` nearest to `values / step`, none of which is negative.
pub(super) fn levels<const N: usize>(values: &[f32; N], step: f32, top: f32) -> [u8; N] {
    let inv = super::inverse(step);
    values.map(|v| (v * inv).round_ties_even().clamp(0.0, top) as u8)
}

/// The largest of some values that are at least 0.
pub(super) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, &v| m.max(v))
}

/// The 16 sub-blocks of 16 or 8 of 32 of a super-block.
pub(super) fn sub_blocks<const N: usize>(values: &[f32; 256]) -> &[[f32; N]] {
    values.as_chunks::<N>().0
}
