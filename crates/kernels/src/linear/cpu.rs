//! The SIMD product of [`crate::cpu::matmul`], rows of the weight split over the threads.
use super::Params;
use crate::cpu::matmul::{self, MatmulArgs, Rounding};
use crate::kernel::CpuCall;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let args = args(c, 1, (p.n as usize, p.k as usize, p.t as usize));
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let (ldy, col0) = (p.ldy as usize, p.col0 as usize);
    c.cpu.with_scratch(|scratch| matmul::run(&c.cpu.pool, &args, scratch, y, ldy, col0));
}

/// The product of operand 0, `[t, k]`, and the weight in operand `w`, `[n, k]`.
pub(crate) fn args<'a>(
    c: &CpuCall<'_, 'a>,
    w: usize,
    (n, k, t): (usize, usize, usize),
) -> MatmulArgs<'a> {
    // Two 8-bit products cost little more than reading the weights with few tokens, and less than one in f32 with many where the
    // processor is made for them. Neither moves a token.
    let rounding = match (c.cpu.exact, c.cpu.fast) {
        (true, _) => Rounding::Never,
        (false, true) => Rounding::Once,
        (false, false) => Rounding::Twice,
    };
    MatmulArgs {
        dtype: c.call.operands[w].dtype,
        weight: c.reads[w],
        n,
        k,
        x: c.read::<f32>(0),
        t,
        rounding,
        isa: c.cpu.isa,
        task_work: c.tuning.get(&matmul::TASK_WORK, c.call.operands[w].dtype) as usize,
        share: c.offer(w),
    }
}
