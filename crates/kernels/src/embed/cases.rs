//! Every element type, a shard in the middle of a table, one token and many.
use super::Params;
use crate::dequant::WEIGHT_DTYPES;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &dtype in WEIGHT_DTYPES {
        let k = dtype.block_len().max(8) * 3;
        let case = case(format!("{dtype}"), dtype, 5, k, 11, 0, 1.0);
        cases.push(if dtype == DType::Q4_1 { case.self_test() } else { case });
    }
    cases.push(case("one token, scaled".into(), DType::F32, 1, 8, 1, 0, 25.25));
    cases.push(case("a shard that holds some ids".into(), DType::Q8_0, 9, 64, 4, 3, 1.0));
    cases
}

fn case(name: String, dtype: DType, t: usize, k: usize, rows: usize, row0: u32, scale: f32) -> Case {
    let row_bytes = dtype.bytes_for(k).unwrap_or(0) as u32;
    let params = Params { t: t as u32, k: k as u32, rows: rows as u32, row0, scale, row_bytes };
    Case::new(
        name,
        vec![
            (DType::U32, vec![t], Fill::Below(rows as u32 + row0)),
            (dtype, vec![rows, k], Fill::Normal(1.0)),
            (DType::F32, vec![t, k], Fill::Values(vec![0.5])),
        ],
        &params,
        Tolerance { atol: 1e-6, rtol: 1e-5 },
    )
}
