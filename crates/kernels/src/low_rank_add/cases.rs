//! One row and many, odd sizes, rank 1, a factor of 0, more columns than a task.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("one row", 1, 8, 64, 2.0, Fill::Normal(1.0)).self_test(),
        case("5 rows", 5, 16, 130, 0.5, Fill::Normal(1.0)),
        case("odd sizes", 3, 5, 7, -1.5, Fill::Normal(1.0)),
        case("rank 1", 2, 1, 1, 1.0, Fill::Normal(1.0)),
        case("factor 0", 2, 8, 33, 0.0, Fill::Normal(1.0)),
        case("zeroes", 2, 8, 33, 1.0, Fill::Values(vec![0.0])),
        case("many columns", 3, 8, 5000, 1.0, Fill::Normal(1.0)),
        case("bench decode 16 x 4096", 1, 16, 4096, 1.0, Fill::Normal(1.0)).bench(2 * 16 * 4096),
    ]
}

fn case(name: &str, t: usize, r: usize, n: usize, scale: f32, h: Fill) -> Case {
    let params = Params { t: t as u32, r: r as u32, n: n as u32, scale };
    Case::new(
        name,
        vec![
            (DType::F32, vec![t, r], h),
            (DType::F32, vec![r, n], Fill::Normal(1.0)),
            (DType::F32, vec![t, n], Fill::Normal(1.0)),
        ],
        &params,
        Tolerance { atol: 1e-5, rtol: 1e-5 },
    )
}
