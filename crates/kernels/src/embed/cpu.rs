//! Rows are dequantised straight into the output.
use super::Params;
use crate::kernel::CpuCall;
use crate::dequant;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let dtype = c.call.operands[1].dtype;
    let ids = c.read::<u32>(0);
    let table = c.reads[1];
    let (k, row_bytes) = (p.k as usize, p.row_bytes as usize);
    let out: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    c.cpu.pool.for_chunks(out, k, |t, row| {
        let index = ids[t].wrapping_sub(p.row0);
        if index < p.rows {
            let start = index as usize * row_bytes;
            // The plan has checked that every row is there; a dtype without rows cannot reach this.
            if dequant::to_f32(dtype, &table[start..start + row_bytes], row).is_ok() {
                row.iter_mut().for_each(|v| *v *= p.scale);
            }
        }
    });
}
