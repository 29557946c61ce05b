//! Attention over spans of packed keys: bidirectional encoders, cross-attention, windows.
//!
//! Token `t` and head `h` see the keys `begin ≤ j < end` of `spans[t] = (begin, end)`: `s_j = scale · q·k_j`,
//! `out = Σ softmax(s)_j · v_j`; an empty span gives zeroes. Query head `h` uses key/value head `h / (NH / NKV)`. Sequences of
//! different lengths lie one after the other without padding, and a sequence's tokens all have its span. Queries, keys and
//! values are [`Part`]s: some columns of rows, so that one fused projection can hold all three. Online softmax in f32.
//! Source: Vaswani et al. 2017, Dao et al. 2022; `scaled_dot_product_attention`, `flash_attn_varlen_func`.
//!
//! On the GPU four tokens share what is read of K and V. See [`crate::attention`] for the causal form over a cache.

mod cases;
mod cpu;
mod reference;

use crate::attention::check_scale;
use crate::kernel::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, View, ensure};
use crate::{Array, Recorder, Result};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct SpanAttention;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Tokens.
    pub t: u32,
    /// Query heads.
    pub nh: u32,
    /// Key/value heads.
    pub nkv: u32,
    /// Elements of a head: a multiple of 4, at most 512.
    pub hd: u32,
    /// Keys in all; ends of spans beyond it are cut.
    pub s: u32,
    /// Elements between two tokens of `q`, `k`, `v`: multiples of 4.
    pub stride: [u32; 3],
    /// First element of a token's row in `q`, `k`, `v`: multiples of 4.
    pub first: [u32; 3],
    /// Factor of the products, not negative.
    pub scale: f32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("q", &[DType::F32], "[T, …NH·HD…]"),
    Operand::read("k", &[DType::F32], "[S, …NKV·HD…]"),
    Operand::read("v", &[DType::F32], "[S, …NKV·HD…]"),
    Operand::read("spans", &[DType::U32], "[T, 2]"),
    Operand::write("out", &[DType::F32], "[T, NH·HD]"),
];

impl Kernel for SpanAttention {
    fn name(&self) -> &'static str {
        "span_attention"
    }

    fn formula(&self) -> &'static str {
        "out = Σⱼ softmax(scale · q·kⱼ)ⱼ · vⱼ over the keys of the token's span"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [q, k, v, spans, out] = call.operands else {
            return Err(crate::Error::invalid("span_attention: expected 5 operands"));
        };
        let (t, s) = (u64::from(p.t), u64::from(p.s));
        check_scale(self, p.scale)?;
        ensure(self, p.hd.is_multiple_of(4) && (4..=512).contains(&p.hd), || {
            format!("heads of {}; expected a multiple of 4 up to 512", p.hd)
        })?;
        ensure(self, p.nkv > 0 && p.nh > 0 && p.nh.is_multiple_of(p.nkv), || {
            format!("{} query heads over {} key/value heads", p.nh, p.nkv)
        })?;
        let (q_row, kv_row) = (u64::from(p.nh) * u64::from(p.hd), u64::from(p.nkv) * u64::from(p.hd));
        for (i, (view, rows, row)) in [(q, t, q_row), (k, s, kv_row), (v, s, kv_row)].into_iter().enumerate() {
            self.part(&p, i, view, rows, row)?;
        }
        ensure(self, t > 0 && spans.elements() as u64 >= 2 * t && out.elements() as u64 == t * q_row, || {
            format!("spans {:?}, out {:?} for {t} tokens", spans.shape, out.shape)
        })?;
        let groups = t.div_ceil(4) * u64::from(p.nh);
        let mut plan = Plan::new("tile", include_str!("span_attention.wgsl"), groups, caps)?;
        plan.wgsl.extend([crate::attention::FOUR_QUERIES.into(), crate::attention::FOUR_FINISH.into()]);
        Ok(plan)
    }

    fn cpu(&self) -> Option<fn(&mut CpuCall<'_, '_>)> {
        Some(cpu::run)
    }

    fn reference(&self, call: &Call<'_>, values: &mut [Vec<f64>]) {
        reference::run(&call.params(), values);
    }

    fn work(&self, _: &Call<'_>) -> Option<crate::Work> {
        None
    }

    fn cases(&self) -> Vec<Case> {
        cases::cases()
    }
}

impl SpanAttention {
    /// Row `row` elements from `first` on every `stride` are inside the operand.
    fn part(&self, p: &Params, i: usize, view: &View, rows: u64, row: u64) -> Result<()> {
        let (stride, first) = (u64::from(p.stride[i]), u64::from(p.first[i]));
        let last = rows.checked_sub(1).and_then(|r| r.checked_mul(stride));
        let inside = last.and_then(|r| r.checked_add(first + row)).is_some_and(|n| n <= view.elements() as u64);
        ensure(self, inside && first + row <= stride && stride % 4 == 0 && first % 4 == 0, || {
            format!(
                "{} {:?}: {rows} rows of {stride}, columns {first}..{}; expected multiples of 4 inside it",
                OPERANDS[i].name,
                view.shape,
                first + row
            )
        })
    }
}

/// Columns of an array's rows: one token's queries, keys or values are `NH·HD` elements from `first` on.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// f32, rows of `stride` elements.
    pub array: &'a Array,
    /// Elements of a row.
    pub stride: usize,
    /// First column.
    pub first: usize,
}

impl<'a> Part<'a> {
    /// Everything of `array` `[T, N]`.
    pub fn whole(array: &'a Array) -> Self {
        Part::columns(array, 0)
    }

    /// The columns from `first` on of `array` `[T, N]`.
    pub fn columns(array: &'a Array, first: usize) -> Self {
        Part { array, stride: array.shape().last().copied().unwrap_or(1), first }
    }
}

/// What [`span_attention`] works on.
#[derive(Clone, Copy, Debug)]
pub struct SpanAttentionArgs<'a> {
    /// Queries of `T` tokens.
    pub q: Part<'a>,
    /// Keys.
    pub k: Part<'a>,
    /// Values.
    pub v: Part<'a>,
    /// The first key and one past the last that each token sees, u32 `[T, 2]`.
    pub spans: &'a Array,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor of the products, usually `HD^-½`; not negative.
    pub scale: f32,
}

/// Attends; f32 `[T, NH·HD]`.
///
/// # Errors
/// `InvalidInput` if the shapes do not fit, or as [`Recorder::call`].
pub fn span_attention(rec: &mut Recorder, a: SpanAttentionArgs<'_>) -> Result<Array> {
    let rows = |part: &Part<'_>| part.array.elements() / part.stride.max(1);
    let t = rows(&a.q);
    let out = rec.temp(DType::F32, &[t, a.heads * a.head_dim])?;
    let params = Params {
        t: t as u32,
        nh: a.heads as u32,
        nkv: a.kv_heads as u32,
        hd: a.head_dim as u32,
        s: rows(&a.k).min(rows(&a.v)) as u32,
        stride: [a.q, a.k, a.v].map(|p| p.stride as u32),
        first: [a.q, a.k, a.v].map(|p| p.first as u32),
        scale: a.scale,
    };
    rec.call(&SpanAttention, &[a.q.array, a.k.array, a.v.array, a.spans, &out], &params)?;
    Ok(out)
}
