//! Every pooling over ragged, single, empty and cut spans; negative numbers for the maximum.
use super::{Params, Pool};
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for pool in [Pool::Mean, Pool::MeanSqrtLen, Pool::Max, Pool::WeightedMean] {
        let mut add = |name: &str, rows, d, spans: &[u32], x| cases.push(case(&format!("{pool:?} {name}"), pool, rows, d, spans, x));
        add("ragged 3 + 1 + 7", 11, 65, &[0, 3, 3, 4, 4, 11], Fill::Normal(1.0));
        add("empty and cut", 5, 8, &[2, 2, 4, 1, 3, 900], Fill::Normal(1.0));
        add("negative", 4, 3, &[0, 4], Fill::Values(vec![-3.0, -1.0, -2.0, -5.0]));
    }
    cases[0].self_test = true;
    cases.push(case("bench 32 x 128 x 768", Pool::Mean, 4096, 768, &(0..32).flat_map(|i| [i * 128, i * 128 + 128]).collect::<Vec<_>>(), Fill::Normal(1.0)).bench(4096 * 768));
    cases
}

fn case(name: &str, pool: Pool, rows: usize, d: usize, spans: &[u32], x: Fill) -> Case {
    let b = spans.len() / 2;
    Case::new(
        name,
        vec![
            (DType::F32, vec![rows, d], x),
            (DType::U32, vec![b, 2], Fill::Words(spans.to_vec())),
            (DType::F32, vec![b, d], Fill::Values(vec![9.0])),
        ],
        &Params { b: b as u32, rows: rows as u32, d: d as u32, pool: pool as u32 },
        Tolerance { atol: 1e-5, rtol: 1e-5 },
    )
}
