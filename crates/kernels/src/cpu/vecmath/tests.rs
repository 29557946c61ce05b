//! Every function at every level, against f64.

use super::*;

fn close(got: f32, want: f64, allowed: f64) -> bool {
    (f64::from(got) - want).abs() <= allowed
}

/// Numbers of both signs without a pattern that vector widths could hide.
fn numbers(len: usize, scale: f32) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0)
        .map(|x| x * scale)
        .collect()
}

#[test]
fn sums() {
    for isa in Isa::available() {
        for len in [0, 1, 3, 8, 15, 16, 17, 64, 100, 257] {
            let (a, b) = (numbers(len, 3.0), numbers(len + 1, -2.0));
            let half: Vec<f16> = b.iter().map(|b| f16::from_f32(*b)).collect();
            let pairs = || {
                a.iter()
                    .zip(&b)
                    .map(|(a, b)| (f64::from(*a), f64::from(*b)))
            };
            let size = 1e-6 * pairs().map(|(a, b)| (a * b).abs()).sum::<f64>();
            let want: f64 = pairs().map(|(a, b)| a * b).sum();
            assert!(close(dot_f32(isa, &a, &b), want, size), "{isa} {len}");
            let want: f64 = a
                .iter()
                .zip(&half)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum();
            assert!(close(dot_f16(isa, &a, &half), want, size), "{isa} {len}");
            assert!(
                !close(dot_f16(isa, &a, &half), want + 1e-3, size),
                "{isa} {len}"
            );
            let want: f64 = a.iter().map(|a| f64::from(*a).powi(2)).sum();
            assert!(
                close(sum_squares(isa, &a), want, 1e-6 * want),
                "{isa} {len}"
            );
            let want = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max_f32(isa, &a), want, "{isa} {len}");
            let (mut y, mut z) = (a.clone(), a.clone());
            axpy_f32(isa, 0.3, &b, &mut y);
            axpy_f16(isa, 0.3, &half, &mut z);
            for i in 0..len {
                let (a, b) = (f64::from(a[i]), f64::from(b[i]));
                let allowed = 1e-6 * (a.abs() + b.abs());
                assert!(
                    close(y[i], a + f64::from(0.3f32) * b, allowed),
                    "{isa} {len}"
                );
                let b = f64::from(half[i]);
                assert!(
                    close(z[i], a + f64::from(0.3f32) * b, allowed),
                    "{isa} {len}"
                );
            }
        }
        assert_eq!(max_f32(isa, &[f32::NEG_INFINITY; 40]), f32::NEG_INFINITY);
        for len in [1, 5, 32, 45, 300] {
            let a = numbers(len, 4.0);
            let top = f64::from(a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let want: Vec<f64> = a
                .iter()
                .map(|a| (0.7 * (f64::from(*a) - top)).exp())
                .collect();
            let mut got = a;
            let (largest, total) = softmax_sum(isa, 0.7, &mut got);
            assert_eq!(f64::from(largest), top);
            let sum: f64 = want.iter().sum();
            assert!(close(total, sum, 2e-6 * sum), "{isa} {len}");
            for (got, want) in got.iter().zip(&want) {
                assert!(close(*got, *want, 2e-6), "{isa} {len}");
            }
        }
        let mut far: Vec<f32> = (0..9000).map(|i| -0.01 * i as f32).collect();
        far.push(f32::NEG_INFINITY);
        let mut got = far.clone();
        softmax_sum(isa, 1.0, &mut got);
        for (x, y) in far.iter().zip(&got) {
            let want = if *x < -87.0 { 0.0 } else { f64::from(*x).exp() };
            assert!(
                close(*y, want, 1e-6 * want),
                "{isa}: {x} gives {y}, expected {want}"
            );
        }
        let mut none = [0.0, f32::NAN, -3.0, -90.0];
        softmax_sum(isa, 1.0, &mut none);
        assert!(
            none[1].is_nan() && none[0] == 1.0 && none[3] == 0.0,
            "{isa}: {none:?}"
        );
    }
}

#[test]
fn exp_within_a_millionth() {
    for isa in Isa::available() {
        let inputs: Vec<f32> = (-8730..8870).map(|i| i as f32 * 0.01 + 0.003).collect();
        let mut got = inputs.clone();
        exp(isa, &mut got);
        for (x, y) in inputs.iter().zip(&got) {
            let want = f64::from(*x).exp();
            assert!(
                close(*y, want, 1e-6 * want),
                "{isa}: exp({x}) = {y}, expected {want}"
            );
        }
        let mut edges = [
            0.0,
            -0.0,
            f32::NEG_INFINITY,
            -1e30,
            -100.0,
            f32::INFINITY,
            89.0,
            f32::NAN,
        ];
        exp(isa, &mut edges);
        assert_eq!(edges[..4], [1.0, 1.0, 0.0, 0.0]);
        assert!(
            edges[4] > 0.0 && edges[4] < 1e-43,
            "subnormal: {}",
            edges[4]
        );
        assert_eq!(edges[5..7], [f32::INFINITY; 2]);
        assert!(edges[7].is_nan());
    }
}

#[test]
fn activations() {
    for isa in Isa::available() {
        let mut inputs: Vec<f32> = (-3000..3000).map(|i| i as f32 * 0.01).collect();
        inputs.extend([-1e4, -120.0, 120.0, 1e4]);
        let (mut s, mut g) = (inputs.clone(), inputs.clone());
        silu(isa, &mut s);
        gelu_tanh(isa, &mut g);
        for ((x, s), g) in inputs.iter().zip(&s).zip(&g) {
            let x = f64::from(*x);
            let want = x / (1.0 + (-x).exp());
            assert!(
                close(*s, want, 2e-6 * want.abs() + 1e-30),
                "{isa}: silu({x}) = {s}"
            );
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            // As σ(2u): near tanh u = -1 the usual form cancels, even in f64.
            let want = x / (1.0 + (-2.0 * u).exp());
            let allowed = 2e-6 * want.abs() * (1.0 + u.abs()) + 1e-30;
            assert!(
                close(*g, want, allowed),
                "{isa}: gelu({x}) = {g}, expected {want}"
            );
        }
        type Row = (fn(Isa, &mut [f32]), u32, f64);
        let rows: [Row; 5] = [
            (gelu, 2, 1e-6),
            (quick_gelu, 3, 1e-6),
            (relu, 4, 0.0),
            (tanh, 5, 2e-7),
            (sigmoid, 6, 2e-7),
        ];
        for (f, act, allowed) in rows {
            let mut got = inputs.clone();
            f(isa, &mut got);
            for (x, y) in inputs.iter().zip(&got) {
                let want = crate::act::reference::of(act, f64::from(*x));
                let allowed = allowed + 5e-7 * want.abs();
                assert!(
                    close(*y, want, allowed),
                    "{isa}: {act}({x}) = {y}, expected {want}"
                );
            }
            let mut small = [1e-4f32, -1e-4];
            f(isa, &mut small);
            let want = crate::act::reference::of(act, f64::from(1e-4f32));
            assert!(close(small[0], want, 1e-6 * want), "{isa}: {act} near zero");
        }
        for f in [silu, gelu_tanh, gelu, quick_gelu, relu, tanh, sigmoid] {
            let mut nan = [f32::NAN];
            f(isa, &mut nan);
            assert!(nan[0].is_nan());
        }
        let x: Vec<f32> = numbers(77, 2.0);
        let want: f64 = x.iter().map(|x| f64::from(*x)).sum();
        assert!(close(sum_f32(isa, &x), want, 1e-5));
        let mut y = x.clone();
        add_scalar(isa, 0.5, &mut y);
        scale_shift(isa, 2.0, &x, Some(&x), &mut y);
        for (x, y) in x.iter().zip(&y) {
            assert!(close(*y, f64::from(2.0 * (x + 0.5) * x + x), 1e-5), "{isa}");
        }
    }
}
