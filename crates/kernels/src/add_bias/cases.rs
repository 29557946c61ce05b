//! Odd sizes, one element, zeroes, large values, more than 65,535 workgroups.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let normal = Fill::Normal(1.0);
    vec![
        case("3 rows of 129", 3, 129, normal.clone()).self_test(),
        case("one element", 1, 1, normal.clone()),
        case("rows of one element", 70, 1, normal.clone()),
        case("one row", 1, 577, normal.clone()),
        case("2 rows of 576", 2, 576, normal.clone()),
        case("zeroes", 2, 65, Fill::Values(vec![0.0])),
        case("large values", 5, 31, Fill::Normal(1e30)),
        case("rows over several tasks", 300, 259, normal.clone()),
        case(
            "more than 65535 groups",
            65_536 * 22,
            3,
            Fill::Values(vec![1.5, -2.0, 0.25, 7.0]),
        ),
        case("bench 256 x 2048", 256, 2048, normal).bench(256 * 2048),
    ]
}

fn case(name: &str, t: usize, n: usize, y: Fill) -> Case {
    let mut case = Case::new(
        name,
        vec![
            (DType::F32, vec![t, n], y),
            (DType::F32, vec![n], Fill::Normal(1.0)),
        ],
        &Params {
            t: t as u32,
            n: n as u32,
        },
        // One addition, rounded once: half a unit in the last place.
        Tolerance {
            atol: 0.0,
            rtol: 6e-8,
        },
    );
    // `y` is read and written.
    case.bytes += (t * n * 4) as u64;
    case
}
