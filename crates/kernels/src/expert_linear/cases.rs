//! Element types, shared and own rows of `x`, shards that cut an expert, one expert that gets all.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let base = Shape { r: 6, e: 5, n: 19, k: 64, share: 2, row0: 0, rows: 95 };
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::Q4_0, DType::Q4_1, DType::Q8_0] {
        let case = case(format!("{dtype}"), dtype, base);
        cases.push(if dtype == DType::Q4_1 || dtype == DType::F32 { case.self_test() } else { case });
    }
    for dtype in [DType::Q4K, DType::Q6K] {
        cases.push(case(format!("{dtype}"), dtype, Shape { k: 512, ..base }));
    }
    cases.push(case("own rows".into(), DType::F32, Shape { share: 1, k: 40, ..base }));
    cases.push(case("many rows".into(), DType::Q8_0, Shape { r: 74, ..base }));
    cases.push(case("one expert".into(), DType::F32, Shape { r: 9, e: 1, rows: 19, share: 3, ..base }));
    cases.push(case("a shard that cuts two experts".into(), DType::Q4_0, Shape { row0: 30, rows: 41, ..base }));
    cases.push(case("the last rows".into(), DType::F32, Shape { row0: 94, rows: 1, ..base }));
    let large = Shape { r: 8, e: 16, n: 1408, k: 2816, share: 8, row0: 0, rows: 16 * 1408 };
    cases.push(case("bench q4_0 8 of 16 x 1408 x 2816".into(), DType::Q4_0, large).bench(2 * 8 * 1408 * 2816));
    cases
}

#[derive(Clone, Copy)]
struct Shape {
    r: usize,
    e: usize,
    n: usize,
    k: usize,
    share: usize,
    row0: usize,
    rows: usize,
}

fn case(name: String, dtype: DType, s: Shape) -> Case {
    let params = Params {
        r: s.r as u32,
        n: s.n as u32,
        k: s.k as u32,
        share: s.share as u32,
        row0: s.row0 as u32,
        rows: s.rows as u32,
        row_bytes: dtype.bytes_for(s.k).unwrap_or(0) as u32,
    };
    let bound = (s.k as f64).sqrt();
    let mut case = Case::new(
        name,
        vec![
            (DType::F32, vec![s.r / s.share, s.k], Fill::Normal(1.0)),
            (dtype, vec![s.rows, s.k], Fill::Normal(1.0)),
            (DType::U32, vec![s.r], Fill::Below(s.e as u32)),
            (DType::F32, vec![s.r, s.n], Fill::Values(vec![7.0])),
        ],
        &params,
        Tolerance { atol: 4e-6 * bound, rtol: 1e-5 },
    );
    // As for `linear`: activations in 8 bits.
    case.quantized_tolerance = Some(Tolerance { atol: 0.04 * bound, rtol: 1e-2 });
    case
}
