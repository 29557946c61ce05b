//! Rotary position embedding in place, of queries whose keys are in the cache already.
//!
//! Each head of `q[t]` is turned by the angles of the position in `rows[t] = (seq, pos)`, exactly as [`crate::rope_kv`] turns queries;
//! a token beyond the table stays as it is. For layers that read another layer's keys and values. Source: Su et al. 2021;
//! `Gemma4TextAttention` (`is_kv_shared_layer`) in transformers.

mod cases;
mod cpu;
mod reference;

use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::rope_kv::Pairing;
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct Rope;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Tokens.
    pub t: u32,
    /// Heads.
    pub nh: u32,
    /// Elements of a head, even.
    pub hd: u32,
    /// Rotated pairs of a head, `R/2`.
    pub pairs: u32,
    /// Positions of the table.
    pub positions: u32,
    /// A [`Pairing`].
    pub pairing: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read_write("q", &[DType::F32], "[T, NH·HD]"),
    Operand::read("rows", &[DType::U32], "[T, 2]"),
    Operand::read("rope", &[DType::F32], "[P, R/2, 2]"),
];

impl Kernel for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn formula(&self) -> &'static str {
        "q ← rot(q, pos)"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [q, rows, rope] = [&call.operands[0], &call.operands[1], &call.operands[2]];
        let (t, nh, hd) = (u64::from(p.t), u64::from(p.nh), u64::from(p.hd));
        let pairs = u64::from(p.pairs);
        let head = hd.is_multiple_of(2) && pairs * 2 <= hd && pairs > 0 && p.pairing <= 1;
        ensure(self, head, || {
            format!("{pairs} pairs of a head of {hd}, pairing {}", p.pairing)
        })?;
        let len = (t * nh).checked_mul(hd);
        ensure(self, len == Some(q.elements() as u64) && rows.elements() as u64 >= 2 * t, || {
            format!("q {:?}, rows {:?} for {t} tokens", q.shape, rows.shape)
        })?;
        ensure(self, rope.elements() as u64 >= u64::from(p.positions) * pairs * 2, || {
            format!("table {:?} for {} positions of {pairs} pairs", rope.shape, p.positions)
        })?;
        let groups = (t * nh * pairs).div_ceil(64);
        Plan::new("flat", include_str!("rope.wgsl"), groups, caps)
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

/// Turns the heads of `hd` elements of `q` f32 `[T, NH·HD]` in place, by the positions in `rows` u32 `[T, 2]` and the table `rope` f32
/// `[P, R/2, 2]`.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn rope(
    rec: &mut Recorder,
    q: &Array,
    hd: usize,
    rows: &Array,
    rope: &Array,
    pairing: Pairing,
) -> Result<()> {
    let t = rows.elements() / 2;
    let params = Params {
        t: t as u32,
        nh: (q.elements() / (t * hd).max(1)) as u32,
        hd: hd as u32,
        pairs: rope.shape().get(1).copied().unwrap_or(0) as u32,
        positions: rope.shape().first().copied().unwrap_or(0) as u32,
        pairing: pairing as u32,
    };
    rec.call(&Rope, &[q, rows, rope], &params)
}
