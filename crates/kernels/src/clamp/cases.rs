//! Both bounds, one, none, a single value between them; borders, odd sizes, more than 65,535 workgroups.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let border = Fill::Values(vec![0.0, -0.0, 1e-20, 0.5, -0.25, 0.6, 1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY]);
    vec![
        case("2 x 65", 130, -0.7, 0.9, Fill::Normal(1.0)).self_test(),
        case("one bound", 77, f32::NEG_INFINITY, 0.1, Fill::Normal(1.0)),
        case("no bound", 63, f32::NEG_INFINITY, f32::INFINITY, Fill::Normal(1.0)),
        case("one value is left", 65, 0.25, 0.25, Fill::Normal(1.0)),
        case("borders", 10, -0.25, 0.5, border),
        case("one element", 1, -1.0, 1.0, Fill::Values(vec![7.0])),
        case("over several tasks", 40_001, -1.0, 2.0, Fill::Normal(2.0)),
        case("more than 65535 groups", 65_536 * 65, -1.0, 1.0, Fill::Values(vec![1.5, -2.0, 0.5])),
    ]
}

fn case(name: &str, n: usize, lo: f32, hi: f32, fill: Fill) -> Case {
    let params = Params { n: n as u32, lo, hi };
    let operands = vec![(DType::F32, vec![n], fill), (DType::F32, vec![n], Fill::Values(vec![9.0]))];
    Case::new(name, operands, &params, Tolerance { atol: 0.0, rtol: 0.0 })
}
