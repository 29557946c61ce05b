//! Both pairings, whole and partial rotation, one token, a token beyond the table.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for pairing in [0, 1] {
        let base = Params { t: 5, nh: 4, hd: 16, pairs: 8, positions: 7, pairing };
        let name = |what: &str| format!("pairing {pairing}, {what}");
        cases.push(case(name("the last beyond the table"), base).self_test());
        cases.push(case(name("partial"), Params { pairs: 3, positions: 9, ..base }));
        cases.push(case(name("one token"), Params { t: 1, nh: 9, hd: 66, pairs: 33, ..base }));
        cases.push(case(name("one pair"), Params { hd: 2, pairs: 1, ..base }));
    }
    cases
}

fn case(name: String, p: Params) -> Case {
    let (t, len) = (p.t as usize, (p.nh * p.hd) as usize);
    // Positions of two sequences; the last of five is 7.
    let rows = (0..p.t).flat_map(|i| [i % 2, if i == 4 { 7 } else { 3 + i / 2 }]);
    let angles = (0..p.positions * p.pairs).flat_map(|i| {
        let angle = i as f32 * 0.37;
        [angle.cos(), angle.sin()]
    });
    Case::new(
        name,
        vec![
            (DType::F32, vec![t, len], Fill::Normal(1.0)),
            (DType::U32, vec![t, 2], Fill::Words(rows.collect())),
            (DType::F32, vec![p.positions as usize, p.pairs as usize, 2], Fill::Values(angles.collect())),
        ],
        &p,
        Tolerance { atol: 1e-6, rtol: 1e-5 },
    )
}
