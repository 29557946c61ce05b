//! Odd sizes, one logit, nothing and everything allowed, one of many, NaN and infinities, more than 65,535 workgroups.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let normal = Fill::Normal(2.0);
    let some = vec![0x8000_0001, 0xffff_ffff, 0, 0x1234_5678, 0x0f0f_0f0f];
    vec![
        case("2 of 1000", 2, 1000, normal.clone(), some.clone()).self_test(),
        case("one logit, allowed", 1, 1, normal.clone(), vec![1]),
        case("one logit, not allowed", 1, 1, normal.clone(), vec![2]),
        case("a full word", 3, 32, normal.clone(), some.clone()),
        case("one more than a word", 3, 33, normal.clone(), some.clone()),
        case("nothing", 2, 300, normal.clone(), vec![0]),
        case("everything", 2, 300, normal.clone(), vec![u32::MAX]),
        case(
            "one of many",
            1,
            49_152,
            normal.clone(),
            [vec![0; 700], vec![1 << 17], vec![0; 835]].concat(),
        ),
        case(
            "infinities",
            2,
            70,
            Fill::Values(vec![f32::INFINITY, f32::NEG_INFINITY, 0.0]),
            some.clone(),
        ),
        case(
            "NaN",
            2,
            70,
            Fill::Values(vec![1.0, f32::NAN]),
            some.clone(),
        ),
        case(
            "more than 65535 groups",
            17,
            262_144,
            Fill::Values(vec![1.5, -2.0, 0.25]),
            some.clone(),
        ),
        case("bench 262144", 1, 262_144, normal, some).bench(262_144),
    ]
}

fn case(name: &str, b: usize, v: usize, logits: Fill, mask: Vec<u32>) -> Case {
    let mut case = Case::new(
        name,
        vec![
            (DType::F32, vec![b, v], logits),
            (DType::U32, vec![b, v.div_ceil(32)], Fill::Words(mask)),
        ],
        &Params {
            b: b as u32,
            v: v as u32,
            low: f32::NEG_INFINITY.to_bits(),
        },
        Tolerance::EXACT,
    );
    // `logits` is read and written.
    case.bytes += (b * v * 4) as u64;
    case
}
