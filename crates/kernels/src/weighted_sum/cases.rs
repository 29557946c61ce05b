//! One row and several, odd sizes, zero weights, several tasks, more than 65,535 workgroups.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let normal = Fill::Normal(1.0);
    vec![
        case("5 sums of 2 rows of 67", 5, 2, 67, normal.clone()).self_test(),
        case("one row each", 3, 1, 33, normal.clone()),
        case("one element", 1, 8, 1, normal.clone()),
        case("zeroes", 2, 3, 65, Fill::Values(vec![0.0])),
        case("over several tasks", 130, 4, 259, normal.clone()),
        case("more than 65535 groups", 65_536, 1, 66, Fill::Values(vec![1.5, -2.0, 0.25, 7.0])),
        case("bench 256 x 8 x 2816", 256, 8, 2816, normal).bench(2 * 256 * 8 * 2816),
    ]
}

fn case(name: &str, t: usize, k: usize, d: usize, x: Fill) -> Case {
    let params = Params { t: t as u32, k: k as u32, d: d as u32 };
    Case::new(
        name,
        vec![
            (DType::F32, vec![t * k, d], x),
            (DType::F32, vec![t, k], Fill::Values(vec![0.5, 1.25, -0.75, 0.0, 2.0])),
            (DType::F32, vec![t, d], Fill::Values(vec![9.0])),
        ],
        &params,
        // A few products of about 1, each rounded.
        Tolerance { atol: 2e-6, rtol: 1e-6 },
    )
}
