//! With and without a bias; odd sizes, zero rows, several tasks.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let normal = Fill::Normal(1.0);
    vec![
        case("2 rows of 384", 2, 384, 1, normal.clone()).self_test(),
        case("odd row, no bias", 3, 7, 0, normal.clone()),
        case("zero rows", 2, 65, 1, Fill::Values(vec![0.0])),
        case("101 rows of 384", 101, 384, 1, normal.clone()),
        case("70000 rows", 70_000, 3, 1, Fill::Values(vec![0.5, -1.25, 2.0, 3.5, -0.75])),
        case("bench 256 x 768", 256, 768, 1, normal).bench(256 * 768 * 9),
    ]
}

fn case(name: &str, rows: usize, d: usize, bias: u32, h: Fill) -> Case {
    let params = Params { rows: rows as u32, d: d as u32, eps: 1e-12, bias };
    Case::new(
        name,
        vec![
            (DType::F32, vec![rows, d], h.clone()),
            (DType::F32, vec![rows, d], h),
            (DType::F32, vec![d], Fill::Normal(1.0)),
            (DType::F32, vec![d], Fill::Normal(1.0)),
            (DType::F32, vec![rows, d], Fill::Values(vec![9.0])),
        ],
        &params,
        Tolerance { atol: 1e-5, rtol: 1e-5 },
    )
}
