//! The SIMD product of [`crate::cpu::matmul`], rows of the weight split over the threads.
use super::Params;
use crate::cpu::matmul::{self, MatmulArgs, Rounding};
use crate::kernel::CpuCall;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    // With few tokens two 8-bit products cost little more than reading the weights; with many f32 products of dequantised panels
    // are faster than llama.cpp's integer ones. Neither moves a token.
    let rounding = match (c.cpu.exact, c.cpu.fast) {
        (true, _) => Rounding::Never,
        (false, true) => Rounding::Once,
        (false, false) => Rounding::Twice,
    };
    let args = MatmulArgs {
        dtype: c.call.operands[1].dtype,
        weight: c.reads[1],
        n: p.n as usize,
        k: p.k as usize,
        x: c.read::<f32>(0),
        t: p.t as usize,
        rounding,
        isa: c.cpu.isa,
    };
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let (ldy, col0) = (p.ldy as usize, p.col0 as usize);
    c.cpu.with_scratch(|scratch| matmul::run(&c.cpu.pool, &args, scratch, y, ldy, col0));
}
