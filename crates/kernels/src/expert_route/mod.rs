//! Which experts a token goes to, and with what weight.
//!
//! Of `logits[t]` the `K` largest (of equal ones the first), in falling order: `ids[t, j]`. Their weights are the softmax over all experts, divided
//! by the sum over the chosen ones, times the expert's own factor: `w[t, j] = exp(l_j − l_0) / Σ exp(l − l_0) · scale[ids[t, j]]`; what the
//! softmax divides by cancels out. A NaN among the logits makes weights NaN. Source: Shazeer et al. 2017; `Gemma4TextRouter` in
//! transformers.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct ExpertRoute;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Tokens.
    pub t: u32,
    /// Experts.
    pub e: u32,
    /// Experts chosen per token.
    pub k: u32,
}

/// Experts chosen at most.
pub const MAX_CHOSEN: usize = 32;

const OPERANDS: &[Operand] = &[
    Operand::read("logits", &[DType::F32], "[T, E]"),
    Operand::read("scale", &[DType::F32], "[E]"),
    Operand::write("ids", &[DType::U32], "[T, K]"),
    Operand::write("w", &[DType::F32], "[T, K]"),
];

impl Kernel for ExpertRoute {
    fn name(&self) -> &'static str {
        "expert_route"
    }

    fn formula(&self) -> &'static str {
        "ids, w = the K largest of softmax(logits), renormalised · scale[ids]"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [logits, scale, ids, w] = call.operands else {
            return Err(crate::Error::invalid("expert_route: expected 4 operands"));
        };
        let (t, e, k) = (p.t as usize, p.e as usize, p.k as usize);
        ensure(self, (1..=e.min(MAX_CHOSEN)).contains(&k), || {
            format!("{k} of {e} experts; at least 1, at most {MAX_CHOSEN}")
        })?;
        ensure(self, logits.elements() == t * e && scale.elements() == e, || {
            format!("logits {:?}, scale {:?} for {t} tokens and {e} experts", logits.shape, scale.shape)
        })?;
        ensure(self, ids.elements() == t * k && w.elements() == t * k, || {
            format!("ids {:?}, w {:?} for {t} tokens and {k} chosen", ids.shape, w.shape)
        })?;
        let groups = u64::from(p.t).div_ceil(64);
        Plan::new("token", include_str!("expert_route.wgsl"), groups, caps)
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

/// Chooses `k` experts per token by `logits` f32 `[T, E]`, whose weights are multiplied by `scale` f32 `[E]`: ids u32 and weights f32,
/// both `[T, K]`.
///
/// # Errors
/// `InvalidInput` if `k` is 0, above `E` or [`MAX_CHOSEN`], or as [`Recorder::call`].
pub fn expert_route(rec: &mut Recorder, logits: &Array, scale: &Array, k: usize) -> Result<(Array, Array)> {
    let e = scale.elements().max(1);
    let t = logits.elements() / e;
    let ids = rec.temp(DType::U32, &[t, k])?;
    let w = rec.temp(DType::F32, &[t, k])?;
    let params = Params { t: t as u32, e: e as u32, k: k as u32 };
    rec.call(&ExpertRoute, &[logits, scale, &ids, &w], &params)?;
    Ok((ids, w))
}
