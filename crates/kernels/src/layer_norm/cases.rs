//! With and without a bias; odd sizes, one element, constant rows, a large offset, more rows than a grid dimension has.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let normal = || Fill::Normal(1.0);
    // 100 + small numbers: a one-pass variance in f32 would be off in the first digits.
    let offset = (0..65).map(|i| 100.0 + (i * 37 % 65) as f32 / 65.0).collect();
    let bytes = 2 * 256 * 768 * 4;
    let mut bench = case("bench 256 x 768", 256, 768, 1, normal()).bench(256 * 768 * 8);
    bench.bytes = bytes;
    vec![
        case("2 rows of 384", 2, 384, 1, normal()).self_test(),
        case("no bias", 3, 129, 0, normal()).self_test(),
        case("odd row", 3, 7, 1, normal()),
        case("one element", 2, 1, 1, normal()),
        case("constant rows", 2, 65, 1, Fill::Values(vec![3.0])),
        case("zero rows", 2, 65, 0, Fill::Values(vec![0.0])),
        Case { tolerance: Tolerance { atol: 2e-4, rtol: 1e-4 }, ..case("offset 100", 2, 65, 1, Fill::Values(offset)) },
        case("70000 rows", 70_000, 3, 1, Fill::Values(vec![0.5, -1.25, 2.0, 3.5, -0.75])),
        bench,
    ]
}

fn case(name: &str, rows: usize, d: usize, bias: u32, x: Fill) -> Case {
    let params = Params { rows: rows as u32, d: d as u32, eps: 1e-5, bias };
    Case::new(
        name,
        vec![
            (DType::F32, vec![rows, d], x),
            (DType::F32, vec![d], Fill::Normal(1.0)),
            (DType::F32, vec![d], Fill::Normal(1.0)),
            (DType::F32, vec![rows, d], Fill::Values(vec![9.0])),
        ],
        &params,
        // A few roundings of sums of up to 768 numbers of about 1.
        Tolerance { atol: 1e-5, rtol: 1e-5 },
    )
}
