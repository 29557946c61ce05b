//! One vector out of the rows of a span: the pooling that makes a sentence's embedding of its tokens'.
//!
//! Row `i` of the output is, over the rows `begin ≤ r < end` of `spans[i] = (begin, end)` and for each column: their mean, their sum
//! over the square root of their number, their maximum, or the mean with weights 1, 2, 3, …. An empty span gives zeroes.
//! Source: `sentence_transformers.models.Pooling`.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct SpanPool;

/// How the rows become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Pool {
    /// Their mean.
    Mean = 0,
    /// Their sum over the square root of their number.
    MeanSqrtLen = 1,
    /// The largest number of each column.
    Max = 2,
    /// Their mean with weights 1, 2, 3, … in their order.
    WeightedMean = 3,
}

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Spans.
    pub b: u32,
    /// Rows of `x`; ends of spans beyond it are cut.
    pub rows: u32,
    /// Elements of a row.
    pub d: u32,
    /// A [`Pool`].
    pub pool: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[T, D]"),
    Operand::read("spans", &[DType::U32], "[B, 2]"),
    Operand::write("y", &[DType::F32], "[B, D]"),
];

impl Kernel for SpanPool {
    fn name(&self) -> &'static str {
        "span_pool"
    }

    fn formula(&self) -> &'static str {
        "y[i, :] = mean (or sum/√n, max, weighted mean) of x[begin..end, :]"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [x, spans, y] = call.operands else {
            return Err(crate::Error::invalid("span_pool: expected 3 operands"));
        };
        let (b, rows, d) = (p.b as usize, p.rows as usize, p.d as usize);
        ensure(self, p.pool <= 3, || format!("pooling {}", p.pool))?;
        ensure(self, rows.checked_mul(d) == Some(x.elements()), || format!("x {:?} as [{rows}, {d}]", x.shape))?;
        let fits = b.checked_mul(d) == Some(y.elements()) && spans.elements() >= 2 * b;
        ensure(self, fits, || format!("spans {:?}, y {:?} for {b} spans of rows of {d}", spans.shape, y.shape))?;
        Plan::new("column", include_str!("span_pool.wgsl"), (b * d).div_ceil(64) as u64, caps)
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

/// Pools the rows of `x` f32 `[T, D]` over `spans` u32 `[B, 2]` (first row and one past the last): f32 `[B, D]`.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn span_pool(rec: &mut Recorder, x: &Array, spans: &Array, pool: Pool) -> Result<Array> {
    let d = x.shape().last().copied().unwrap_or(1).max(1);
    let b = spans.elements() / 2;
    let y = rec.temp(DType::F32, &[b, d])?;
    let params = Params { b: b as u32, rows: (x.elements() / d) as u32, d: d as u32, pool: pool as u32 };
    rec.call(&SpanPool, &[x, spans, &y], &params)?;
    Ok(y)
}
