//! Odd sizes, zero rows, an offset.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let normal = Fill::Normal(1.0);
    vec![
        case("2 rows of 576", 2, 576, 0.0, normal.clone()).self_test(),
        case("odd row", 3, 7, 1.0, normal.clone()),
        case("zero rows", 2, 65, 0.0, Fill::Values(vec![0.0])),
        case("bench 256 x 2048", 256, 2048, 0.0, normal).bench(256 * 2048 * 5),
    ]
}

fn case(name: &str, rows: usize, d: usize, offset: f32, h: Fill) -> Case {
    let params = Params { rows: rows as u32, d: d as u32, eps: 1e-5, offset };
    Case::new(
        name,
        vec![
            (DType::F32, vec![rows, d], h.clone()),
            (DType::F32, vec![rows, d], h),
            (DType::F32, vec![d], Fill::Normal(1.0)),
            (DType::F32, vec![rows, d], Fill::Values(vec![9.0])),
        ],
        &params,
        Tolerance { atol: 1e-5, rtol: 1e-5 },
    )
}
