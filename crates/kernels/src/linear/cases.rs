//! Every element type in vector and matrix form, odd sizes, few and long rows, a column block of a wider result.
use super::Params;
use crate::dequant::WEIGHT_DTYPES;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &dtype in WEIGHT_DTYPES {
        let block = dtype.block_len().max(8);
        let probe = dtype == DType::Q4_1 || dtype == DType::F32 || dtype == DType::Q6K;
        for t in [1, 3, 37] {
            let k = if block == 256 { 512 } else { block * 5 };
            let case = case(format!("{dtype} T={t}"), dtype, t, 67, k, 0, 67);
            cases.push(if probe && t != 3 { case.self_test() } else { case });
        }
    }
    for (dtype, t) in [(DType::F16, 2), (DType::Q4K, 2), (DType::Q4_1, 4), (DType::Q6K, 4)] {
        cases.push(case(format!("{dtype} T={t}"), dtype, t, 67, 512, 0, 67).self_test());
    }
    // A workgroup computes two of them, one, and eight though rows are long; sooner or later fewer where more workgroups are wanted.
    cases.push(case("a few rows, T=3".into(), DType::F32, 3, 5, 264, 0, 5).self_test());
    cases.push(case("a few long rows, T=2".into(), DType::F32, 2, 3, 1000, 0, 3));
    cases.push(case("many long rows, T=1".into(), DType::Q4_1, 1, 1027, 544, 0, 1027));
    cases.push(case("one output".into(), DType::F32, 1, 1, 8, 0, 1));
    cases.push(case("a column block, vec".into(), DType::Q8_0, 2, 33, 64, 20, 60));
    cases.push(case("a column block, tiled".into(), DType::F16, 33, 33, 40, 20, 60));
    cases.push(case("several tiles".into(), DType::F16, 67, 131, 72, 0, 131));
    cases.push(case("more than 65535 groups".into(), DType::Q4_0, 1, 530_000, 32, 0, 530_000));
    for dtype in [DType::F16, DType::Q4_0, DType::Q4_1, DType::Q8_0, DType::Q4K, DType::Q6K] {
        for t in [1u64, 4, 256] {
            let flops = 2 * t * 2048 * 2048;
            let name = format!("bench {dtype} {t} x 2048 x 2048");
            cases.push(case(name, dtype, t as usize, 2048, 2048, 0, 2048).bench(flops));
        }
    }
    cases
}

/// Products of `t` rows with `n` rows of `k` elements, in every element type of weights.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn trials(rows: &[usize], (n, k): (usize, usize)) -> Vec<Case> {
    let all = WEIGHT_DTYPES.iter().filter(|d| k.is_multiple_of(d.block_len()));
    all.flat_map(|&d| rows.iter().map(move |&t| case(format!("{d} {t} x {n} x {k}"), d, t, n, k, 0, n))).collect()
}

fn case(name: String, dtype: DType, t: usize, n: usize, k: usize, col0: u32, ldy: usize) -> Case {
    let row_bytes = dtype.bytes_for(k).unwrap_or(0) as u32;
    let params = Params { t: t as u32, n: n as u32, k: k as u32, ldy: ldy as u32, col0, row_bytes };
    let bound = (k as f64).sqrt();
    let mut case = Case::new(
        name,
        vec![
            (DType::F32, vec![t, k], Fill::Normal(1.0)),
            (dtype, vec![n, k], Fill::Normal(1.0)),
            (DType::F32, vec![t, ldy], Fill::Values(vec![7.0])),
        ],
        &params,
        Tolerance { atol: 4e-6 * bound, rtol: 1e-5 },
    );
    // Activations in 8 bits: half a step of 1/127 of the block's largest value, random signs.
    case.quantized_tolerance = Some(Tolerance { atol: 0.04 * bound, rtol: 1e-2 });
    case
}
