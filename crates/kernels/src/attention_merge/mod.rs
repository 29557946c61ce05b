//! The parts of [`attention_part`](crate::attention_part), put together.
//!
//! `out = Σᵢ exp(topᵢ − top) · accᵢ / Σᵢ exp(topᵢ − top) · totalᵢ` with `top = maxᵢ topᵢ`, for each head. A part without keys has the
//! lowest `top` and `total = 0`, and counts for nothing. Source: Milakov & Gimelshein 2018; Dao et al. 2023.

mod cases;
mod reference;

use crate::kernel::{Call, Caps, Case, Kernel, Operand, Plan, ensure, times};
use crate::Result;
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct AttentionMerge;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Heads of all tokens, `T·NH`.
    pub heads: u32,
    /// Elements of a head, a multiple of 4.
    pub hd: u32,
    /// Parts of each.
    pub parts: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("parts", &[DType::F32], "[T, NH, P, HD + 4]"),
    Operand::write("out", &[DType::F32], "[T, NH·HD]"),
];

impl Kernel for AttentionMerge {
    fn name(&self) -> &'static str {
        "attention_merge"
    }

    fn formula(&self) -> &'static str {
        "out = Σᵢ exp(topᵢ − top) · accᵢ / Σᵢ exp(topᵢ − top) · totalᵢ"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [parts, out] = call.operands else {
            return Err(crate::Error::invalid("attention_merge: expected 2 operands"));
        };
        ensure(self, p.hd.is_multiple_of(4) && (4..=512).contains(&p.hd), || {
            format!("heads of {}; expected a multiple of 4 up to 512", p.hd)
        })?;
        let whole = times(&[p.heads, p.parts, p.hd + 4]);
        ensure(self, parts.elements() as u64 == whole && out.elements() as u64 == times(&[p.heads, p.hd]), || {
            format!("parts {:?}, out {:?} for {} heads of {}, {} parts", parts.shape, out.shape, p.heads, p.hd, p.parts)
        })?;
        let groups = times(&[p.heads, p.hd / 4]).div_ceil(64);
        Plan::new("flat", include_str!("attention_merge.wgsl"), groups, caps)
    }

    fn reference(&self, call: &Call<'_>, values: &mut [Vec<f64>]) {
        reference::run(&call.params(), values);
    }

    fn cases(&self) -> Vec<Case> {
        cases::cases()
    }
}
