//! One row and many, odd widths, a width of one, more than 65,535 workgroups.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("5 x 48", 5, 48).self_test(),
        case("1 x 1", 1, 1),
        case("3 x 77", 3, 77),
        case("513 x 1", 513, 1),
        case("several tasks", 70, 1152),
        case("more than 65535 groups", 65, 65_536),
    ]
}

fn case(name: &str, t: usize, n: usize) -> Case {
    let operands = vec![
        (DType::F32, vec![t, n], Fill::Normal(1.0)),
        (DType::F32, vec![n], Fill::Normal(1.0)),
        (DType::F32, vec![n], Fill::Normal(1.0)),
    ];
    let params = Params { t: t as u32, n: n as u32 };
    let mut case = Case::new(name, operands, &params, Tolerance { atol: 1e-6, rtol: 1e-6 });
    case.bytes += 4 * (t * n) as u64;
    case
}
