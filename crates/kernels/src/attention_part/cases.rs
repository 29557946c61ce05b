//! Grouped heads of every remainder, parts without keys, windows, slots used again, every type of cache.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kv in [DType::F32, DType::F16, DType::Q8_0] {
        let least = if kv == DType::Q8_0 { 64 } else { 16 };
        let base = Params { t: 1, nh: 6, nkv: 2, hd: least, cap: 700, window: 0, scale: 0.25, softcap: 0.0, parts: 3 };
        let mut add = |name: &str, p: Params, rows: &[[u32; 2]], probe: bool| {
            let case = case(&format!("{kv} {name}"), kv, p, rows);
            cases.push(if probe { case.self_test() } else { case });
        };
        add("600 keys in three parts", base, &[[1, 599]], true);
        add("first token", base, &[[0, 0]], false);
        add("two parts of three have keys", base, &[[1, 140]], false);
        add("one part", Params { parts: 1, ..base }, &[[0, 300]], false);
        add("more parts than rounds", Params { parts: 32, ..base }, &[[0, 299]], false);
        add("window 200", Params { window: 200, ..base }, &[[0, 599]], false);
        add("window larger than the past", Params { window: 900, ..base }, &[[0, 299]], false);
        add("slots used again", Params { cap: 300, ..base }, &[[1, 1000]], true);
        add("window over the end of the slots", Params { cap: 300, window: 280, ..base }, &[[1, 700]], false);
        add("soft cap", Params { softcap: 2.0, scale: 1.0, ..base }, &[[0, 400]], false);
        add("three tokens of two sequences", Params { t: 3, ..base }, &[[0, 400], [0, 401], [1, 7]], false);
        for (nh, nkv) in [(2, 2), (4, 2), (4, 1), (5, 1), (9, 1), (16, 2)] {
            let p = Params { nh, nkv, cap: 300, ..base };
            add(&format!("{nh} heads over {nkv}"), p, &[[0, 290]], false);
        }
        for hd in [4, 80, 128, 256, 512].into_iter().filter(|hd| hd % if least == 64 { 64 } else { 4 } == 0) {
            let p = Params { hd, nh: 2, nkv: 1, cap: 300, ..base };
            add(&format!("head of {hd}"), p, &[[0, 280]], false);
        }
    }
    let p = Params { t: 1, nh: 16, nkv: 4, hd: 64, cap: 8192, window: 0, scale: 0.125, softcap: 0.0, parts: 32 };
    cases.push(case("bench decode at 8191", DType::F32, p, &[[0, 8191]]).bench(4 * 16 * 64 * 8192));
    cases
}

fn case(name: &str, kv: DType, p: Params, rows: &[[u32; 2]]) -> Case {
    let (t, len) = (p.t as usize, (p.nh * p.hd) as usize);
    let cache = vec![2, p.cap as usize, p.nkv as usize, p.hd as usize];
    let parts = vec![t, p.nh as usize, p.parts as usize, p.hd as usize + 4];
    Case::new(
        name,
        vec![
            (DType::F32, vec![t, len], Fill::Normal(1.0)),
            (kv, cache.clone(), Fill::Normal(1.0)),
            (kv, cache, Fill::Normal(1.0)),
            (DType::U32, vec![t, 2], Fill::Words(rows.as_flattened().to_vec())),
            (DType::F32, parts, Fill::Values(vec![9.0])),
        ],
        &p,
        // Sums that are not divided by their total yet: of up to a few hundred weights of at most one.
        Tolerance { atol: 2e-4, rtol: 2e-4 },
    )
}
