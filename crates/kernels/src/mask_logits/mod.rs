//! Logits under a mask: the tokens a grammar does not allow become impossible.
//!
//! `logits[b, v]` stays where bit `v mod 32` of `mask[b, ⌊v / 32⌋]` is set and becomes −∞ elsewhere, in place, before sampling. A
//! NaN stays too, so that damaged weights are seen whatever is allowed. Source: constrained decoding as in Willard & Louf 2023.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct MaskLogits;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Sequences.
    pub b: u32,
    /// Logits of a sequence.
    pub v: u32,
    /// The bits of −∞ (WGSL has no constant for it).
    pub low: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read_write("logits", &[DType::F32], "[B, V]"),
    Operand::read("mask", &[DType::U32], "[B, ⌈V/32⌉]"),
];

impl Kernel for MaskLogits {
    fn name(&self) -> &'static str {
        "mask_logits"
    }
    fn formula(&self) -> &'static str {
        "logits[b, v] = −∞ where bit v of mask[b] is 0"
    }
    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }
    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let (logits, mask) = (&call.operands[0], &call.operands[1]);
        let (b, v) = (u64::from(p.b), u64::from(p.v));
        let elements = logits.elements() as u64;
        ensure(self, elements == b * v, || {
            format!("logits {:?} for [{b}, {v}]", logits.shape)
        })?;
        ensure(
            self,
            mask.elements() as u64 == b * v.div_ceil(32),
            || format!("mask {:?} for {b} sequences of {v} bits", mask.shape),
        )?;
        Plan::new(
            "flat",
            include_str!("mask_logits.wgsl"),
            elements.div_ceil(64),
            caps,
        )
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

/// Words of a mask over `vocab` tokens.
pub fn mask_words(vocab: usize) -> usize {
    vocab.div_ceil(32)
}

/// Leaves of `logits` f32 `[B, V]` what `mask` u32 `[B, ⌈V/32⌉]` allows, bit `v mod 32` of word `⌊v / 32⌋` for token `v`.
///
/// # Errors
/// `InvalidInput` if the sizes do not fit, or as [`Recorder::call`].
pub fn mask_logits(rec: &mut Recorder, logits: &Array, mask: &Array) -> Result<()> {
    let &[b, v] = logits.shape() else {
        return Err(crate::Error::invalid(format!(
            "mask_logits: logits {logits:?}, expected [B, V]"
        )));
    };
    let params = Params {
        b: b as u32,
        v: v as u32,
        low: f32::NEG_INFINITY.to_bits(),
    };
    rec.call(&MaskLogits, &[logits, mask], &params)
}
