//! Every element type, weights of two types, odd sizes, one output, every activation.
use super::Params;
use crate::act::Activation;
use crate::dequant::WEIGHT_DTYPES;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, &dtype) in WEIGHT_DTYPES.iter().enumerate() {
        let block = dtype.block_len().max(8);
        let k = if block == 256 { 512 } else { block * 5 };
        let probe = dtype == DType::Q4_1 || dtype == DType::F32;
        for t in [1, 3] {
            let act = Activation::ALL[i % Activation::ALL.len()];
            let case = case(format!("{dtype} T={t}"), [dtype; 2], (t, 67, k), act);
            cases.push(if probe && t == 1 { case.self_test() } else { case });
        }
    }
    for act in Activation::ALL {
        cases.push(case(format!("{act:?}"), [DType::F32; 2], (2, 9, 40), act));
    }
    let two = [DType::Q4K, DType::Q6K];
    cases.push(case("weights of two types".into(), two, (2, 35, 512), Activation::Silu));
    cases.push(case("a few rows".into(), [DType::F32; 2], (3, 5, 264), Activation::Relu));
    cases.push(case("a few long rows".into(), [DType::Q4_1; 2], (2, 3, 544), Activation::Silu).self_test());
    cases.push(case("one output".into(), [DType::F32; 2], (1, 1, 8), Activation::Silu));
    for t in [2, 4, 5, 8] {
        cases.push(case(format!("{t} rows of x"), two, (t, 35, 512), Activation::Silu));
    }
    cases.push(case("many rows of x".into(), [DType::Q8_0; 2], (37, 33, 64), Activation::GeluTanh));
    for dtype in [DType::F16, DType::Q4_0, DType::Q4_1, DType::Q8_0, DType::Q4K] {
        let name = format!("bench {dtype} 1 x 2 x 2048 x 2048");
        cases.push(case(name, [dtype; 2], (1, 2048, 2048), Activation::Silu).bench(4 * 2048 * 2048));
    }
    cases
}

fn case(name: String, types: [DType; 2], (t, n, k): (usize, usize, usize), act: Activation) -> Case {
    let bytes = types.map(|d| d.bytes_for(k).unwrap_or(0) as u32);
    let params = Params {
        t: t as u32,
        n: n as u32,
        k: k as u32,
        act: act as u32,
        row_bytes: bytes[0],
        row_bytes_up: bytes[1],
    };
    // Products of about 1, so that the activation is used where it bends.
    let (scale, bound) = (1.0 / (k as f32).sqrt(), 1.0);
    let mut case = Case::new(
        name,
        vec![
            (DType::F32, vec![t, k], Fill::Normal(scale)),
            (types[0], vec![n, k], Fill::Normal(1.0)),
            (types[1], vec![n, k], Fill::Normal(1.0)),
            (DType::F32, vec![t, n], Fill::Values(vec![7.0])),
        ],
        &params,
        Tolerance { atol: 2e-5 * bound, rtol: 1e-5 },
    );
    // Activations in 8 bits: half a step of 1/127 of the block's largest value on either side of the product.
    case.quantized_tolerance = Some(Tolerance { atol: 0.15 * bound, rtol: 2e-2 });
    case
}
