//! The three products of the prepared input, in one job where their types prepare it in the same way.
use super::Params;
use crate::cpu::matmul;
use crate::kernel::CpuCall;
use crate::linear::args;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let products = [0, 1, 2].map(|i| args(c, i + 1, (p.n[i] as usize, p.k as usize, p.t as usize)));
    let [q, k, v] = &mut c.writes[..] else { return };
    let outs = &mut [q, k, v].map(|y| bytemuck::cast_slice_mut::<u8, f32>(y));
    c.cpu.with_scratch(|scratch| matmul::run_all(&c.cpu.pool, &products, scratch, outs));
}
