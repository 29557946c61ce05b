//! Every function, with and without a bias; odd sizes, zeroes, large values, more elements than one grid dimension serves.
use super::{Activation, Params};
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for act in Activation::ALL {
        let case = |what: &str, t, n, bias, y| case(format!("{act:?} {what}"), t, n, act, bias, y);
        cases.push(case("normal", 3, 129, 1, Fill::Normal(2.0)).self_test());
        cases.push(case("without bias", 5, 37, 0, Fill::Normal(3.0)));
        cases.push(case("one", 1, 1, 1, Fill::Normal(1.0)));
        cases.push(case("zeroes", 2, 64, 0, Fill::Values(vec![0.0])));
        cases.push(case("large", 1, 130, 0, Fill::Values(vec![-90.0, -20.0, -5.0, 5.0, 20.0, 90.0, 1e-6])));
        cases.push(case("bench 256 x 3072", 256, 3072, 1, Fill::Normal(1.0)).bench(256 * 3072 * 4));
    }
    let many = Fill::Values(vec![0.5, -1.0, 0.25, 3.0, -0.75, 2.0, -2.5]);
    cases.push(case("more than 65535 workgroups".into(), 4200, 1000, Activation::Relu, 0, many));
    cases
}

fn case(name: String, t: usize, n: usize, act: Activation, bias: u32, y: Fill) -> Case {
    Case::new(
        name,
        vec![(DType::F32, vec![t, n], y), (DType::F32, vec![n], Fill::Normal(1.0))],
        &Params { t: t as u32, n: n as u32, act: act as u32, bias },
        // 1 + erf and 1 + tanh cancel where the function is near zero: one rounding of 1, times half of x.
        Tolerance { atol: 2e-6, rtol: 2e-5 },
    )
}
