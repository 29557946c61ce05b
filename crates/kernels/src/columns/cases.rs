//! Both kinds, first and last columns, all of them, one element, more than 65,535 workgroups.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("f32, in the middle", DType::F32, 5, 70, 3, 33).self_test(),
        case("u32, positions", DType::U32, 37, 2, 1, 1).self_test(),
        case("the last columns", DType::F32, 2, 129, 128, 1),
        case("all columns", DType::F32, 3, 17, 0, 17),
        case("one element", DType::U32, 1, 1, 0, 1),
        case("more than 65535 groups", DType::F32, 65_536, 66, 1, 65),
    ]
}

fn case(name: &str, dtype: DType, rows: usize, ldx: usize, first: u32, n: usize) -> Case {
    let fill = match dtype {
        DType::U32 => Fill::Words((0..997).map(|i| i * 7919).collect()),
        _ => Fill::Values((0..997).map(|i| i as f32 * 0.37 - 100.0).collect()),
    };
    let params = Params { rows: rows as u32, ldx: ldx as u32, first, n: n as u32 };
    let operands = vec![(dtype, vec![rows, ldx], fill), (dtype, vec![rows, n], Fill::Words(vec![9]))];
    // Moved, not computed.
    Case::new(name, operands, &params, Tolerance { atol: 0.0, rtol: 0.0 })
}
