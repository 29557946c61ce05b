//! The SIMD product of [`crate::cpu::matmul`], rows of the weight split over the threads.
use super::Params;
use crate::cpu::matmul::{self, MatmulArgs};
use crate::kernel::CpuCall;

/// Up to this many tokens the weights' bytes are the cost, and activations are rounded to 8 bits; beyond it f32 products
/// of dequantised panels are fast enough (faster than llama.cpp's integer ones) and exact.
const ROUNDED: usize = 7;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let args = MatmulArgs {
        dtype: c.call.operands[1].dtype,
        weight: c.reads[1],
        n: p.n as usize,
        k: p.k as usize,
        x: c.read::<f32>(0),
        t: p.t as usize,
        exact: c.cpu.exact || (p.t as usize > ROUNDED && !c.cpu.fast),
        isa: c.cpu.isa,
    };
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let (ldy, col0) = (p.ldy as usize, p.col0 as usize);
    c.cpu.with_scratch(|scratch| matmul::run(&c.cpu.pool, &args, scratch, y, ldy, col0));
}
