//! Both pairings, partial rotation, two sequences, both cache types.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kv in [DType::F32, DType::F16, DType::Q8_0] {
        for pairing in [0, 1] {
            let (hd, pairs) = if kv == DType::Q8_0 { (64, 32) } else { (16, 8) };
            let base = Params { t: 5, nh: 4, nkv: 2, hd, pairs, cap: 12, pairing };
            cases.push(case(&format!("{kv} pairing {pairing}"), kv, base).self_test());
            let partial = Params { pairs: 3, ..base };
            cases.push(case(&format!("{kv} pairing {pairing} partial"), kv, partial));
            // Positions up to 11 in three slots: each is written once at most.
            let few = Params { t: 5, cap: 3, ..base };
            cases.push(case(&format!("{kv} pairing {pairing} slots used again"), kv, few).self_test());
            let one = Params { t: 1, nh: 9, nkv: 3, hd: 64, pairs: 32, ..base };
            cases.push(case(&format!("{kv} pairing {pairing} one token"), kv, one));
            let wide = Params { nh: 2, nkv: 1, hd: 512, pairs: 128, ..base };
            cases.push(case(&format!("{kv} pairing {pairing} wide heads"), kv, wide));
        }
    }
    cases
}

fn case(name: &str, kv: DType, p: Params) -> Case {
    let (t, hd) = (p.t as usize, p.hd as usize);
    let (q, k) = (p.nh as usize * hd, p.nkv as usize * hd);
    let cache = vec![2, p.cap as usize, p.nkv as usize, hd];
    // Two sequences; positions count up in each.
    let rows = (0..p.t).flat_map(|i| [i % 2, 3 + i / 2]).collect();
    let positions = p.cap.max(12);
    let angles = (0..positions * p.pairs).flat_map(|i| {
        let angle = i as f32 * 0.37;
        [angle.cos(), angle.sin()]
    });
    let tolerance = match kv {
        DType::F16 => Tolerance { atol: 1e-5, rtol: 1e-3 },
        // Half a step of a block whose largest element may be 5.
        DType::Q8_0 => Tolerance { atol: 0.021, rtol: 1e-3 },
        _ => Tolerance { atol: 1e-6, rtol: 1e-5 },
    };
    Case::new(
        name,
        vec![
            (DType::F32, vec![t, q], Fill::Normal(1.0)),
            (DType::F32, vec![t, k], Fill::Normal(1.0)),
            (DType::F32, vec![t, k], Fill::Normal(1.0)),
            (DType::U32, vec![t, 2], Fill::Words(rows)),
            (DType::F32, vec![positions as usize, p.pairs as usize, 2], Fill::Values(angles.collect())),
            (kv, cache.clone(), before(kv, 5.0)),
            (kv, cache, before(kv, 6.0)),
        ],
        &p,
        tolerance,
    )
}

/// What is in the slots that nothing is written to.
fn before(kv: DType, value: f32) -> Fill {
    match kv {
        DType::Q8_0 => Fill::Normal(value),
        _ => Fill::Values(vec![value]),
    }
}
