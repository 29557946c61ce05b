//! Expert by expert: the rows of `x` that go to it, through the product of [`crate::cpu::matmul`].
use super::Params;
use crate::cpu::matmul::{self, MatmulArgs, Rounding};
use crate::kernel::CpuCall;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    // As for `linear`.
    let rounding = match (c.cpu.exact, c.cpu.fast) {
        (true, _) => Rounding::Never,
        (false, true) => Rounding::Once,
        (false, false) => Rounding::Twice,
    };
    let (n, k, share, row_bytes) = (p.n as usize, p.k as usize, p.share as usize, p.row_bytes as usize);
    let (row0, end) = (p.row0 as usize, p.row0 as usize + p.rows as usize);
    let (x, weight, ids) = (c.read::<f32>(0), c.reads[1], c.read::<u32>(2));
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_key(|&r| ids[r]);
    let (mut gathered, mut product) = (Vec::new(), Vec::new());
    for rows in order.chunk_by(|&a, &b| ids[a] == ids[b]) {
        let first = (ids[rows[0]] as usize).saturating_mul(n);
        // The part of this expert's rows that the shard holds.
        let (from, to) = (first.max(row0), first.saturating_add(n).min(end));
        if from >= to {
            continue;
        }
        gathered.clear();
        for r in rows {
            gathered.extend_from_slice(&x[r / share * k..][..k]);
        }
        let part = to - from;
        product.clear();
        product.resize(rows.len() * part, 0.0);
        let args = MatmulArgs {
            dtype: c.call.operands[1].dtype,
            weight: &weight[(from - row0) * row_bytes..(to - row0) * row_bytes],
            n: part,
            k,
            x: &gathered,
            t: rows.len(),
            rounding,
            isa: c.cpu.isa,
            task_work: c.tuning.get(&matmul::TASK_WORK, c.call.operands[1].dtype) as usize,
            share: None,
        };
        c.cpu.with_scratch(|scratch| matmul::run(&c.cpu.pool, &args, scratch, &mut product, part, 0));
        for (r, values) in rows.iter().zip(product.chunks_exact(part)) {
            y[r * n + from - first..][..part].copy_from_slice(values);
        }
    }
}
