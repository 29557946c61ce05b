//! Linear layers of a mixture of experts: each row of the result is the product with one expert's matrix.
//!
//! `y[r, n] = Σₖ x[r / share, k] · w[ids[r], n, k]`. The experts' matrices lie one after the other: `w` is a shard, rows `row0 ..`, of a
//! weight `[E·N, K]`, of any element type, dequantised inside; this call writes the outputs whose rows are in the shard. `share` rows of
//! `y` use one row of `x`. f32 accumulation. Source: Shazeer et al. 2017; `Gemma4TextExperts` in transformers.

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
pub struct ExpertLinear;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Rows of `y`.
    pub r: u32,
    /// Rows of an expert's matrix.
    pub n: u32,
    /// Elements of a row, a multiple of 8.
    pub k: u32,
    /// Rows of `y` per row of `x`.
    pub share: u32,
    /// First row of this shard.
    pub row0: u32,
    /// Rows of this shard.
    pub rows: u32,
    /// Bytes of a weight row.
    pub row_bytes: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[R/share, K]"),
    Operand::read("w", WEIGHT_DTYPES, "[E·N, K]"),
    Operand::read("ids", &[DType::U32], "[R]"),
    Operand::read_write("y", &[DType::F32], "[R, N]"),
];

impl Kernel for ExpertLinear {
    fn name(&self) -> &'static str {
        "expert_linear"
    }

    fn formula(&self) -> &'static str {
        "y[r, n] = Σₖ x[r / share, k] · w[ids[r]·N + n − row0, k] where that row is in the shard"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [x, w, ids, y] = call.operands else {
            return Err(crate::Error::invalid("expert_linear: expected 4 operands"));
        };
        let (r, n, k) = (p.r as usize, p.n as usize, p.k as usize);
        ensure(self, k.is_multiple_of(8) && n > 0, || {
            format!("rows of {k}; expected a multiple of 8")
        })?;
        let shared = p.share > 0 && p.r.is_multiple_of(p.share);
        ensure(self, shared && x.elements() == r / p.share.max(1) as usize * k, || {
            format!("x {:?} for {r} rows, {} of each", x.shape, p.share)
        })?;
        ensure(self, w.last() == k && w.elements() / k.max(1) == p.rows as usize, || {
            format!("weight {:?} as [{}, {k}]", w.shape, p.rows)
        })?;
        check_row(self, w, p.row_bytes)?;
        ensure(self, ids.elements() == r && y.elements() == r * n, || {
            format!("ids {:?}, y {:?} for [{r}, {n}]", ids.shape, y.shape)
        })?;
        let groups = n.div_ceil(8) as u64 * u64::from(p.r);
        let mut plan = Plan::new("vec", include_str!("expert_linear.wgsl"), groups, caps)?;
        plan.wgsl.extend(dequant::wgsl(w.dtype).map(Into::into));
        Ok(plan)
    }

    fn cpu(&self) -> Option<fn(&mut CpuCall<'_, '_>)> {
        Some(cpu::run)
    }

    fn reference(&self, call: &Call<'_>, values: &mut [Vec<f64>]) {
        reference::run(&call.params(), values);
    }

    fn work(&self, _: &Call<'_>) -> Option<crate::Work> {
        None
    }

    fn cases(&self) -> Vec<Case> {
        cases::cases()
    }
}

/// `x` f32 `[R/share, K]` times the transposes of the matrices `[N, K]` that `ids` u32 (`R` of them) picks from `w` `[E·N, K]`: f32 `[R, N]`.
/// An id beyond the experts leaves its row undefined.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn expert_linear(rec: &mut Recorder, x: &Array, w: &Weight, ids: &Array, n: usize) -> Result<Array> {
    let r = ids.elements();
    let rows_x = (x.elements() / w.cols().max(1)).max(1);
    let y = rec.temp(DType::F32, &[r, n])?;
    for shard in w.shards() {
        let params = Params {
            r: r as u32,
            n: n as u32,
            k: w.cols() as u32,
            share: (r / rows_x) as u32,
            row0: shard.row0 as u32,
            rows: shard.array.shape()[0] as u32,
            row_bytes: w.row_bytes() as u32,
        };
        rec.call(&ExpertLinear, &[x, &shard.array, ids, &y], &params)?;
    }
    Ok(y)
}
