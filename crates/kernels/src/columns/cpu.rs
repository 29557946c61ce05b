//! Row by row, as words.
use super::Params;
use crate::kernel::CpuCall;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (ldx, n, first) = (p.ldx as usize, p.n as usize, p.first as usize);
    let x = c.read::<u32>(0);
    let y: &mut [u32] = bytemuck::cast_slice_mut(c.writes[0]);
    for (y, x) in y.chunks_exact_mut(n).zip(x.chunks_exact(ldx)) {
        y.copy_from_slice(&x[first..first + n]);
    }
}
