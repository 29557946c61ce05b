//! One sequence, ragged batches, empty and overlapping spans, windows, grouped heads, fused projections, cross-attention,
//! every head size of the families; scores so large that a softmax without its maximum would overflow.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        separate("one token, one key", 2, 2, 16, 1, &[(0, 1)]),
        separate("one token, 150 keys, 5 heads", 5, 5, 16, 150, &[(3, 150)]),
        separate("one token, no key", 3, 1, 8, 4, &[(2, 2)]),
        separate("7 tokens", 4, 4, 16, 7, &batch(&[7])).self_test(),
        separate("ragged 3 + 5 + 1", 4, 4, 32, 9, &batch(&[3, 5, 1])).self_test(),
        separate("ragged 131 + 2", 3, 3, 32, 133, &batch(&[131, 2])),
        separate("grouped heads", 6, 2, 8, 13, &batch(&[6, 7])),
        separate("empty spans", 2, 2, 8, 6, &[(0, 6), (3, 3), (5, 2), (0, 6), (2, 4)]),
        separate("ends beyond the keys", 2, 2, 8, 6, &[(0, 60), (4, 4_000_000_000)]),
        separate("cross-attention, 2 tokens over 150 keys", 2, 2, 64, 150, &[(0, 150), (0, 150)]),
        separate("windows of 9", 2, 2, 16, 40, &(0..40u32).map(|i| (i.saturating_sub(4), (i + 5).min(40))).collect::<Vec<_>>()),
        separate("rows of a cache with gaps", 2, 2, 16, 40, &[(0, 3), (0, 3), (20, 25), (20, 25), (20, 25)]),
        fused("fused projection", 4, 16, &batch(&[5, 9])).self_test(),
    ];
    for hd in [4, 12, 72, 80, 96, 128, 256, 512] {
        cases.push(separate(&format!("head of {hd}"), 2, 1, hd, 139, &batch(&[6, 133])));
    }
    let mut large = separate("large scores", 2, 2, 16, 9, &batch(&[9]));
    for operand in &mut large.operands[..2] {
        operand.2 = Fill::Normal(12.0);
    }
    // Scores of about 500: their roundings, 3e-5, are relative errors of the weights.
    large.tolerance = Tolerance { atol: 2e-4, rtol: 1e-3 };
    cases.push(large);
    let bench = separate("bench 4 x 128, 12 heads of 64", 12, 12, 64, 512, &batch(&[128; 4]));
    cases.push(bench.bench(4 * 4 * 12 * 64 * 128 * 128));
    let bench = separate("bench 4 x 128, 12 heads of 32", 12, 12, 32, 512, &batch(&[128; 4]));
    cases.push(bench.bench(4 * 4 * 12 * 32 * 128 * 128));
    cases
}

/// Every token sees its own sequence.
fn batch(lengths: &[u32]) -> Vec<(u32, u32)> {
    let mut spans = Vec::new();
    for n in lengths {
        let begin = spans.len() as u32;
        spans.extend((0..*n).map(|_| (begin, begin + n)));
    }
    spans
}

fn separate(name: &str, nh: usize, nkv: usize, hd: usize, s: usize, spans: &[(u32, u32)]) -> Case {
    let (q, kv) = (nh * hd, nkv * hd);
    case(name, [nh, nkv, hd, s], [q, kv, kv], [0; 3], spans)
}

/// Queries, keys and values in one row, the values first.
fn fused(name: &str, nh: usize, hd: usize, spans: &[(u32, u32)]) -> Case {
    let n = nh * hd;
    case(name, [nh, nh, hd, spans.len()], [3 * n; 3], [n, 2 * n, 0], spans)
}

fn case(name: &str, [nh, nkv, hd, s]: [usize; 4], strides: [usize; 3], first: [usize; 3], spans: &[(u32, u32)]) -> Case {
    let t = spans.len();
    let normal = || Fill::Normal(1.0);
    Case::new(
        name,
        vec![
            (DType::F32, vec![t, strides[0]], normal()),
            (DType::F32, vec![s, strides[1]], normal()),
            (DType::F32, vec![s, strides[2]], normal()),
            (DType::U32, vec![t, 2], Fill::Words(spans.iter().flat_map(|s| [s.0, s.1]).collect())),
            (DType::F32, vec![t, nh * hd], Fill::Values(vec![9.0])),
        ],
        &Params {
            t: t as u32,
            nh: nh as u32,
            nkv: nkv as u32,
            hd: hd as u32,
            s: s as u32,
            stride: strides.map(|n| n as u32),
            first: first.map(|n| n as u32),
            scale: (hd as f32).powf(-0.5),
        },
        Tolerance { atol: 2e-5, rtol: 1e-4 },
    )
}
