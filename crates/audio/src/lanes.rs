//! Four frames side by side: the Fourier transform of real samples, as power, and logarithms.
//!
//! ```text
//! z[i] = x[2i] + i·x[2i + 1]                      n/2 complex points, transformed by stages of radix 4, 2, 3 and 5 (Stockham)
//! E, O = (Z[k] + Z*[n/2 − k]) / 2, (Z[k] − Z*[n/2 − k]) / 2i
//! P[k] = |E + e^(−2πik/n)·O|²,  P[n/2 − k] = |E − e^(−2πik/n)·O|²
//! ```
//! Each lane is computed by the same operations in the same order, without fused ones, at every SIMD level: a frame's numbers
//! do not hang on the frames beside it nor on the machine.
//!
//! Sources: Stockham's autosort as in van Loan, "Computational Frameworks for the Fast Fourier Transform", 1.7.

use fearless_simd::{Level, dispatch, f64x4, prelude::*, u64x4};
use std::f64::consts::{LN_2, LOG10_E, PI};
use std::sync::Arc;

/// Frames that go together.
pub(crate) const LANES: usize = 4;

/// One number of each frame.
pub(crate) type Lane = [f64; LANES];

/// A planned transform of n real samples.
#[derive(Clone)]
pub(crate) struct Plan {
    stages: Arc<[Stage]>,
    /// e^(−2πik/n) for k in 0…n/4.
    turns: Arc<[[f64; 2]]>,
}

struct Stage {
    radix: usize,
    /// Points of this stage's transform over the radix.
    m: usize,
    /// How many transforms lie between each other.
    stride: usize,
    /// e^(−2πipk/(m·radix)), k in 1…radix − 1 for each p in 0…m − 1.
    turns: Vec<[f64; 2]>,
}

fn turn(k: usize, n: usize) -> [f64; 2] {
    let (sin, cos) = (-2.0 * PI * k as f64 / n as f64).sin_cos();
    [cos, sin]
}

impl Plan {
    /// For `n` samples, even; `None` if n/2 has a prime factor above 5.
    pub(crate) fn new(n: usize) -> Option<Self> {
        let (mut left, mut stride) = (n / 2, 1);
        let mut stages = Vec::new();
        for radix in [4, 2, 3, 5] {
            while left.is_multiple_of(radix) {
                let m = left / radix;
                let turns = (0..m).flat_map(|p| (1..radix).map(move |k| turn(p * k, m * radix)));
                stages.push(Stage {
                    radix,
                    m,
                    stride,
                    turns: turns.collect(),
                });
                (left, stride) = (m, stride * radix);
            }
        }
        (left == 1).then(|| Plan {
            stages: stages.into(),
            turns: (0..=n / 4).map(|k| turn(k, n)).collect(),
        })
    }

    /// The powers `[n/2 + 1]` of the frames `x` `[n]`; `x` and `other` `[n]` are overwritten.
    pub(crate) fn power(&self, x: &mut [Lane], other: &mut [Lane], power: &mut [Lane]) {
        dispatch!(Level::new(), simd => self.run(simd, x, other, power));
    }

    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, x: &mut [Lane], other: &mut [Lane], power: &mut [Lane]) {
        let (mut from, mut to) = (x, other);
        for s in &*self.stages {
            match s.radix {
                2 => stage::<S, 2>(simd, s, from, to),
                3 => stage::<S, 3>(simd, s, from, to),
                4 => stage::<S, 4>(simd, s, from, to),
                _ => stage::<S, 5>(simd, s, from, to),
            }
            (from, to) = (to, from);
        }
        let (z, _) = from.as_chunks::<2>();
        let half = z.len();
        let Some(first) = z.first() else {
            return;
        };
        let z0 = Complex::load(simd, first);
        let (sum, difference) = (z0.re + z0.im, z0.re - z0.im);
        power[0] = (sum * sum).into();
        power[half] = (difference * difference).into();
        for (k, turn) in self.turns.iter().enumerate().skip(1) {
            let (a, b) = (
                Complex::load(simd, &z[k]),
                Complex::load(simd, &z[half - k]),
            );
            let even = Complex {
                re: (a.re + b.re) * 0.5,
                im: (a.im - b.im) * 0.5,
            };
            let odd = Complex {
                re: (a.im + b.im) * 0.5,
                im: (b.re - a.re) * 0.5,
            };
            let odd = odd.times(*turn);
            power[half - k] = even.minus(odd).square().into();
            power[k] = even.plus(odd).square().into();
        }
    }
}

/// Four frames, each `hop` after the other from the first sample of `all` on, times the weights of `window`, into `frames`; the
/// products are rounded to f32.
pub(crate) fn gather(all: &[f32], hop: usize, window: &[f32], frames: &mut [Lane]) {
    dispatch!(Level::new(), simd => gather_in(simd, all, hop, window, frames));
}

#[inline(always)]
fn gather_in<S: Simd>(_: S, all: &[f32], hop: usize, window: &[f32], frames: &mut [Lane]) {
    let n = window.len();
    let (a, b) = (&all[..n], &all[hop..][..n]);
    let (c, d) = (&all[2 * hop..][..n], &all[3 * hop..][..n]);
    let frames = &mut frames[..n];
    for i in 0..n {
        let w = window[i];
        let products = [a[i] * w, b[i] * w, c[i] * w, d[i] * w];
        let [a, b, c, d] = products;
        frames[i] = [f64::from(a), f64::from(b), f64::from(c), f64::from(d)];
    }
}

#[derive(Clone, Copy)]
struct Complex<S: Simd> {
    re: f64x4<S>,
    im: f64x4<S>,
}

impl<S: Simd> Complex<S> {
    #[inline(always)]
    fn load(simd: S, at: &[Lane; 2]) -> Self {
        Complex {
            re: at[0].simd_into(simd),
            im: at[1].simd_into(simd),
        }
    }

    #[inline(always)]
    fn store(self, at: &mut [Lane; 2]) {
        *at = [self.re.into(), self.im.into()];
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Complex {
            re: self.re + other.re,
            im: self.im + other.im,
        }
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        Complex {
            re: self.re - other.re,
            im: self.im - other.im,
        }
    }

    #[inline(always)]
    fn times(self, [cos, sin]: [f64; 2]) -> Self {
        Complex {
            re: self.re * cos - self.im * sin,
            im: self.re * sin + self.im * cos,
        }
    }

    #[inline(always)]
    fn scaled(self, by: f64) -> Self {
        Complex {
            re: self.re * by,
            im: self.im * by,
        }
    }

    /// Times −i.
    #[inline(always)]
    fn back(self) -> Self {
        Complex {
            re: self.im,
            im: -self.re,
        }
    }

    #[inline(always)]
    fn square(self) -> f64x4<S> {
        self.re * self.re + self.im * self.im
    }
}

#[inline(always)]
fn stage<S: Simd, const R: usize>(simd: S, stage: &Stage, from: &[Lane], to: &mut [Lane]) {
    let (from, to) = (from.as_chunks::<2>().0, to.as_chunks_mut::<2>().0);
    let (m, stride) = (stage.m, stage.stride);
    let places = to.chunks_exact_mut(R * stride);
    for (p, (turns, to)) in stage.turns.chunks_exact(R - 1).zip(places).enumerate() {
        for q in 0..stride {
            let first = Complex::load(simd, &from[q + stride * p]);
            let mut v = [first; R];
            for (j, v) in v.iter_mut().enumerate().skip(1) {
                *v = Complex::load(simd, &from[q + stride * (p + j * m)]);
            }
            butterfly(&mut v);
            v[0].store(&mut to[q]);
            for k in 1..R {
                // The last stage turns by nothing.
                let turned = if m == 1 {
                    v[k]
                } else {
                    v[k].times(turns[k - 1])
                };
                turned.store(&mut to[q + stride * k]);
            }
        }
    }
}

/// The transform of R points.
#[inline(always)]
fn butterfly<S: Simd, const R: usize>(v: &mut [Complex<S>; R]) {
    match R {
        2 => (v[0], v[1]) = (v[0].plus(v[1]), v[0].minus(v[1])),
        3 => {
            let (sum, d) = (v[1].plus(v[2]), v[1].minus(v[2]).scaled(SIN_3).back());
            let middle = v[0].minus(sum.scaled(0.5));
            v[0] = v[0].plus(sum);
            (v[1], v[2]) = (middle.plus(d), middle.minus(d));
        }
        4 => {
            let (a, b) = (v[0].plus(v[2]), v[0].minus(v[2]));
            let (c, d) = (v[1].plus(v[3]), v[1].minus(v[3]).back());
            (v[0], v[2]) = (a.plus(c), a.minus(c));
            (v[1], v[3]) = (b.plus(d), b.minus(d));
        }
        _ => {
            let (a, b) = (v[1].plus(v[4]), v[2].plus(v[3]));
            let (c, d) = (v[1].minus(v[4]), v[2].minus(v[3]));
            let near = v[0].plus(a.scaled(COS_5)).plus(b.scaled(COS_25));
            let far = v[0].plus(a.scaled(COS_25)).plus(b.scaled(COS_5));
            let up = c.scaled(SIN_5).plus(d.scaled(SIN_25)).back();
            let down = c.scaled(SIN_25).minus(d.scaled(SIN_5)).back();
            v[0] = v[0].plus(a).plus(b);
            (v[1], v[4]) = (near.plus(up), near.minus(up));
            (v[2], v[3]) = (far.plus(down), far.minus(down));
        }
    }
}

/// sin(2π/3), cos and sin of 2π/5 and 4π/5.
const SIN_3: f64 = 0.866_025_403_784_438_6;
const COS_5: f64 = 0.309_016_994_374_947_45;
const SIN_5: f64 = 0.951_056_516_295_153_5;
const COS_25: f64 = -0.809_016_994_374_947_5;
const SIN_25: f64 = 0.587_785_252_292_473_1;

/// Which logarithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    Natural,
    Ten,
}

/// The logarithms of `max(x + add, least)`; −∞ for what is below the least normal number. To 1e-15 and a bit of the value.
pub(crate) fn logs(lanes: &mut [Lane], add: f64, least: f64, log: Log) {
    dispatch!(Level::new(), simd => logs_in(simd, lanes, add, least, log));
}

/// ```text
/// x = 2^e·m, m in [√½, √2),  s = (m − 1) / (m + 1),  ln m = 2s·(1 + s²/3 + s⁴/5 + …)
/// ```
#[inline(always)]
fn logs_in<S: Simd>(simd: S, lanes: &mut [Lane], add: f64, least: f64, log: Log) {
    const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    const ONE: u64 = 0x3ff0_0000_0000_0000;
    // 2^52, under whose exponent the lowest bits are the whole number that they are.
    const WHOLE: u64 = 0x4330_0000_0000_0000;
    let factor = match log {
        Log::Natural => 1.0,
        Log::Ten => LOG10_E,
    };
    for lane in lanes {
        let x: f64x4<S> = (*lane).simd_into(simd);
        let x = (x + add).max(f64x4::splat(simd, least));
        let tiny = x.simd_lt(f64x4::splat(simd, f64::MIN_POSITIVE));
        let bits: u64x4<S> = x.bitcast();
        let bits = bits + (ONE - ROOT_HALF);
        let exponent: f64x4<S> = ((bits >> 52) | WHOLE).bitcast();
        let exponent = exponent - (4_503_599_627_370_496.0 + 1023.0);
        let m: f64x4<S> = ((bits & 0x000f_ffff_ffff_ffff) + ROOT_HALF).bitcast();
        let s = (m - 1.0) / (m + 1.0);
        let z = s * s;
        let mut sum = f64x4::splat(simd, 1.0 / 17.0);
        for odd in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
            sum = sum * z + 1.0 / odd;
        }
        let found = (exponent * LN_2 + s * 2.0 * sum) * factor;
        let none = f64x4::splat(simd, f64::NEG_INFINITY);
        *lane = tiny.select(none, found).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize) -> Vec<Lane> {
        let mut state = 7u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as f64 / (1u64 << 30) as f64 - 1.0
        };
        (0..n).map(|_| std::array::from_fn(|_| next())).collect()
    }

    #[test]
    fn powers_are_those_of_the_sum() {
        for n in [2, 4, 6, 8, 10, 12, 30, 64, 90, 400, 512, 1024] {
            let plan = Plan::new(n).expect("a plan");
            let x = noise(n);
            let mut power = vec![[0.0; LANES]; n / 2 + 1];
            plan.power(&mut x.clone(), &mut vec![[0.0; LANES]; n], &mut power);
            for (k, got) in power.iter().enumerate() {
                for (lane, got) in got.iter().enumerate() {
                    let (mut re, mut im) = (0.0, 0.0);
                    for (i, x) in x.iter().enumerate() {
                        let [cos, sin] = turn(i * k % n, n);
                        (re, im) = (re + x[lane] * cos, im + x[lane] * sin);
                    }
                    let want = re * re + im * im;
                    assert!(
                        (got - want).abs() < 1e-11 * n as f64,
                        "{n} {k}: {got} for {want}"
                    );
                }
            }
        }
        assert!(Plan::new(14).is_none());
    }

    #[test]
    fn a_lane_does_not_hang_on_its_neighbours() {
        let plan = Plan::new(400).expect("a plan");
        let run = |x: &[Lane]| {
            let mut power = vec![[0.0; LANES]; 201];
            plan.power(&mut x.to_vec(), &mut vec![[0.0; LANES]; 400], &mut power);
            logs(&mut power, 0.0, 1e-10, Log::Ten);
            power
        };
        let all = noise(400);
        let alone: Vec<Lane> = all.iter().map(|x| [0.0, x[1], 1e9, 0.0]).collect();
        let moved: Vec<Lane> = all.iter().map(|x| [x[1]; LANES]).collect();
        let (all, alone, moved) = (run(&all), run(&alone), run(&moved));
        for ((a, b), c) in all.iter().zip(&alone).zip(&moved) {
            assert_eq!((a[1], a[1]), (b[1], c[3]));
        }
    }

    #[test]
    fn logarithms() {
        let mut x = 1e-10;
        while x < 1e40 {
            let mut lanes = [[x, 2.0 * x, 0.71 * x, x * 1e-9]];
            let want = lanes[0];
            logs(&mut lanes, 0.0, 1e-10, Log::Ten);
            for (got, want) in lanes[0].iter().zip(want.map(|x| x.max(1e-10).log10())) {
                assert!(
                    (got - want).abs() <= 1e-15 + 1e-15 * want.abs(),
                    "{got} {want}"
                );
            }
            let mut lanes = [[x; LANES]];
            logs(&mut lanes, 1e-3, 0.0, Log::Natural);
            let want = (x + 1e-3).ln();
            assert!((lanes[0][2] - want).abs() <= 1e-15 + 1e-15 * want.abs());
            x *= 1.0371;
        }
        let mut lanes = [[0.0, 1.0, 1e-320, 2.0]];
        logs(&mut lanes, 0.0, 0.0, Log::Natural);
        assert_eq!(lanes[0][..3], [f64::NEG_INFINITY, 0.0, f64::NEG_INFINITY]);
    }
}
