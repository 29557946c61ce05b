//! Every activation; odd sizes, zeroes, large values.
use super::{Activation, Params};
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for act in Activation::ALL {
        let case = |what: &str, n, fill| case(format!("{act:?} {what}"), act as u32, n, fill);
        cases.push(case("normal", 3 * 129, Fill::Normal(3.0)).self_test());
        cases.push(case("one", 1, Fill::Normal(1.0)));
        cases.push(case("zeroes", 64, Fill::Values(vec![0.0])));
        cases.push(case("large", 130, Fill::Values(vec![-90.0, -20.0, 20.0, 90.0, 1e-6])));
        cases.push(case("bench 256 x 8192", 256 * 8192, Fill::Normal(1.0)).bench(256 * 8192 * 4));
    }
    cases
}

fn case(name: String, act: u32, n: usize, gate: Fill) -> Case {
    Case::new(
        name,
        vec![
            (DType::F32, vec![n], gate),
            (DType::F32, vec![n], Fill::Normal(1.0)),
            (DType::F32, vec![n], Fill::Values(vec![9.0])),
        ],
        &Params { n: n as u32, act },
        Tolerance { atol: 2e-6, rtol: 2e-5 },
    )
}
