//! Embedding gather: rows of a table of any element type, scaled.
//!
//! `out[t, :] = scale * table[ids[t] - row0, :]` for the ids this shard of the table holds; other rows of `out` stay as
//! they are, so a table sharded by rows is gathered by one call per shard. Ids are checked by the caller: an id outside
//! every shard leaves its row untouched. Also gathers rows of activations (the last position before the head).
//! Source: `torch.nn.functional.embedding`.

mod cases;
mod cpu;
mod reference;

use crate::dequant::{self, WEIGHT_DTYPES};
use crate::linear::check_row;
use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result, Weight};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct Embed;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Tokens.
    pub t: u32,
    /// Elements of a row, a multiple of 8.
    pub k: u32,
    /// Rows in this shard.
    pub rows: u32,
    /// Id of the shard's first row.
    pub row0: u32,
    /// Factor of every element.
    pub scale: f32,
    /// Bytes of a table row.
    pub row_bytes: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("ids", &[DType::U32], "[T]"),
    Operand::read("w", WEIGHT_DTYPES, "[V, K]"),
    Operand::read_write("out", &[DType::F32], "[T, K]"),
];

impl Kernel for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn formula(&self) -> &'static str {
        "out[t, :] = scale · w[ids[t] − row0, :] where that row is in the shard"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [ids, w, out] = call.operands else { return ensure_none(self) };
        let (t, k) = (p.t as usize, p.k as usize);
        ensure(self, k.is_multiple_of(8), || format!("rows of {k} elements; expected a multiple of 8"))?;
        ensure(self, w.last() == k && w.elements() / k == p.rows as usize, || {
            format!("table {:?} for {} rows of {k}", w.shape, p.rows)
        })?;
        check_row(self, w, p.row_bytes)?;
        ensure(self, ids.elements() >= t && out.elements() == t * k, || {
            format!("{t} ids from {:?} into {:?}", ids.shape, out.shape)
        })?;
        let groups = (t * k / 8).div_ceil(64) as u64;
        let mut plan = Plan::new("gather", include_str!("embed.wgsl"), groups, caps)?;
        plan.wgsl.extend(dequant::wgsl(w.dtype).map(Into::into));
        Ok(plan)
    }

    fn cpu(&self) -> Option<fn(&mut CpuCall<'_, '_>)> {
        Some(cpu::run)
    }

    fn reference(&self, call: &Call<'_>, values: &mut [Vec<f64>]) {
        reference::run(&call.params(), values);
    }

    fn work(&self, call: &Call<'_>) -> Option<crate::Work> {
        let p: Params = call.params();
        let row = u64::from(p.row_bytes) + 4 * u64::from(p.k);
        Some(crate::Work { bytes: u64::from(p.t) * row, flops: 0 })
    }

    fn cases(&self) -> Vec<Case> {
        cases::cases()
    }
}

fn ensure_none(kernel: &dyn Kernel) -> Result<Plan> {
    Err(crate::Error::invalid(format!("{}: wrong number of operands", kernel.name())))
}

/// Gathers `ids` (u32 `[T]`) from `table` and multiplies by `scale`: f32 `[T, K]`.
///
/// # Errors
/// `InvalidInput` if `K` is not a multiple of 8, or as [`Recorder::call`].
pub fn embed(rec: &mut Recorder, ids: &Array, table: &Weight, scale: f32) -> Result<Array> {
    let out = rec.temp(DType::F32, &[ids.elements(), table.cols()])?;
    embed_into(rec, ids, (table, 0), scale, &out)?;
    Ok(out)
}

/// Writes `scale` times row `id - first` of `table` into `out` `[T, K]` for every id of `first .. first + V`; the other rows of
/// `out` stay as they are. So several tables can stand side by side in one space of ids.
///
/// # Errors
/// As [`embed`].
pub fn embed_into(rec: &mut Recorder, ids: &Array, (table, first): (&Weight, u32), scale: f32, out: &Array) -> Result<()> {
    for shard in table.shards() {
        let params = Params {
            t: ids.elements() as u32,
            k: table.cols() as u32,
            rows: shard.array.shape()[0] as u32,
            row0: first + shard.row0 as u32,
            scale,
            row_bytes: table.row_bytes() as u32,
        };
        rec.call(&Embed, &[ids, &shard.array, out], &params)?;
    }
    Ok(())
}
