//! The second half of a low-rank correction of a linear layer, added to the layer's result.
//!
//! `y[t, n] += scale · Σᵣ h[t, r] · b[r, n]`, where `h = x Aᵀ` is the first half (a plain product). `b` is stored by rank, so that
//! neighbours of `y` read neighbours of `b`; PEFT's `lora_B` is its transpose. With `scale` 0 nothing changes.
//! Source: Hu et al. 2021 (LoRA); `peft.tuners.lora.Linear.forward`.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct LowRankAdd;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Rows.
    pub t: u32,
    /// Rank.
    pub r: u32,
    /// Columns of `y`.
    pub n: u32,
    /// Factor.
    pub scale: f32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("h", &[DType::F32], "[T, R]"),
    Operand::read("b", &[DType::F32], "[R, N]"),
    Operand::read_write("y", &[DType::F32], "[T, N]"),
];

impl Kernel for LowRankAdd {
    fn name(&self) -> &'static str {
        "low_rank_add"
    }

    fn formula(&self) -> &'static str {
        "y[t, n] += scale · Σᵣ h[t, r] · b[r, n]"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [h, b, y] = call.operands else {
            return Err(crate::Error::invalid("low_rank_add: expected 3 operands"));
        };
        let (t, r, n) = (u64::from(p.t), u64::from(p.r), u64::from(p.n));
        ensure(self, h.elements() as u64 == t * r, || format!("h {:?} as [{t}, {r}]", h.shape))?;
        ensure(self, b.elements() as u64 == r * n, || format!("b {:?} as [{r}, {n}]", b.shape))?;
        ensure(self, y.elements() as u64 == t * n, || format!("y {:?} as [{t}, {n}]", y.shape))?;
        Plan::new("flat", include_str!("low_rank_add.wgsl"), (t * n).div_ceil(64), caps)
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

/// `y` f32 `[T, N]` `+= scale · h b` with `h` f32 `[T, R]` and `b` f32 `[R, N]`.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn low_rank_add(rec: &mut Recorder, y: &Array, h: &Array, b: &Array, scale: f32) -> Result<()> {
    let &[r, n] = b.shape() else {
        return Err(crate::Error::invalid(format!("low_rank_add: b {b:?}; expected [R, N]")));
    };
    let params = Params { t: (y.elements() / n.max(1)) as u32, r: r as u32, n: n as u32, scale };
    rec.call(&LowRankAdd, &[h, b, y], &params)
}
