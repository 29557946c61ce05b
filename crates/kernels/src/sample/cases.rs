//! Greedy, every restriction alone and together, ties, −∞, NaN, several draws.
use super::{Params, SampleSettings};
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let greedy = SampleSettings::default();
    let warm = SampleSettings { temperature: 0.8, seed: 5, ..greedy };
    let normal = Fill::Normal(2.0);
    let mut cases = vec![
        case("greedy", 2, 1000, greedy, normal.clone()).self_test(),
        case("one logit", 3, 1, greedy, normal.clone()),
        case("lowest of equals", 2, 777, greedy, Fill::Values(vec![1.0, 3.0, 3.0])),
        case("all negative", 1, 300, greedy, Fill::Values(vec![-5.0, -4.0, -9.0])),
        case("some -inf", 1, 300, greedy, Fill::Values(vec![f32::NEG_INFINITY, -4.0])),
        case("all -inf", 2, 300, greedy, Fill::Values(vec![f32::NEG_INFINITY])),
        case("NaN", 2, 515, greedy, Fill::Values(vec![1.0, f32::NAN])),
        case("NaN, warm", 1, 515, warm, Fill::Values(vec![1.0, f32::NAN])),
        case("penalty", 2, 300, SampleSettings { repetition_penalty: 1.7, ..greedy }, normal.clone()),
        case("bench greedy 262144", 1, 262_144, greedy, normal.clone()).bench(262_144),
        case("bench warm 262144", 1, 262_144, SampleSettings { top_k: 40, top_p: 0.9, ..warm }, normal.clone())
            .bench(262_144),
    ];
    for seed in 0..6 {
        let warm = SampleSettings { seed: seed * 0x1_0000_0001, ..warm };
        let mut add = |name: &str, s: SampleSettings| {
            let case = case(&format!("{name}, seed {seed}"), 2, 1500, s, normal.clone());
            cases.push(if seed == 0 { case.self_test() } else { case });
        };
        add("warm", warm);
        add("top-k 7", SampleSettings { top_k: 7, ..warm });
        // The last of those that are listed, and the first that is not.
        add("top-k 128", SampleSettings { top_k: 128, ..warm });
        add("top-k 129", SampleSettings { top_k: 129, ..warm });
        add("top-p 0.6", SampleSettings { top_p: 0.6, ..warm });
        add("min-p 0.1", SampleSettings { min_p: 0.1, ..warm });
        add(
            "all",
            SampleSettings { top_k: 50, top_p: 0.9, min_p: 0.02, repetition_penalty: 1.2, temperature: 1.3, ..warm },
        );
    }
    // Under a grammar's mask most logits are −∞, fewer are left than top-k wants.
    let masked = || {
        let mut logits = vec![f32::NEG_INFINITY; 97];
        (logits[3], logits[40], logits[96]) = (0.5, -1.0, 1.5);
        Fill::Values(logits)
    };
    for (name, s) in [
        ("masked, warm", warm),
        (
            "masked, all",
            SampleSettings {
                top_k: 50,
                top_p: 0.9,
                min_p: 0.02,
                repetition_penalty: 1.2,
                temperature: 1.3,
                ..warm
            },
        ),
    ] {
        cases.push(case(name, 2, 1500, s, masked()).self_test());
    }
    let ties = Fill::Values(vec![2.0, 2.0, 1.0, 0.0]);
    cases.push(case("ties at the border", 2, 400, SampleSettings { top_k: 3, ..warm }, ties.clone()));
    // 1,000 in the first place: more than a list holds.
    let more = SampleSettings { top_k: 3, top_p: 0.7, min_p: 0.1, ..warm };
    cases.push(case("more ties than are listed", 2, 2000, more, ties));
    let two = SampleSettings { top_k: 2, top_p: 0.95, ..warm };
    cases.push(case("fewer logits than invocations", 3, 5, two, normal));
    cases
}

fn case(name: &str, b: usize, v: usize, s: SampleSettings, logits: Fill) -> Case {
    let words = (0..b as u32).flat_map(|i| s.words(17 + i)).collect();
    Case::new(
        name,
        vec![
            (DType::F32, vec![b, v], logits),
            (DType::U32, vec![b, 8], Fill::Words(words)),
            (DType::U32, vec![b, v], Fill::Words(vec![0, 1, 0, 0, 2])),
            (DType::U32, vec![b], Fill::Words(vec![99])),
        ],
        &Params { b: b as u32, v: v as u32 },
        Tolerance::EXACT,
    )
}
