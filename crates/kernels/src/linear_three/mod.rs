//! Three linear layers of the same input in one: the queries, keys and values of an attention.
//!
//! `q[t, n] = Σₖ x[t, k] · w[n, k]`, `k` and `v` so with `w_k` and `w_v`; weights of any element types, dequantised inside. f32
//! accumulation. For few rows of `x`: with many, tiles of each product ([`crate::linear`]) win.
//! Source: `torch.nn.functional.linear`.
//!
//! Variants: `vec` (a few lanes of a workgroup share a row of a weight), `vec_subgroup` (subgroups take rows).

mod cases;
mod cpu;
mod reference;

use crate::dequant::{self, WEIGHT_DTYPES};
use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, ensure};
use crate::linear::{check_product, few_rows, linear, one_call};
use crate::{Array, Recorder, Result, Weight};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct LinearThree;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Rows of `x`.
    pub t: u32,
    /// Elements of a row, a multiple of 8.
    pub k: u32,
    /// Rows of each weight.
    pub n: [u32; 3],
    /// Bytes of a row of each.
    pub row_bytes: [u32; 3],
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[T, K]"),
    Operand::read("w", WEIGHT_DTYPES, "[NQ, K]"),
    Operand::read("w_k", WEIGHT_DTYPES, "[NK, K]"),
    Operand::read("w_v", WEIGHT_DTYPES, "[NV, K]"),
    Operand::write("q", &[DType::F32], "[T, NQ]"),
    Operand::write("k", &[DType::F32], "[T, NK]"),
    Operand::write("v", &[DType::F32], "[T, NV]"),
];

impl Kernel for LinearThree {
    fn name(&self) -> &'static str {
        "linear_three"
    }

    fn formula(&self) -> &'static str {
        "q[t, n] = Σₖ x[t, k] · w[n, k]; k and v so with w_k and w_v"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let (t, k) = (p.t as usize, p.k as usize);
        let [x, weights @ .., q, key, v] = call.operands else {
            return Err(crate::Error::invalid("linear_three: expected 7 operands"));
        };
        for (((w, y), n), bytes) in weights.iter().zip([q, key, v]).zip(p.n).zip(p.row_bytes) {
            let n = n as usize;
            check_product(self, (x, t), (w, n), k, bytes)?;
            ensure(self, y.elements() == t * n, || format!("result {:?} as [{t}, {n}]", y.shape))?;
        }
        let wgsl =
            [include_str!("linear_three_vec.wgsl"), include_str!("linear_three_vec_subgroup.wgsl")];
        let mut plan = few_rows(wgsl, &p.n, (p.t, p.k), (weights[0].dtype, caps))?;
        plan.wgsl.push(include_str!("store.wgsl").into());
        plan.wgsl.extend(dequant::wgsl(weights[0].dtype).map(Into::into));
        plan.wgsl.extend(dequant::wgsl_named(weights[1].dtype, "_k").map(Into::into));
        plan.wgsl.extend(dequant::wgsl_named(weights[2].dtype, "_v").map(Into::into));
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
        let (t, k) = (u64::from(p.t), u64::from(p.k));
        let n: u64 = p.n.iter().copied().map(u64::from).sum();
        let weights = p.n.iter().zip(p.row_bytes).map(|(&n, b)| u64::from(n) * u64::from(b));
        Some(crate::Work { bytes: weights.sum::<u64>() + 4 * t * (n + k), flops: 2 * t * n * k })
    }

    fn cases(&self) -> Vec<Case> {
        cases::cases()
    }
}

/// `x` f32 `[T, K]` times the transposes of three weights `[Nᵢ, K]`, f32 `[T, Nᵢ]` each: in one call where that is faster and nothing is
/// added to the products.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn linear_three(rec: &mut Recorder, x: &Array, weights: [&Weight; 3]) -> Result<[Array; 3]> {
    let [a, b, c] = weights;
    let k = a.cols();
    let t = x.elements() / k.max(1);
    let one = b.cols() == k && c.cols() == k && one_call(rec, x, &weights)?;
    let ([w], [w_k], [w_v], true) = (a.shards(), b.shards(), c.shards(), one) else {
        return Ok([linear(rec, x, a)?, linear(rec, x, b)?, linear(rec, x, c)?]);
    };
    let mut out = |w: &Weight| rec.temp(DType::F32, &[t, w.rows()]);
    let (q, key, v) = (out(a)?, out(b)?, out(c)?);
    let params = Params {
        t: t as u32,
        k: k as u32,
        n: weights.map(|w| w.rows() as u32),
        row_bytes: weights.map(|w| w.row_bytes() as u32),
    };
    rec.call(&LinearThree, &[x, &w.array, &w_k.array, &w_v.array, &q, &key, &v], &params)?;
    Ok([q, key, v])
}
