//! Odd sizes, zero rows, large values, an offset.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let normal = Fill::Normal(1.0);
    vec![
        case("2 rows of 576", 2, 576, 0.0, normal.clone()).self_test(),
        case("odd row", 3, 7, 0.0, normal.clone()),
        case("one element", 5, 1, 0.0, normal.clone()),
        case("offset 1", 2, 640, 1.0, normal.clone()),
        case("zero rows", 2, 65, 0.0, Fill::Values(vec![0.0])),
        case("large values", 2, 130, 0.0, Fill::Normal(1e6)),
        case("many rows", 70_000, 3, 0.0, normal.clone()),
        case("bench 256 x 2048", 256, 2048, 0.0, normal).bench(256 * 2048 * 4),
    ]
}

fn case(name: &str, rows: usize, d: usize, offset: f32, x: Fill) -> Case {
    let params = Params { rows: rows as u32, d: d as u32, eps: 1e-5, offset };
    Case::new(
        name,
        vec![
            (DType::F32, vec![rows, d], x),
            (DType::F32, vec![d], Fill::Normal(1.0)),
            (DType::F32, vec![rows, d], Fill::Values(vec![9.0])),
        ],
        &params,
        Tolerance { atol: 1e-5, rtol: 1e-5 },
    )
}
