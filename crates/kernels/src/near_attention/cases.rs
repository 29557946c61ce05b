//! One token, fewer tokens than distances, one distance and the most, odd heads, scores at their bound.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let mut large = case("scores at their bound", 2, 16, 20, 12, 5.0);
    for operand in &mut large.operands[..2] {
        operand.2 = Fill::Normal(6.0);
    }
    // Scores of some hundreds before the bound.
    large.tolerance = Tolerance { atol: 5e-4, rtol: 1e-3 };
    vec![
        case("30 tokens, 12 distances", 2, 16, 30, 12, 50.0).self_test(),
        case("5 tokens, 12 distances", 4, 8, 5, 12, 50.0),
        case("one token, one distance", 1, 4, 1, 1, 50.0),
        case("64 distances, heads of 7", 3, 7, 131, 64, 2.0),
        case("heads of 200", 1, 200, 9, 4, 50.0),
        large,
    ]
}

fn case(name: &str, nh: usize, hd: usize, t: usize, p: usize, cap: f32) -> Case {
    let row = nh * hd;
    let of = |rows: usize, fill| (DType::F32, vec![rows, row], fill);
    let normal = || Fill::Normal(1.0);
    let operands = vec![of(t, normal()), of(t, normal()), of(t, normal()), of(p, normal()), of(t, Fill::Values(vec![9.0]))];
    let params = Params {
        t: t as u32,
        nh: nh as u32,
        hd: hd as u32,
        p: p as u32,
        kscale: 0.7,
        cap,
    };
    Case::new(name, operands, &params, Tolerance { atol: 5e-5, rtol: 2e-4 })
}
