//! Odd sizes, one element, zeroes, large values, several tasks, more than 65,535 workgroups.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let normal = Fill::Normal(1.0);
    vec![
        case("3 x 43, scaled", 129, 0.4375, normal.clone()).self_test(),
        case("one element", 1, 1.0, normal.clone()),
        case("times zero", 65, 0.0, normal.clone()),
        case("zeroes", 130, 2.0, Fill::Values(vec![0.0])),
        case("large values", 31, 0.5, Fill::Normal(1e30)),
        case("over several tasks", 40_000, 1.5, normal.clone()),
        case("more than 65535 groups", 65_536 * 65, -1.0, Fill::Values(vec![1.5, -2.0, 0.25])),
        case("bench 256 x 2048", 256 * 2048, 1.0, normal).bench(2 * 256 * 2048),
    ]
}

fn case(name: &str, n: usize, scale: f32, fill: Fill) -> Case {
    let mut case = Case::new(
        name,
        vec![(DType::F32, vec![n], fill), (DType::F32, vec![n], Fill::Normal(1.0))],
        &Params { n: n as u32, scale },
        // Two roundings; an absolute part for sums that cancel.
        Tolerance { atol: 1e-6, rtol: 2e-7 },
    );
    // `h` is read and written.
    case.bytes += (n * 4) as u64;
    case
}
