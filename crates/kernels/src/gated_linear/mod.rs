//! The first half of a gated feed-forward block in one: two products of the same input, the activation, their product.
//!
//! `y[t, n] = act(Σₖ x[t, k] · w[n, k]) · Σₖ x[t, k] · w_up[n, k]`, weights of any element types, dequantised inside. f32
//! accumulation. For few rows of `x`: with many, tiles of each product ([`crate::linear`]) win. Source: Shazeer 2020 (GLU variants).
//!
//! Variants: `vec` (a few lanes of a workgroup share a row of the weights), `vec_subgroup` (subgroups take rows).

mod cases;
mod cpu;
mod reference;

use crate::dequant::{self, WEIGHT_DTYPES};
use crate::gated_act::{Activation, gated_act};
use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::linear::{check_product, few_rows, linear, one_call};
use crate::{Array, Recorder, Result, Weight};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct GatedLinear;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Rows of `x`.
    pub t: u32,
    /// Rows of either weight.
    pub n: u32,
    /// Elements of a row, a multiple of 8.
    pub k: u32,
    /// An [`Activation`].
    pub act: u32,
    /// Bytes of a row of `w`.
    pub row_bytes: u32,
    /// Bytes of a row of `w_up`.
    pub row_bytes_up: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[T, K]"),
    Operand::read("w", WEIGHT_DTYPES, "[N, K]"),
    Operand::read("w_up", WEIGHT_DTYPES, "[N, K]"),
    Operand::write("y", &[DType::F32], "[T, N]"),
];

impl Kernel for GatedLinear {
    fn name(&self) -> &'static str {
        "gated_linear"
    }

    fn formula(&self) -> &'static str {
        "y[t, n] = act(Σₖ x[t, k] · w[n, k]) · Σₖ x[t, k] · w_up[n, k]"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [x, w, up, y] = call.operands else {
            return Err(crate::Error::invalid("gated_linear: expected 4 operands"));
        };
        let (t, n, k) = (p.t as usize, p.n as usize, p.k as usize);
        ensure(self, (p.act as usize) < Activation::ALL.len(), || format!("activation {}", p.act))?;
        check_product(self, (x, t), (w, n), k, p.row_bytes)?;
        check_product(self, (x, t), (up, n), k, p.row_bytes_up)?;
        ensure(self, y.elements() == t * n, || format!("y {:?} as [{t}, {n}]", y.shape))?;
        let wgsl =
            [include_str!("gated_linear_vec.wgsl"), include_str!("gated_linear_vec_subgroup.wgsl")];
        let mut plan = few_rows(wgsl, &[p.n], (p.t, p.k), (w.dtype, caps))?;
        plan.wgsl.extend([include_str!("store.wgsl").into(), crate::act::WGSL.into()]);
        plan.wgsl.extend(dequant::wgsl(w.dtype).map(Into::into));
        plan.wgsl.extend(dequant::wgsl_named(up.dtype, "_up").map(Into::into));
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
        let [t, n, k] = [p.t, p.n, p.k].map(u64::from);
        let weights = n * (u64::from(p.row_bytes) + u64::from(p.row_bytes_up));
        Some(crate::Work { bytes: weights + 4 * t * (n + k), flops: 4 * t * n * k })
    }

    fn cases(&self) -> Vec<Case> {
        cases::cases()
    }
}

/// `act(x · gateᵀ) · (x · upᵀ)` of `x` f32 `[T, K]`, f32 `[T, N]`: in one call where that is faster and nothing is added to the products.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn gated_linear(
    rec: &mut Recorder,
    x: &Array,
    gate: &Weight,
    up: &Weight,
    act: Activation,
) -> Result<Array> {
    let t = x.elements() / gate.cols().max(1);
    let alike = gate.rows() == up.rows() && gate.cols() == up.cols();
    let one = alike && one_call(rec, x, &[gate, up])?;
    let ([w], [w_up], true) = (gate.shards(), up.shards(), one) else {
        let (gate, up) = (linear(rec, x, gate)?, linear(rec, x, up)?);
        return gated_act(rec, &gate, &up, act);
    };
    let y = rec.temp(DType::F32, &[t, gate.rows()])?;
    let params = Params {
        t: t as u32,
        n: gate.rows() as u32,
        k: gate.cols() as u32,
        act: act as u32,
        row_bytes: gate.row_bytes() as u32,
        row_bytes_up: up.row_bytes() as u32,
    };
    rec.call(&GatedLinear, &[x, &w.array, &w_up.array, &y], &params)?;
    Ok(y)
}
