//! Choosing the next token on the device.
//!
//! From `logits[b]`: the repetition penalty for every id with `counts[b, id] > 0` (`l > 0 ? l / r : l · r`); at temperature 0
//! the largest logit, lowest id first; else softmax(l / temperature) restricted to the `top_k` largest, then to the
//! smallest set of probability at least `top_p`, then to `p ≥ min_p · max p` (ties at a border stay in), and one draw from
//! a counter-based generator, so that the same seed, counter and logits give the same token on every run of a device.
//! `token[b]` is the id, or [`BAD_LOGITS`] if a logit is NaN or none is above −∞; `counts[b, id]` grows by one.
//! Source: Keskar et al. 2019 (penalty), Holtzman et al. 2020 (top-p), Nguyen et al. 2024 (min-p); `LogitsProcessor`s of
//! transformers, in their order.

mod cases;
mod cpu;
mod reference;
mod settings;

pub use settings::{BAD_LOGITS, SampleSettings, uniform};

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct Sample;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Sequences.
    pub b: u32,
    /// Logits of a sequence.
    pub v: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("logits", &[DType::F32], "[B, V]"),
    Operand::read("settings", &[DType::U32], "[B, 8]"),
    Operand::read_write("counts", &[DType::U32], "[B, V]"),
    Operand::write("token", &[DType::U32], "[B]"),
];

impl Kernel for Sample {
    fn name(&self) -> &'static str {
        "sample"
    }

    fn formula(&self) -> &'static str {
        "token ~ softmax(penalised logits / temperature) within top-k, top-p, min-p; argmax at temperature 0"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [logits, settings, counts, token] = call.operands else {
            return Err(crate::Error::invalid("sample: expected 4 operands"));
        };
        let n = p.b as usize * p.v as usize;
        ensure(self, logits.elements() == n && counts.elements() == n, || {
            format!("logits {:?}, counts {:?} for [{}, {}]", logits.shape, counts.shape, p.b, p.v)
        })?;
        ensure(self, settings.elements() >= 8 * p.b as usize && token.elements() >= p.b as usize, || {
            format!("settings {:?}, token {:?} for {} sequences", settings.shape, token.shape, p.b)
        })?;
        Plan::new("radix", include_str!("sample.wgsl"), u64::from(p.b), caps)
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

/// Samples from `logits` f32 `[B, V]` into `token` u32 `[B]`; `settings` u32 `[B, 8]` as [`SampleSettings::words`].
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn sample(
    rec: &mut Recorder,
    logits: &Array,
    settings: &Array,
    counts: &Array,
    token: &Array,
) -> Result<()> {
    let &[b, v] = logits.shape() else {
        return Err(crate::Error::invalid(format!("sample: logits {logits:?}, expected [B, V]")));
    };
    let params = Params { b: b as u32, v: v as u32 };
    rec.call(&Sample, &[logits, settings, counts, token], &params)
}
