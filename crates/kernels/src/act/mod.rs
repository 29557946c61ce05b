//! Activation, element by element, with the bias of the linear layer before it.
//!
//! `y[t, n] = f(y[t, n] + b[n])` in place; without `b` where a layer has none. The functions are those of [`Activation`], each
//! written once per side: `activation.wgsl`, `vecmath` and [`reference::of`], which [`crate::gated_act`] shares.
//! Source: Hendrycks & Gimpel 2016 (GELU), Elfwing et al. 2017 (SiLU); `ACT2FN` in transformers.

mod cases;
mod cpu;
pub(crate) mod reference;

use crate::cpu::{Isa, vecmath};
use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// The WGSL function `activate`.
pub(crate) const WGSL: &str = include_str!("activation.wgsl");

/// See the module's head.
#[derive(Debug)]
pub struct Act;

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum Activation {
    /// `x·σ(x)`, also called swish.
    Silu = 0,
    /// GELU's tanh approximation `½x(1 + tanh(√(2/π)(x + 0.044715 x³)))` (`gelu_pytorch_tanh`, `gelu_new`).
    GeluTanh = 1,
    /// `½x(1 + erf(x/√2))`, the exact GELU.
    Gelu = 2,
    /// `x·σ(1.702 x)`.
    QuickGelu = 3,
    /// `max(x, 0)`.
    Relu = 4,
    /// The hyperbolic tangent.
    Tanh = 5,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid = 6,
}

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 7] = [
        Activation::Silu,
        Activation::GeluTanh,
        Activation::Gelu,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Tanh,
        Activation::Sigmoid,
    ];

    /// The function that a `config.json` calls `hidden_act`, `activation`, `activation_function` or the like; `None` for one that is
    /// not here.
    pub fn from_name(name: &str) -> Option<Activation> {
        Some(match name {
            "silu" | "swish" => Activation::Silu,
            "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" | "gelu_tanh" => Activation::GeluTanh,
            "gelu" | "gelu_python" => Activation::Gelu,
            "quick_gelu" => Activation::QuickGelu,
            "relu" => Activation::Relu,
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            _ => return None,
        })
    }

    fn of(word: u32) -> Option<Activation> {
        Activation::ALL.get(word as usize).copied()
    }
}

/// Replaces each `x` by the function of it; `act` is an [`Activation`] that a plan has checked.
pub(crate) fn apply(isa: Isa, act: u32, x: &mut [f32]) {
    match Activation::of(act).unwrap_or(Activation::Silu) {
        Activation::Silu => vecmath::silu(isa, x),
        Activation::GeluTanh => vecmath::gelu_tanh(isa, x),
        Activation::Gelu => vecmath::gelu(isa, x),
        Activation::QuickGelu => vecmath::quick_gelu(isa, x),
        Activation::Relu => vecmath::relu(isa, x),
        Activation::Tanh => vecmath::tanh(isa, x),
        Activation::Sigmoid => vecmath::sigmoid(isa, x),
    }
}

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Rows.
    pub t: u32,
    /// Elements of a row.
    pub n: u32,
    /// An [`Activation`].
    pub act: u32,
    /// 1: `b` is added; 0: it is not read.
    pub bias: u32,
}

const OPERANDS: &[Operand] =
    &[Operand::read_write("y", &[DType::F32], "[T, N]"), Operand::read("b", &[DType::F32], "[N]")];

impl Kernel for Act {
    fn name(&self) -> &'static str {
        "act"
    }

    fn formula(&self) -> &'static str {
        "y[t, n] = f(y[t, n] + b[n])"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let (y, b) = (&call.operands[0], &call.operands[1]);
        let (t, n) = (p.t as usize, p.n as usize);
        ensure(self, Activation::of(p.act).is_some(), || format!("activation {}", p.act))?;
        ensure(self, t.checked_mul(n) == Some(y.elements()), || format!("y {:?} as [{t}, {n}]", y.shape))?;
        ensure(self, p.bias == 0 || b.elements() == n, || format!("bias {:?} for rows of {n}", b.shape))?;
        let mut plan = Plan::new("flat", include_str!("act.wgsl"), y.elements().div_ceil(64) as u64, caps)?;
        plan.wgsl.push(WGSL.into());
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

/// Adds the bias `b` f32 `[N]`, if there is one, to the rows of `y` (last dimension `N`) and applies `act`, in place.
///
/// # Errors
/// `InvalidInput` if the bias does not fit, or as [`Recorder::call`].
pub fn act(rec: &mut Recorder, y: &Array, b: Option<&Array>, act: Activation) -> Result<()> {
    let n = b.map_or_else(|| y.elements(), Array::elements).max(1);
    let params =
        Params { t: (y.elements() / n) as u32, n: n as u32, act: act as u32, bias: u32::from(b.is_some()) };
    match b {
        Some(b) => rec.call(&Act, &[y, b], &params),
        None => {
            // Something to bind; it is not read.
            let nothing = rec.temp(DType::F32, &[1])?;
            rec.call(&Act, &[y, &nothing], &params)
        }
    }
}
