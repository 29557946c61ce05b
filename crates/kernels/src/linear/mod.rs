//! Linear layer over weights of any element type, dequantised inside.
//!
//! `y[t, col0 + n] = Σₖ x[t, k] · w[n, k]`. The weight is a shard `[N, K]` of a larger one; `y` has `ldy` columns, of which
//! this call writes `col0 .. col0 + N`. f32 accumulation. Source: `torch.nn.functional.linear`.
//!
//! Variants: `vec` (few rows of `x`, up to four of which share what is read of `w`: a few lanes of a workgroup share a row of `w`), `vec_subgroup` (the same, subgroups
//! take rows), `tiled` (many rows of `x`: square tiles of `y` from workgroup memory). Where few rows of `x` meet few rows of `w`, a workgroup takes fewer of these, and more
//! of its invocations share each.

mod cases;
mod cpu;
mod reference;

pub(crate) use cpu::args;

use crate::dequant::{self, WEIGHT_DTYPES};
#[cfg(not(target_arch = "wasm32"))]
use crate::cpu::matmul;
use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, View, ensure};
use crate::tune::{On, Tunable};
use crate::{Array, Recorder, Result, Weight, low_rank_add};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct Linear;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Rows of `x`.
    pub t: u32,
    /// Rows of this shard.
    pub n: u32,
    /// Elements of a row, a multiple of 8.
    pub k: u32,
    /// Columns of `y`.
    pub ldy: u32,
    /// First column written.
    pub col0: u32,
    /// Bytes of a weight row.
    pub row_bytes: u32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[T, K]"),
    Operand::read("w", WEIGHT_DTYPES, "[N, K]"),
    Operand::read_write("y", &[DType::F32], "[T, LDY]"),
];

static TILED_FROM: Tunable = Tunable {
    name: "linear.tiled_from",
    what: "rows of x from which tiles win over reading the weight once for four rows",
    on: On::Gpu,
    operand: 1,
    default: 5,
    choices: &[2, 3, 5, 9, 17, 33],
};

static SUBGROUPS: Tunable = Tunable {
    name: "linear.subgroups",
    what: "1: a subgroup sums a row of the weight, 0: lanes of a workgroup do",
    on: On::Gpu,
    operand: 1,
    default: 1,
    choices: &[0, 1],
};

static FILL: Tunable = Tunable {
    name: "linear.fill",
    what: "workgroups below which one computes fewer than eight outputs, more of its invocations sharing a row of the weight",
    on: On::Gpu,
    operand: 1,
    // What eight cores of 1,024 invocations run at once, and as many as the larger GPUs have cores: with fewer workgroups some of a GPU is idle.
    default: 128,
    choices: &[0, 128, 512, 2048, 8192],
};

static TILE: Tunable = Tunable {
    name: "linear.tile",
    what: "rows and columns of a workgroup's tile of y, where there are more than 32 rows of x",
    on: On::Gpu,
    operand: 1,
    default: SMALL_TILE,
    choices: &[SMALL_TILE, 64],
};
const SMALL_TILE: u32 = 32;

impl Kernel for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn formula(&self) -> &'static str {
        "y[t, col0 + n] = Σₖ x[t, k] · w[n, k]"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [x, w, y] = [&call.operands[0], &call.operands[1], &call.operands[2]];
        let (t, n, k) = (p.t as usize, p.n as usize, p.k as usize);
        check_product(self, (x, t), (w, n), k, p.row_bytes)?;
        let fits = y.elements() == t * p.ldy as usize && u64::from(p.col0) + n as u64 <= u64::from(p.ldy);
        ensure(self, fits, || {
            format!("y {:?} for [{t}, {}], columns from {}", y.shape, p.ldy, p.col0)
        })?;
        let mut plan = if p.t >= caps.tuned(&TILED_FROM, w.dtype) {
            let tile = if p.t > SMALL_TILE { caps.tuned(&TILE, w.dtype) } else { SMALL_TILE };
            let tiles = u64::from(p.t.div_ceil(tile)) * u64::from(p.n.div_ceil(tile));
            let mut plan = Plan::new("tiled", include_str!("linear_tiled.wgsl"), tiles, caps)?;
            // No override: naga would not know the arrays' lengths, nor tests that no index leaves them.
            plan.wgsl.push(format!("const TILE = {tile}u;").into());
            plan
        } else {
            let wgsl = [include_str!("linear_vec.wgsl"), include_str!("linear_vec_subgroup.wgsl")];
            let mut plan = few_rows(wgsl, &[p.n], (p.t, p.k), (w.dtype, caps))?;
            plan.wgsl.push(include_str!("store.wgsl").into());
            plan
        };
        plan.wgsl.extend(dequant::wgsl(w.dtype).map(Into::into));
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
        Some(crate::Work { bytes: n * u64::from(p.row_bytes) + 4 * t * (n + k), flops: 2 * t * n * k })
    }

    fn cases(&self) -> Vec<Case> {
        cases::cases()
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn tunables(&self) -> Vec<(&'static Tunable, Vec<Case>)> {
        vec![
            (&SUBGROUPS, cases::trials(&[1, 4], (768, 768))),
            (&FILL, [(64, 4096), (512, 2048), (2048, 768)].into_iter().flat_map(|s| cases::trials(&[1], s)).collect()),
            (&TILE, cases::trials(&[64, 256], (512, 768))),
            (&TILED_FROM, cases::trials(&[2, 4, 6, 12, 24], (512, 768))),
            (&matmul::TASK_WORK, [64, 256, 768].into_iter().flat_map(|n| cases::trials(&[1], (n, n))).collect()),
        ]
    }
}

/// Checks that `x` is `[t, k]` and `w` `[n, k]`, of a `k` that weights are read in and rows of so many bytes.
pub(crate) fn check_product(
    kernel: &dyn Kernel,
    (x, t): (&View, usize),
    (w, n): (&View, usize),
    k: usize,
    row_bytes: u32,
) -> Result<()> {
    ensure(kernel, k.is_multiple_of(8), || format!("rows of {k}; expected a multiple of 8"))?;
    ensure(kernel, x.elements() == t * k, || format!("x {:?} as [{t}, {k}]", x.shape))?;
    ensure(kernel, w.elements() == n * k && w.last() == k, || {
        format!("weight {:?} as [{n}, {k}]", w.shape)
    })?;
    check_row(kernel, w, row_bytes)
}

/// Checks that a row of `w` has so many bytes.
pub(crate) fn check_row(kernel: &dyn Kernel, w: &View, row_bytes: u32) -> Result<()> {
    let bytes = w.dtype.bytes_for(w.last())?;
    ensure(kernel, bytes as u64 == u64::from(row_bytes), || {
        format!("rows of {row_bytes} bytes; {} of {} have {bytes}", w.last(), w.dtype)
    })
}

/// The plan for `t` rows of `x` of `k` elements, four of which share what is read of the weights, and weights of `n` rows each:
/// `[vec, vec_subgroup]`, of those that the device has the better one for such weights.
pub(crate) fn few_rows(
    [vec, vec_subgroup]: [&'static str; 2],
    n: &[u32],
    (t, k): (u32, u32),
    (weight, caps): (DType, &Caps),
) -> Result<Plan> {
    let subgroups = caps.subgroups && caps.tuned(&SUBGROUPS, weight) != 0;
    let groups = |outputs: u32| n.iter().map(|n| u64::from(n.div_ceil(outputs))).sum::<u64>() * u64::from(t.div_ceil(4));
    let outputs = outputs(k, |outputs| groups(outputs) < caps.tuned(&FILL, weight).into());
    let groups = groups(outputs);
    let mut plan = match subgroups {
        true => Plan::new("vec_subgroup", vec_subgroup, groups, caps)?,
        false => Plan::new("vec", vec, groups, caps)?,
    };
    plan.subgroups = subgroups;
    plan.wgsl.push(include_str!("rows.wgsl").into());
    plan = plan.constant("ROWS", f64::from(t.min(4))).constant("OUTPUTS", f64::from(outputs));
    if subgroups {
        plan.wgsl.push(include_str!("sum_subgroup.wgsl").into());
        return Ok(plan);
    }
    plan.wgsl.push(include_str!("sum_lanes.wgsl").into());
    Ok(plan.constant("LANES", f64::from(INVOCATIONS / outputs)))
}

/// Invocations of a workgroup that computes few rows.
const INVOCATIONS: u32 = 64;

/// How many outputs a workgroup computes of rows of `k` elements: eight; fewer while `too_few` workgroups would compute so many each, and as
/// long as no invocation is left without eight elements of a row.
fn outputs(k: u32, too_few: impl Fn(u32) -> bool) -> u32 {
    let mut outputs = 8;
    while outputs > 1 && too_few(outputs) && k / 8 >= INVOCATIONS / outputs * 2 {
        outputs /= 2;
    }
    outputs
}

/// True if products of `x`, `[T, K]`, with all of `weights` are better one call than several: `T` is small or the device the CPU, no
/// weight is in shards, and nothing is added to any product.
pub(crate) fn one_call(rec: &Recorder, x: &Array, weights: &[&Weight]) -> Result<bool> {
    let caps = rec.device().caps();
    let few = |w: &Weight| x.elements() / w.cols().max(1) < caps.tuned(&TILED_FROM, w.dtype()) as usize;
    for w in weights {
        let whole = w.shards().len() == 1 && (few(w) || !rec.device().is_gpu());
        if !whole || !rec.corrections(w)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `x` f32 `[T, K]` times the transpose of `w` `[N, K]`, and what the recorder's corrections add to it: f32 `[T, N]`.
///
/// # Errors
/// `InvalidInput` if `x`'s last dimension is not `K`, or as [`Recorder::call`].
pub fn linear(rec: &mut Recorder, x: &Array, w: &Weight) -> Result<Array> {
    let y = product(rec, x, w)?;
    for low in rec.corrections(w)? {
        let h = product(rec, x, &low.a)?;
        low_rank_add::low_rank_add(rec, &y, &h, &low.b, low.scale)?;
    }
    Ok(y)
}

fn product(rec: &mut Recorder, x: &Array, w: &Weight) -> Result<Array> {
    let t = x.elements() / w.cols().max(1);
    let y = rec.temp(DType::F32, &[t, w.rows()])?;
    for shard in w.shards() {
        let params = Params {
            t: t as u32,
            n: shard.array.shape()[0] as u32,
            k: w.cols() as u32,
            ldy: w.rows() as u32,
            col0: shard.row0 as u32,
            row_bytes: w.row_bytes() as u32,
        };
        rec.call(&Linear, &[x, &shard.array, &y], &params)?;
    }
    Ok(y)
}
