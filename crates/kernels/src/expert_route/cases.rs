//! Many and few experts, all chosen, ties, equal logits, large ones, more than one workgroup.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let normal = Fill::Normal(2.0);
    vec![
        case("2 of 6", 5, 6, 2, normal.clone()).self_test(),
        case("8 of 128", 67, 128, 8, normal.clone()).self_test(),
        case("all of 7", 3, 7, 7, normal.clone()),
        case("one expert", 2, 1, 1, normal.clone()),
        case("ties", 4, 9, 4, Fill::Values(vec![1.0, 3.0, 1.0, 3.0, -2.0])),
        case("all equal", 2, 33, 5, Fill::Values(vec![0.0])),
        case("large logits", 3, 16, 3, Fill::Normal(1e4)),
        case("most are minus infinity", 2, 5, 2, Fill::Values(vec![f32::NEG_INFINITY, 1.0, 2.0, f32::NEG_INFINITY, 0.5])),
    ]
}

fn case(name: &str, t: usize, e: usize, k: usize, logits: Fill) -> Case {
    let params = Params { t: t as u32, e: e as u32, k: k as u32 };
    Case::new(
        name,
        vec![
            (DType::F32, vec![t, e], logits),
            (DType::F32, vec![e], Fill::Values(vec![1.0, 0.5, 2.0, 0.75, 1.25])),
            (DType::U32, vec![t, k], Fill::Words(vec![77])),
            (DType::F32, vec![t, k], Fill::Values(vec![9.0])),
        ],
        &params,
        // exp of a difference of logits: some units in the last place.
        Tolerance { atol: 1e-6, rtol: 1e-5 },
    )
}
