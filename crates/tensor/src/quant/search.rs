//! The scale searches of the k-quants.
//!
//! Rounding to the widest range is not the best: a slightly smaller or larger step often lets more values land close to a
//! level. Both searches try a few steps around the obvious one, fit scale (and offset) to the integers each gives by
//! weighted least squares, and keep the fit of least weighted squared error. A value `x` weighs `rms + |x|`: large weights
//! move a dot product more.

use super::{inverse, min_max, signed_max};

/// The scale `s` for `x ≈ s·q` with `q` in `-half..half`, signed so that the value of largest magnitude maps to `-half`.
pub(super) fn symmetric<const N: usize>(x: &[f32; N], half: f32) -> f32 {
    let inv_max = inverse(signed_max(x));
    if inv_max == 0.0 {
        return 0.0;
    }
    let w = weights(x);
    let wx = product(&w, x);
    let (mut best, mut best_scale) = (0.0, 0.0);
    for step in -9..=9 {
        let inv = -(half + 0.1 * step as f32) * inv_max;
        let q = x.map(|x| nearest(x * inv, -half, half - 1.0));
        let (xq, qq) = (dot(&wx, &q), dot(&product(&w, &q), &q));
        // With s = xq/qq the error is Σwx² − xq²/qq: least where the last term is largest.
        if qq > 0.0 && xq * xq > best * qq {
            (best, best_scale) = (xq * xq / qq, xq / qq);
        }
    }
    best_scale
}

/// The scale `s ≥ 0` and offset `m ≥ 0` for `x ≈ s·q − m` with `q` in `0..=top`.
pub(super) fn affine<const N: usize>(x: &[f32; N], top: f32) -> (f32, f32) {
    let (lo, hi) = min_max(x);
    // The offset only ever lowers: a sub-block of positive values starts at 0.
    let lo = lo.min(0.0);
    let inv_range = inverse(hi - lo);
    if inv_range == 0.0 {
        return (0.0, -lo);
    }
    let w = weights(x);
    let wx = product(&w, x);
    let (sw, sx) = (w.iter().sum::<f32>(), wx.iter().sum::<f32>());
    let (mut best, mut found) = (f64::INFINITY, ((hi - lo) / top, -lo));
    for step in -10..=10 {
        let inv = (top + 0.1 * step as f32) * inv_range;
        let q = x.map(|x| nearest((x - lo) * inv, 0.0, top));
        let wq = product(&w, &q);
        let (sq, sqq, sxq) = (wq.iter().sum::<f32>(), dot(&wq, &q), dot(&wx, &q));
        // The minimum of Σw(s·q − m − x)² over s and m.
        let det = sw * sqq - sq * sq;
        let (mut s, mut m) = ((sw * sxq - sx * sq) / det, (sxq * sq - sx * sqq) / det);
        if m < 0.0 {
            (s, m) = (sxq / sqq, 0.0);
        }
        // All integers equal, or none but 0: nothing to fit.
        if !s.is_finite() || !m.is_finite() || s < 0.0 {
            continue;
        }
        // The same sum multiplied out, less Σwx², which is the same for every step.
        let [s64, m64, sw, sx, sq, sqq, sxq] = [s, m, sw, sx, sq, sqq, sxq].map(f64::from);
        let error = s64 * (s64 * sqq - 2.0 * m64 * sq - 2.0 * sxq) + m64 * (m64 * sw + 2.0 * sx);
        if error < best {
            (best, found) = (error, (s, m));
        }
    }
    found
}

/// The integers `0..=top` nearest to `values / step`, none of which is negative.
pub(super) fn levels<const N: usize>(values: &[f32; N], step: f32, top: f32) -> [u8; N] {
    let inv = inverse(step);
    values.map(|v| nearest(v * inv, 0.0, top) as u8)
}

/// The largest of some values that are at least 0.
pub(super) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, &v| m.max(v))
}

/// The sub-blocks of `N` values of a super-block.
pub(super) fn sub_blocks<const N: usize>(values: &[f32; 256]) -> &[[f32; N]] {
    values.as_chunks::<N>().0
}

/// The integer nearest to `v`, ties to even, within bounds of at most 2^22 in size.
pub(super) fn nearest(v: f32, min: f32, max: f32) -> f32 {
    // Adding 1.5·2^23 leaves no bits for a fraction. `round_ties_even` is a library call on x86-64 before SSE4.1.
    const SHIFT: f32 = 12_582_912.0;
    (v.clamp(min, max) + SHIFT) - SHIFT
}

fn weights<const N: usize>(x: &[f32; N]) -> [f32; N] {
    let rms = (dot(x, x) / N as f32).sqrt();
    x.map(|v| rms + v.abs())
}

fn product<const N: usize>(a: &[f32; N], b: &[f32; N]) -> [f32; N] {
    std::array::from_fn(|i| a[i] * b[i])
}

/// Σ a·b in eight interleaved sums, which compile to SIMD; `N` is a multiple of 8.
fn dot<const N: usize>(a: &[f32; N], b: &[f32; N]) -> f32 {
    let mut sums = [0.0; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_round_ties_even() {
        for i in -1000..1000 {
            let v = i as f32 / 8.0;
            assert_eq!(
                nearest(v, -64.0, 63.0),
                v.round_ties_even().clamp(-64.0, 63.0),
                "{v}"
            );
        }
    }

    /// Values that lie on the levels of some scale are fitted (almost) exactly.
    #[test]
    fn exact_data_is_found() {
        let q: [f32; 32] = std::array::from_fn(|i| ((i * 7) % 16) as f32);
        let x = q.map(|q| 0.37 * q - 1.9);
        let (s, m) = affine(&x, 15.0);
        assert!((s - 0.37).abs() < 1e-5 && (m - 1.9).abs() < 1e-5, "{s} {m}");
        let x: [f32; 16] = std::array::from_fn(|i| 0.02 * (i as f32 - 8.0));
        assert!((symmetric(&x, 8.0) - 0.02).abs() < 1e-6);
    }

    #[test]
    fn degenerate_data() {
        assert_eq!(affine(&[0.0; 32], 15.0), (0.0, 0.0));
        assert_eq!(symmetric(&[0.0; 16], 4.0), 0.0);
        // A constant: below zero it is all offset, above all scale.
        let (s, m) = affine(&[-2.0; 32], 15.0);
        assert!(
            (s * 15.0 - m + 2.0).abs() < 1e-5 || (m - 2.0).abs() < 1e-5,
            "{s} {m}"
        );
        let (s, m) = affine(&[2.0; 32], 15.0);
        assert!((s * 15.0 - m - 2.0).abs() < 1e-5, "{s} {m}");
        for tiny in [f32::from_bits(1), f32::MIN_POSITIVE] {
            let (s, m) = affine(&[tiny; 32], 15.0);
            assert!(s.is_finite() && m.is_finite() && symmetric(&[tiny; 16], 4.0).is_finite());
        }
    }
}
