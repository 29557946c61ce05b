//! One token and many, at the start and later, two sequences of which one rests, both head orders, odd sizes, extreme gates.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

const BASE: Params = Params { t: 0, nk: 2, nv: 4, hk: 16, hv: 24, nseq: 2, order: 0, scale: 0.25 };

pub(super) fn cases() -> Vec<Case> {
    let from = |seq: u32, pos: u32, n: u32| (0..n).map(move |i| [seq, pos + i]).collect::<Vec<_>>();
    let mut both = from(1, 0, 3);
    both.extend(from(0, 9, 5));
    let normal = Fill::Normal(1.0);
    let real = Params { nk: 2, nv: 2, hk: 128, hv: 128, scale: 0.088_388_35, ..BASE };
    let odd = Params { nk: 3, nv: 3, hk: 13, hv: 11, ..BASE };
    let extremes = Fill::Values(vec![-100.0, 0.0, 100.0, -30.0, 30.0, -3.0, 1e-3]);
    let bench = Params { nk: 16, nv: 16, hk: 128, hv: 128, nseq: 1, ..BASE };
    let flops = 16 * 128 * 128 * 8;
    vec![
        case("decode", BASE, &from(1, 7, 1), normal.clone()).self_test(),
        case("first token", BASE, &from(0, 0, 1), normal.clone()),
        case("prompt from 0", BASE, &from(0, 0, 13), normal.clone()).self_test(),
        case("prompt after 200", BASE, &from(1, 200, 70), normal.clone()),
        case("tiled heads", Params { order: 1, ..BASE }, &from(1, 3, 5), normal.clone()),
        case("two sequences, 3 + 5", BASE, &both, normal.clone()),
        case("two sequences, one token each", BASE, &[[0, 3], [1, 40]], normal.clone()),
        case("heads of 128", real, &from(0, 1, 4), normal.clone()),
        case("keys of 256", Params { hk: 256, hv: 8, ..real }, &from(0, 1, 2), normal.clone()),
        case("odd heads", odd, &from(1, 2, 6), normal.clone()),
        case("one element", Params { hk: 1, hv: 1, ..odd }, &from(1, 2, 6), normal),
        case("extreme gates", BASE, &from(1, 2, 6), extremes),
        case("bench decode", bench, &from(0, 100, 1), Fill::Normal(1.0)).bench(flops),
        case("bench prompt of 256", bench, &from(0, 0, 256), Fill::Normal(1.0)).bench(256 * flops),
    ]
}

fn case(name: &str, p: Params, rows: &[[u32; 2]], gates: Fill) -> Case {
    let t = rows.len();
    let p = Params { t: t as u32, ..p };
    let (nv, hk, hv, nseq) = (p.nv as usize, p.hk as usize, p.hv as usize, p.nseq as usize);
    // −exp(A_log) for each head, then dt_bias.
    let decay = (0..nv).map(|h| -0.02 - 0.9 * h as f32).chain((0..nv).map(|h| h as f32 * 0.7 - 1.0));
    Case::new(
        name,
        vec![
            (DType::F32, vec![t, p.width() as usize], Fill::Normal(1.0)),
            (DType::F32, vec![t, nv], gates.clone()),
            (DType::F32, vec![t, nv], gates),
            (DType::F32, vec![2, nv], Fill::Values(decay.collect())),
            (DType::U32, vec![t, 2], Fill::Words(rows.as_flattened().to_vec())),
            (DType::F32, vec![nseq, nv, hk, hv], Fill::Normal(0.5)),
            (DType::F32, vec![t, nv * hv], Fill::Values(vec![9.0])),
        ],
        &p,
        // Sums of up to 256 products, some tokens one after the other; a driver's exponential is good to a few units of 1e-7.
        Tolerance { atol: 1e-5, rtol: 1e-4 },
    )
}
