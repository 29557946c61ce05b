//! Below, around and far beyond the cap, infinities, zeroes, odd sizes, more than 65,535 workgroups.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let border = Fill::Values(vec![0.0, -0.0, 1e-20, 30.0, -30.0, 299.0, 1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY]);
    vec![
        case("2 x 65, around the cap", 130, 10.0, Fill::Normal(12.0)).self_test(),
        case("far below the cap", 77, 30.0, Fill::Normal(1e-3)),
        case("borders", 13, 30.0, border),
        case("one element", 1, 0.5, Fill::Values(vec![0.7])),
        case("over several tasks", 10_001, 30.0, Fill::Normal(20.0)),
        case("more than 65535 groups", 65_536 * 65, 3.0, Fill::Values(vec![1.5, -2.0, 9.0])),
        case("bench 256000", 256_000, 30.0, Fill::Normal(20.0)).bench(3 * 256_000),
    ]
}

fn case(name: &str, n: usize, cap: f32, fill: Fill) -> Case {
    let params = Params { n: n as u32, cap };
    // tanh on a GPU may be off by some units in the last place.
    let tolerance = Tolerance { atol: 2e-6 * f64::from(cap), rtol: 1e-5 };
    let mut case = Case::new(name, vec![(DType::F32, vec![n], fill)], &params, tolerance);
    case.bytes *= 2;
    case
}
