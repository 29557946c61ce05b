//! Fewer moments than taps, one tap, odd widths, several tasks, more than 65,535 workgroups.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("9 x 32, 5 taps", 9, 32, 5).self_test(),
        case("2 x 7, 5 taps", 2, 7, 5),
        case("1 x 1, 1 tap", 1, 1, 1),
        case("several tasks", 100, 257, 3),
        case("more than 65535 groups", 65, 65_536, 2),
    ]
}

fn case(name: &str, t: usize, c: usize, k: usize) -> Case {
    let operands = vec![
        (DType::F32, vec![t, c], Fill::Normal(1.0)),
        (DType::F32, vec![c, k], Fill::Normal(1.0)),
        (DType::F32, vec![t, c], Fill::Values(vec![9.0])),
    ];
    let params = Params { t: t as u32, c: c as u32, k: k as u32 };
    Case::new(name, operands, &params, Tolerance { atol: 1e-5, rtol: 1e-5 })
}
