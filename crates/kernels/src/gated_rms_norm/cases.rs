//! Odd sizes, zero rows, large values on both sides, many rows.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let normal = Fill::Normal(1.0);
    vec![
        case("32 rows of 128", 32, 128, normal.clone(), normal.clone()).self_test(),
        case("odd row", 3, 7, normal.clone(), normal.clone()),
        case("one element", 5, 1, normal.clone(), normal.clone()),
        case("zero rows", 2, 65, Fill::Values(vec![0.0]), normal.clone()),
        case("zero gates", 2, 24, normal.clone(), Fill::Values(vec![0.0])),
        case("large gates", 2, 130, normal.clone(), Fill::Values(vec![-90.0, -20.0, 20.0, 90.0, 1e-6])),
        case("large values", 2, 130, Fill::Normal(1e6), normal.clone()),
        case("many rows", 70_000, 3, Fill::Values(vec![0.3, -1.0, 2.5, 0.0, 7.0]), Fill::Values(vec![1.0, -0.5])),
        case("bench 4096 x 128", 4096, 128, normal.clone(), normal).bench(4096 * 128 * 8),
    ]
}

fn case(name: &str, rows: usize, d: usize, x: Fill, gate: Fill) -> Case {
    let params = Params { rows: rows as u32, d: d as u32, eps: 1e-6 };
    Case::new(
        name,
        vec![
            (DType::F32, vec![rows, d], x),
            (DType::F32, vec![rows, d], gate),
            (DType::F32, vec![d], Fill::Normal(1.0)),
            (DType::F32, vec![rows, d], Fill::Values(vec![9.0])),
        ],
        &params,
        Tolerance { atol: 1e-5, rtol: 3e-5 },
    )
}
