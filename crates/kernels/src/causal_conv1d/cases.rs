//! One token and many, at the start and later, fewer tokens than taps, two sequences of which one rests, odd sizes.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let from = |seq: u32, pos: u32, n: u32| (0..n).map(move |i| [seq, pos + i]).collect::<Vec<_>>();
    let mut both = from(1, 0, 3);
    both.extend(from(0, 9, 5));
    vec![
        case("decode", 160, 4, &from(1, 17, 1)).self_test(),
        case("first token", 160, 4, &from(0, 0, 1)),
        case("second token", 7, 4, &from(0, 1, 1)),
        case("prompt from 0", 65, 4, &from(0, 0, 13)).self_test(),
        case("prompt after 126", 65, 4, &from(1, 126, 11)),
        case("fewer tokens than taps", 65, 4, &from(1, 5, 2)),
        case("two sequences, 3 + 5", 33, 4, &both),
        case("two sequences, one token each", 33, 4, &[[0, 3], [1, 40]]),
        case("one tap", 9, 1, &from(0, 2, 3)),
        case("three taps", 1, 3, &from(0, 1, 9)),
        case("bench decode 6144", 6144, 4, &from(0, 100, 1)).bench(6144 * 8),
        case("bench 256 x 6144", 6144, 4, &from(0, 0, 256)).bench(256 * 6144 * 8),
    ]
}

fn case(name: &str, c: usize, k: usize, rows: &[[u32; 2]]) -> Case {
    let t = rows.len();
    let params = Params { t: t as u32, c: c as u32, k: k as u32, nseq: 2 };
    Case::new(
        name,
        vec![
            (DType::F32, vec![t, c], Fill::Normal(1.0)),
            (DType::F32, vec![k, c], Fill::Normal(1.0)),
            (DType::U32, vec![t, 2], Fill::Words(rows.as_flattened().to_vec())),
            (DType::F32, vec![2, k, c], Fill::Normal(1.0)),
            (DType::F32, vec![t, c], Fill::Values(vec![9.0])),
        ],
        &params,
        // A few products of numbers around 1, and the exponential of a browser's or driver's choice.
        Tolerance { atol: 3e-6, rtol: 2e-5 },
    )
}
