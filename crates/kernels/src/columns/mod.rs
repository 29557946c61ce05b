//! Some columns of a matrix.
//!
//! `y[r, :] = x[r, first .. first + n]`, of 32-bit elements of either kind. For a slice of what one product gives for all layers, and
//! for the positions in `rows`. Source: `torch.narrow`.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct Columns;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Rows.
    pub rows: u32,
    /// Columns of `x`.
    pub ldx: u32,
    /// First column taken.
    pub first: u32,
    /// Columns taken.
    pub n: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32, DType::U32], "[R, LDX]"),
    Operand::write("y", &[DType::F32, DType::U32], "[R, N]"),
];

impl Kernel for Columns {
    fn name(&self) -> &'static str {
        "columns"
    }

    fn formula(&self) -> &'static str {
        "y[r, :] = x[r, first .. first + n]"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let (x, y) = (&call.operands[0], &call.operands[1]);
        let (rows, ldx, n) = (u64::from(p.rows), u64::from(p.ldx), u64::from(p.n));
        ensure(self, u64::from(p.first) + n <= ldx, || {
            format!("{n} columns from {} of {ldx}", p.first)
        })?;
        let fits = x.elements() as u64 == rows * ldx && y.elements() as u64 == rows * n;
        ensure(self, fits && x.dtype == y.dtype, || {
            format!("{} {:?} into {} {:?} for {rows} rows", x.dtype, x.shape, y.dtype, y.shape)
        })?;
        let groups = (rows * n).div_ceil(64);
        let mut plan = Plan::new("flat", include_str!("columns.wgsl"), groups, caps)?;
        plan.aliases.push(("E", if x.dtype == DType::U32 { "u32" } else { "f32" }));
        Ok(plan)
    }

    fn cpu(&self) -> Option<fn(&mut CpuCall<'_, '_>)> {
        Some(cpu::run)
    }

    fn reference(&self, call: &Call<'_>, values: &mut [Vec<f64>]) {
        reference::run(&call.params(), values);
    }

    fn cases(&self) -> Vec<Case> {
        cases::cases()
    }
}

/// The columns `first .. first + n` of `x` f32 or u32 `[R, LDX]`: `[R, n]`.
///
/// # Errors
/// `InvalidInput` if `x` has fewer columns, or as [`Recorder::call`].
pub fn columns(rec: &mut Recorder, x: &Array, first: usize, n: usize) -> Result<Array> {
    let (rows, _) = table(x);
    let y = rec.temp(x.dtype(), &[rows, n])?;
    columns_into(rec, x, first, &y)?;
    Ok(y)
}

/// As [`columns`], into `y` `[R, n]`: a part of another array, as [`Array::rows`] gives it.
///
/// # Errors
/// As [`columns`].
pub fn columns_into(rec: &mut Recorder, x: &Array, first: usize, y: &Array) -> Result<()> {
    let (rows, ldx) = table(x);
    let n = y.elements() / rows.max(1);
    let params = Params { rows: rows as u32, ldx: ldx as u32, first: first as u32, n: n as u32 };
    rec.call(&Columns, &[x, y], &params)
}

/// Rows and columns.
fn table(x: &Array) -> (usize, usize) {
    let ldx = x.shape().last().copied().unwrap_or(1).max(1);
    (x.elements() / ldx, ldx)
}
