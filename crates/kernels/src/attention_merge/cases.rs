//! One part and many, parts without keys, scores far apart.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    // (sum, largest score, total) of each part in turn; a part without keys is (0, lowest, 0).
    let none = (0.0, -3.0e38, 0.0);
    let some = [(1.5, 0.25, 2.0), (-3.0, 4.0, 7.5), (0.5, -2.0, 1.0), (20.0, 3.5, 90.0), (-1.0, 3.0, 1.25)];
    vec![
        case("one part", 3, 16, &some[..1]).self_test(),
        case("five parts", 4, 64, &some).self_test(),
        case("parts without keys", 5, 8, &[some[0], none, some[1], none, none]),
        case("the first without keys", 2, 4, &[none, some[2]]),
        case("scores far apart", 2, 512, &[(2.0, -90.0, 1.0), (3.0, 120.0, 2.0), (5.0, 119.0, 2.0)]),
        case("32 parts", 9, 128, &std::array::from_fn::<_, 32, _>(|i| some[i % 5])),
    ]
}

fn case(name: &str, heads: usize, hd: usize, parts: &[(f32, f32, f32)]) -> Case {
    let mut values = Vec::new();
    for &(sum, top, total) in parts {
        values.extend((0..hd).map(|d| sum * (1.0 + d as f32 / 7.0)));
        values.extend([top, total, 0.0, 0.0]);
    }
    let params = Params { heads: heads as u32, hd: hd as u32, parts: parts.len() as u32 };
    Case::new(
        name,
        vec![
            (DType::F32, vec![1, heads, parts.len(), hd + 4], Fill::Values(values)),
            (DType::F32, vec![1, heads * hd], Fill::Values(vec![9.0])),
        ],
        &params,
        Tolerance { atol: 1e-5, rtol: 1e-5 },
    )
}
