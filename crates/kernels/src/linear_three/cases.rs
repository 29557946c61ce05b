//! Every element type, weights of three types, odd sizes, one output each.
use super::Params;
use crate::dequant::WEIGHT_DTYPES;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &dtype in WEIGHT_DTYPES {
        let block = dtype.block_len().max(8);
        let k = if block == 256 { 512 } else { block * 5 };
        let probe = dtype == DType::Q4_1 || dtype == DType::F32;
        for t in [1, 3] {
            let case = case(format!("{dtype} T={t}"), [dtype; 3], t, [67, 17, 9], k);
            cases.push(if probe && t == 1 { case.self_test() } else { case });
        }
    }
    let three = [DType::Q4K, DType::Q4K, DType::Q6K];
    cases.push(case("weights of two types".into(), three, 2, [35, 16, 16], 512));
    for t in [2, 4, 5, 8] {
        cases.push(case(format!("{t} rows of x"), three, t, [35, 16, 17], 512));
    }
    let three = [DType::Q5_0, DType::F16, DType::Q8_0];
    cases.push(case("weights of three types".into(), three, 1, [8, 8, 8], 96));
    cases.push(case("a few rows".into(), [DType::F32; 3], 3, [5, 3, 1], 264));
    cases.push(case("a few long rows".into(), [DType::Q4_1; 3], 2, [3, 1, 2], 544).self_test());
    cases.push(case("one output each".into(), [DType::F32; 3], 1, [1, 1, 1], 8));
    cases.push(case("many rows of x".into(), [DType::Q8_0; 3], 37, [33, 11, 11], 64));
    for dtype in [DType::F16, DType::Q4_0, DType::Q4_1, DType::Q8_0, DType::Q4K] {
        let name = format!("bench {dtype} 1 x (2048 + 512 + 512) x 2048");
        cases.push(case(name, [dtype; 3], 1, [2048, 512, 512], 2048).bench(2 * 3072 * 2048));
    }
    cases
}

fn case(name: String, types: [DType; 3], t: usize, n: [usize; 3], k: usize) -> Case {
    let params = Params {
        t: t as u32,
        k: k as u32,
        n: n.map(|n| n as u32),
        row_bytes: types.map(|d| d.bytes_for(k).unwrap_or(0) as u32),
    };
    let bound = (k as f64).sqrt();
    let mut operands = vec![(DType::F32, vec![t, k], Fill::Normal(1.0))];
    operands.extend(types.into_iter().zip(n).map(|(d, n)| (d, vec![n, k], Fill::Normal(1.0))));
    operands.extend(n.map(|n| (DType::F32, vec![t, n], Fill::Values(vec![7.0]))));
    let mut case = Case::new(name, operands, &params, Tolerance { atol: 4e-6 * bound, rtol: 1e-5 });
    // As `linear`'s.
    case.quantized_tolerance = Some(Tolerance { atol: 0.04 * bound, rtol: 1e-2 });
    case
}
