//! The formulas, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [y, b] = values else { return };
    let n = p.n as usize;
    for (i, y) in y.iter_mut().enumerate() {
        let bias = if p.bias == 1 { b[i % n] } else { 0.0 };
        *y = of(p.act, *y + bias);
    }
}

/// The function with the number `act` of [`super::Activation`].
pub(crate) fn of(act: u32, x: f64) -> f64 {
    match act {
        0 => x / (1.0 + (-x).exp()),
        1 => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        2 => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        3 => x / (1.0 + (-1.702 * x).exp()),
        4 => x.max(0.0),
        5 => x.tanh(),
        _ => 1.0 / (1.0 + (-x).exp()),
    }
}

/// `2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!`, whose terms have one sign (Abramowitz & Stegun 7.1.6); ±1 beyond 6.
pub(crate) fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    #[test]
    fn erf_has_the_tabled_values() {
        // The sum of up to 80 terms: as many roundings.
        for (x, want) in [
            (0.0, 0.0),
            (0.1, 0.112_462_916_018_284_9),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.5, 0.999_999_256_901_627_7),
        ] {
            assert!((super::erf(x) - want).abs() < 1e-14, "erf({x})");
            assert!((super::erf(-x) + want).abs() < 1e-14, "erf(-{x})");
        }
        assert_eq!(super::erf(7.0), 1.0);
    }
}
