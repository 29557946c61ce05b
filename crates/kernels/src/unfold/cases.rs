//! Sequences and grids, steps that leave cells out, zeros around, columns beyond the patch, batches, more than 65,535 workgroups.
use super::Params;
use crate::kernel::{Case, Fill};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("a sequence, kernel 3", 1, [11, 1], 5, [3, 1], [1, 1], [1, 0], 16).self_test(),
        case("a grid, step 2", 2, [7, 6], 3, [3, 3], [2, 2], [1, 1], 32).self_test(),
        case("a batch of sequences, step 2", 3, [10, 1], 8, [3, 1], [2, 1], [1, 0], 24),
        case("long and sparse, one channel", 2, [700, 1], 1, [127, 1], [64, 1], [0, 0], 128),
        case("one cell", 1, [1, 1], 1, [1, 1], [1, 1], [0, 0], 1),
        case("more zeros than cells", 1, [2, 3], 2, [5, 4], [1, 1], [4, 3], 40),
        case("more than 65535 groups", 1, [40_000, 1], 40, [3, 1], [1, 1], [1, 0], 120),
        case("bench 3000 x 80, kernel 3", 1, [3000, 1], 80, [3, 1], [1, 1], [1, 0], 240).bench(0),
    ]
}

#[allow(clippy::too_many_arguments)] // a row of a table
fn case(
    name: &str,
    b: u32,
    size: [u32; 2],
    c: u32,
    kernel: [u32; 2],
    stride: [u32; 2],
    pad: [u32; 2],
    ldy: u32,
) -> Case {
    let out = [0, 1].map(|i| (size[i] + 2 * pad[i] - kernel[i]) / stride[i] + 1);
    let x = vec![b as usize, size[0] as usize, size[1] as usize, c as usize];
    let y = vec![(b * out[0] * out[1]) as usize, ldy as usize];
    let fill = Fill::Values((0..997).map(|i| i as f32 * 0.37 - 100.0).collect());
    let operands = vec![(DType::F32, x, fill), (DType::F32, y, Fill::Values(vec![9.0]))];
    let params = Params { b, size, c, out, kernel, stride, pad, ldy };
    // Moved, not computed.
    Case::new(name, operands, &params, Tolerance { atol: 0.0, rtol: 0.0 })
}
