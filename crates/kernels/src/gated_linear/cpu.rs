//! Both products of the prepared input in one job, then the activation element by element.
use super::Params;
use crate::cpu::matmul;
use crate::kernel::CpuCall;
use crate::linear::args;

/// Elements of a task: below this a second thread costs more than it brings.
const CHUNK: usize = 8192;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (n, k, t) = (p.n as usize, p.k as usize, p.t as usize);
    let products = [1, 2].map(|i| args(c, i, (n, k, t)));
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    c.cpu.with_scratch(|scratch| {
        let mut up = std::mem::take(&mut scratch.second);
        up.resize(t * n, 0.0);
        matmul::run_all(&c.cpu.pool, &products, scratch, &mut [&mut *y, &mut up]);
        let isa = c.cpu.isa;
        c.cpu.pool.for_chunks(y, CHUNK, |i, y| {
            crate::act::apply(isa, p.act, y);
            for (y, u) in y.iter_mut().zip(&up[i * CHUNK..]) {
                *y *= u;
            }
        });
        scratch.second = up;
    });
}
