//! Depthwise causal convolution along a sequence, with SiLU, over a state that holds the last inputs.
//!
//! For token `t` of sequence `seq` at position `pos` and channel `c`, with the sequence's inputs `u` (zero before position 0):
//! `y[t, c] = silu(Σⱼ w[j, c] · u[pos − (K − 1) + j, c])`, `j = 0 .. K`. Of a sequence's earlier steps `state` keeps the last `K`
//! inputs, that of position `i` in slot `i mod K`; the inputs of this step are written into it. Nothing has to be cleared: at
//! position 0 no slot is read. Tokens of one sequence stand next to each other in `rows`, their positions count up by one;
//! the state of a sequence without a token stays as it is.
//!
//! The weight is `[K, C]`, the transpose of PyTorch's depthwise `[C, 1, K]`. Source: `causal_conv1d_fn`, `causal_conv1d_update` in
//! transformers' `modeling_qwen3_5.py`; Gu & Dao 2023 (Mamba).

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct CausalConv1d;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Tokens.
    pub t: u32,
    /// Channels.
    pub c: u32,
    /// Taps.
    pub k: u32,
    /// Sequences the state has room for.
    pub nseq: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[T, C]"),
    Operand::read("w", &[DType::F32], "[K, C]"),
    Operand::read("rows", &[DType::U32], "[T, 2]"),
    Operand::read_write("state", &[DType::F32], "[NSEQ, K, C]"),
    Operand::read_write("y", &[DType::F32], "[T, C]"),
];

impl Kernel for CausalConv1d {
    fn name(&self) -> &'static str {
        "causal_conv1d"
    }

    fn formula(&self) -> &'static str {
        "y = silu(Σⱼ wⱼ · u[pos − K + 1 + j]); state[seq, pos mod K] ← u[pos]"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [x, w, rows, state, y] = call.operands else {
            return Err(crate::Error::invalid("causal_conv1d: expected 5 operands"));
        };
        let (t, c, k, nseq) = (u64::from(p.t), u64::from(p.c), u64::from(p.k), u64::from(p.nseq));
        ensure(self, (1..=64).contains(&k), || format!("{k} taps; expected 1 to 64"))?;
        let len = t * c;
        ensure(self, x.elements() as u64 == len && y.elements() as u64 == len, || {
            format!("x {:?}, y {:?} as [{t}, {c}]", x.shape, y.shape)
        })?;
        ensure(self, w.elements() as u64 == k * c, || format!("weight {:?} as [{k}, {c}]", w.shape))?;
        ensure(self, rows.elements() as u64 >= 2 * t, || format!("rows {:?} for {t} tokens", rows.shape))?;
        ensure(self, state.elements() as u64 == nseq * k * c, || {
            format!("state {:?} as [{nseq}, {k}, {c}]", state.shape)
        })?;
        Plan::new("scan", include_str!("causal_conv1d.wgsl"), (nseq * c).div_ceil(64), caps)
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

/// Convolves `x` f32 `[T, C]` with `w` f32 `[K, C]` along each sequence of `rows` u32 `[T, 2]` (sequence, position), going on from
/// `state` f32 `[NSEQ, K, C]` and leaving the last inputs there. The result has `x`'s shape.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn causal_conv1d(rec: &mut Recorder, x: &Array, w: &Array, rows: &Array, state: &Array) -> Result<Array> {
    let &[nseq, k, c] = state.shape() else {
        return Err(crate::Error::invalid(format!("causal_conv1d: state {state:?}")));
    };
    let y = rec.temp(DType::F32, x.shape())?;
    let t = x.elements() / c.max(1);
    let params = Params { t: t as u32, c: c as u32, k: k as u32, nseq: nseq as u32 };
    rec.call(&CausalConv1d, &[x, w, rows, state, &y], &params)?;
    Ok(y)
}
