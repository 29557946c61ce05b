//! Decode and prefill forms; grouped heads, windows, soft caps, two ragged sequences, every head size of the families.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let base =
        Params { t: 1, nh: 4, nkv: 2, hd: 16, cap: 300, window: 0, scale: 0.25, softcap: 0.0, mutual: 0 };
    let mut cases = Vec::new();
    for kv in [DType::F32, DType::F16, DType::Q8_0] {
        // Its blocks are not cut by heads.
        let least = if kv == DType::Q8_0 { 64 } else { 4 };
        let base = Params { hd: base.hd.max(least), ..base };
        // Two texts around a picture of nine tokens, which see each other.
        let mut ends: Vec<u32> = (31..44).collect();
        ends[2..11].fill(41);
        let rows: Vec<_> = (0..13).map(|i| [1, 30 + i]).collect();
        for (name, window, cap) in [("a picture", 0, 300), ("a picture, window", 6, 300), ("a picture, slots used again", 6, 20)] {
            let p = Params { t: 13, window, cap, mutual: 1, ..base };
            cases.push(seeing(&format!("{kv} {name}"), kv, p, &rows, &ends));
        }
        let p = Params { t: 1, window: 6, mutual: 1, ..base };
        cases.push(seeing(&format!("{kv} one token of a picture"), kv, p, &rows[4..5], &ends[4..5]));
        let mut add = |name: &str, p: Params, rows: Vec<[u32; 2]>, probe: bool| {
            let case = case(&format!("{kv} {name}"), kv, p, &rows);
            cases.push(if probe { case.self_test() } else { case });
        };
        add("first token", base, vec![[0, 0]], false);
        add("one token of 201", base, vec![[1, 200]], true);
        add("two sequences", Params { t: 2, ..base }, vec![[0, 140], [1, 3]], false);
        add("window 8", Params { window: 8, ..base }, vec![[0, 130]], false);
        add("window larger than the past", Params { window: 500, ..base }, vec![[0, 30]], false);
        add("soft cap", Params { softcap: 2.0, scale: 1.0, ..base }, vec![[0, 60]], false);
        for hd in [4, 32, 64, 80, 96, 128, 256, 512].into_iter().filter(|hd| hd % least == 0) {
            let p = Params { hd, cap: 140, nh: 2, nkv: 1, ..base };
            add(&format!("head of {hd}"), p, vec![[0, 131]], false);
            let rows: Vec<_> = (0..5).map(|i| [0, 127 + i]).collect();
            add(&format!("head of {hd}, 5 tokens"), Params { t: 5, ..p }, rows, false);
        }
        // Parts of the keys are tasks of their own; three, then five queries share a head of keys.
        let far = Params { nh: 3, nkv: 1, hd: 64, cap: 1600, ..base };
        add("one token of 1501", far, vec![[1, 1500]], false);
        add("one token of 1501, five queries a head", Params { nh: 5, hd: least.max(32), ..far }, vec![[0, 1500]], false);
        add("one token of 1501, head of another size", Params { hd: least.max(20), ..far }, vec![[0, 1500]], false);
        let rows: Vec<_> = (0..70).map(|i| [0, 230 + i]).collect();
        add("70 tokens after 230", Params { t: 70, nh: 2, nkv: 1, ..base }, rows, false);
        let from = |seq: u32, pos: u32, n: u32| (0..n).map(move |i| [seq, pos + i]);
        let p = Params { t: 13, nh: 9, nkv: 3, ..base };
        add("prefill from 0", p, from(0, 0, 13).collect(), true);
        add("prefill after 125", p, from(1, 125, 13).collect(), false);
        let ragged = from(0, 100, 3).chain(from(1, 2, 2)).chain(from(0, 0, 0)).collect();
        add("ragged 3 + 2", Params { t: 5, ..base }, ragged, false);
        let ragged = from(0, 7, 6).chain(from(1, 200, 7)).collect();
        add("ragged 6 + 7, window", Params { window: 5, ..p }, ragged, false);
        let short = Params { window: 20, cap: 37, ..base };
        add("slots used again", short, vec![[1, 200]], true);
        add("window over the end of the slots", short, vec![[0, 80]], false);
        add("prefill, slots used again", Params { t: 13, ..short }, from(1, 100, 13).collect(), true);
        let ragged = from(0, 35, 6).chain(from(1, 71, 7)).collect();
        add("ragged 6 + 7, slots used again", Params { t: 13, ..short }, ragged, false);
        add("prefill, soft cap", Params { softcap: 2.0, scale: 1.0, ..p }, from(0, 0, 13).collect(), false);
    }
    let p = Params { t: 1, nh: 16, nkv: 4, hd: 64, cap: 2048, window: 0, scale: 0.125, softcap: 0.0, mutual: 0 };
    let one = case("bench decode at 2047", DType::F32, p, &[[0, 2047]]);
    cases.push(one.bench(4 * 16 * 64 * 2048));
    for kv in [DType::F32, DType::F16, DType::Q8_0] {
        // As many layers as a model has: caches of one would stay in the processor's.
        let p = Params { nh: 9, nkv: 3, cap: 8192, t: 16, ..p };
        let rows: Vec<_> = (0..16).map(|i| [i, 8191]).collect();
        let long = case(&format!("bench decode of 16 at 8191, {kv}"), kv, p, &rows);
        cases.push(long.bench(16 * 4 * 9 * 64 * 8192));
        let p = Params { t: 256, ..p };
        let rows: Vec<_> = (7936..8192).map(|i| [0, i]).collect();
        let far = case(&format!("bench prefill of 256 after 7936, {kv}"), kv, p, &rows);
        cases.push(far.bench(256 * 4 * 9 * 64 * 8064));
        let p = Params { t: 1, cap: 1024, ..p };
        let near = case(&format!("bench decode near at 1023, {kv}"), kv, p, &[[0, 1023]]);
        cases.push(near.bench(4 * 9 * 64 * 1024));
    }
    let rows: Vec<_> = (0..256).map(|i| [0, i]).collect();
    let many = case("bench prefill 256", DType::F32, Params { t: 256, ..p }, &rows);
    cases.push(many.bench(4 * 16 * 64 * 256 * 128));
    cases
}

/// A few tokens after 300, for heads as SmolLM2's and Gemma's.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn few_tokens() -> Vec<Case> {
    let many = [2, 3, 4, 6, 12].map(|t| (t, 300, 512));
    of_each(&many)
}

/// One token after many.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn long_pasts() -> Vec<Case> {
    of_each(&[512, 1024, 2048, 4096].map(|cap| (1, cap - 1, cap)))
}

/// So many tokens after a position in caches of a size.
#[cfg(not(target_arch = "wasm32"))]
fn of_each(all: &[(u32, u32, u32)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for kv in [DType::F32, DType::F16, DType::Q8_0] {
        for (nh, nkv, hd) in [(9, 3, 64), (4, 1, 256)] {
            for &(t, pos, cap) in all {
                let scale = (hd as f32).powf(-0.5);
                let p = Params { t, nh, nkv, hd, cap, window: 0, scale, softcap: 0.0, mutual: 0 };
                let rows: Vec<_> = (0..t).map(|i| [1, pos + i]).collect();
                cases.push(case(&format!("{kv} {t} after {pos}, {nh} heads of {hd}"), kv, p, &rows));
            }
        }
    }
    cases
}

fn case(name: &str, kv: DType, p: Params, rows: &[[u32; 2]]) -> Case {
    let own: Vec<u32> = rows.iter().map(|[_, pos]| pos + 1).collect();
    seeing(name, kv, p, rows, &own)
}

fn seeing(name: &str, kv: DType, p: Params, rows: &[[u32; 2]], ends: &[u32]) -> Case {
    let (t, len) = (p.t as usize, (p.nh * p.hd) as usize);
    let sequences = rows.iter().map(|[s, _]| *s as usize + 1).max().unwrap_or(0).max(2);
    let cache = vec![sequences, p.cap as usize, p.nkv as usize, p.hd as usize];
    let mut case = Case::new(
        name,
        vec![
            (DType::F32, vec![t, len], Fill::Normal(1.0)),
            (kv, cache.clone(), Fill::Normal(1.0)),
            (kv, cache, Fill::Normal(1.0)),
            (DType::U32, vec![t, 2], Fill::Words(rows.as_flattened().to_vec())),
            (DType::U32, vec![t], Fill::Words(ends.to_vec())),
            (DType::F32, vec![t, len], Fill::Values(vec![9.0])),
        ],
        &p,
        Tolerance { atol: 2e-5, rtol: 1e-4 },
    );
    // Where few queries read the cache, they and their weights are rounded to 16 bits: the longer they are, the further off are the scores.
    let rounded = kv == DType::Q8_0 && t <= 2;
    let atol = 1e-4 * (f64::from(p.hd) / 128.0).max(1.0);
    case.quantized_tolerance = rounded.then_some(Tolerance { atol, rtol: 1e-4 });
    case
}
