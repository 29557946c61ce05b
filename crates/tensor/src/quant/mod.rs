//! Block-quantised formats: one file per format, each with its byte layout and formula.
//!
//! A block is a fixed number of consecutive values of a row, stored as small integers `q` beside one or more scales.
//! The legacy formats have blocks of 32 with an f16 scale; the k-quants have super-blocks of 256 whose sub-blocks' scales
//! are themselves small integers times an f16 super-scale.
//!
//! | format | bits per value | formula | sub-block |
//! |---|---|---|---|
//! | Q4_0 | 4.5 | `d·(q−8)` | |
//! | Q4_1 | 5 | `d·q + m` | |
//! | Q5_0 | 5.5 | `d·(q−16)` | |
//! | Q5_1 | 6 | `d·q + m` | |
//! | Q8_0 | 8.5 | `d·q` | |
//! | Q2_K | 2.625 | `d·s·q − dmin·m` | 16 |
//! | Q3_K | 3.4375 | `d·(s−32)·(q−4)` | 16 |
//! | Q4_K | 4.5 | `d·s·q − dmin·m` | 32 |
//! | Q5_K | 5.5 | `d·s·q − dmin·m` | 32 |
//! | Q6_K | 6.5625 | `d·s·(q−32)` | 16 |
//!
//! Dequantisation is exact: each product of an f16 scale and its integers has at most 24 significant bits, so f32 holds
//! it without rounding, and the one subtraction or addition left rounds once. The order of operations cannot matter, and
//! results equal the reference implementation's bit for bit. Quantising the legacy formats rounds as the reference does;
//! the k-quants use a search of our own (`search.rs`), so their bytes differ from other programs' while the error is as
//! small. Source: `ggml-common.h` and `ggml-quants.c` of the ggml project.

mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod search;

use crate::{DType, Error, Result};
use bytemuck::Pod;
use half::f16;
pub use q2_k::BlockQ2K;
pub use q3_k::BlockQ3K;
pub use q4_0::BlockQ4_0;
pub use q4_1::BlockQ4_1;
pub use q4_k::{BlockQ4K, scale_and_min};
pub use q5_0::BlockQ5_0;
pub use q5_1::BlockQ5_1;
pub use q5_k::BlockQ5K;
pub use q6_k::BlockQ6K;
pub use q8_0::BlockQ8_0;

/// One block of `N` values, laid out as in a file, with no alignment.
pub trait Block<const N: usize>: Pod {
    /// The format.
    const DTYPE: DType;

    /// The values.
    fn dequantize(&self, out: &mut [f32; N]);

    /// The block nearest to finite values of at most 65,504 in size.
    fn quantize(values: &[f32; N]) -> Self;
}

/// The largest magnitude that is quantised: the largest f16, so that no scale overflows.
pub const MAX_VALUE: f32 = 65_504.0;

/// Dequantises whole blocks: `out` gets as many values as `bytes` holds.
///
/// # Errors
/// `InvalidInput` if the sizes do not match, `Unsupported` if `dtype` is not block-quantised.
pub fn dequantize_into(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    check_sizes(dtype, bytes.len(), out.len())?;
    fn run<const N: usize, B: Block<N>>(bytes: &[u8], out: &mut [f32]) {
        let blocks: &[B] = bytemuck::cast_slice(bytes);
        for (block, out) in blocks.iter().zip(out.as_chunks_mut::<N>().0) {
            block.dequantize(out);
        }
    }
    match dtype {
        DType::Q4_0 => run::<32, BlockQ4_0>(bytes, out),
        DType::Q4_1 => run::<32, BlockQ4_1>(bytes, out),
        DType::Q5_0 => run::<32, BlockQ5_0>(bytes, out),
        DType::Q5_1 => run::<32, BlockQ5_1>(bytes, out),
        DType::Q8_0 => run::<32, BlockQ8_0>(bytes, out),
        DType::Q2K => run::<256, BlockQ2K>(bytes, out),
        DType::Q3K => run::<256, BlockQ3K>(bytes, out),
        DType::Q4K => run::<256, BlockQ4K>(bytes, out),
        DType::Q5K => run::<256, BlockQ5K>(bytes, out),
        DType::Q6K => run::<256, BlockQ6K>(bytes, out),
        _ => return Err(not_quantized(dtype)),
    }
    Ok(())
}

/// Quantises whole blocks: `bytes` gets exactly the blocks of `values`.
///
/// # Errors
/// `InvalidInput` if the sizes do not match or a value is not finite or beyond [`MAX_VALUE`], `Unsupported` if `dtype` is
/// not block-quantised.
pub fn quantize_into(dtype: DType, values: &[f32], bytes: &mut [u8]) -> Result<()> {
    check_sizes(dtype, bytes.len(), values.len())?;
    if let Some(i) = values
        .iter()
        .position(|v| v.is_nan() || v.abs() > MAX_VALUE)
    {
        return Err(Error::invalid(format!(
            "element {i} is {}: {dtype} holds finite values up to {MAX_VALUE}",
            values[i]
        )));
    }
    fn run<const N: usize, B: Block<N>>(values: &[f32], bytes: &mut [u8]) {
        let blocks: &mut [B] = bytemuck::cast_slice_mut(bytes);
        for (block, values) in blocks.iter_mut().zip(values.as_chunks::<N>().0) {
            *block = B::quantize(values);
        }
    }
    match dtype {
        DType::Q4_0 => run::<32, BlockQ4_0>(values, bytes),
        DType::Q4_1 => run::<32, BlockQ4_1>(values, bytes),
        DType::Q5_0 => run::<32, BlockQ5_0>(values, bytes),
        DType::Q5_1 => run::<32, BlockQ5_1>(values, bytes),
        DType::Q8_0 => run::<32, BlockQ8_0>(values, bytes),
        DType::Q2K => run::<256, BlockQ2K>(values, bytes),
        DType::Q3K => run::<256, BlockQ3K>(values, bytes),
        DType::Q4K => run::<256, BlockQ4K>(values, bytes),
        DType::Q5K => run::<256, BlockQ5K>(values, bytes),
        DType::Q6K => run::<256, BlockQ6K>(values, bytes),
        _ => return Err(not_quantized(dtype)),
    }
    Ok(())
}

fn check_sizes(dtype: DType, bytes: usize, values: usize) -> Result<()> {
    if !dtype.is_quantized() {
        return Err(not_quantized(dtype));
    }
    let expected = dtype.bytes_for(values)?;
    if bytes != expected {
        return Err(Error::invalid(format!(
            "{values} values of {dtype} take {expected} bytes, got {bytes}"
        )));
    }
    Ok(())
}

fn not_quantized(dtype: DType) -> Error {
    Error::Unsupported(format!("{dtype} is not a block-quantised type"))
}

/// An f16 field of a block.
fn scale(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// A value as an f16 field, rounded to nearest even.
fn scale_bytes(value: f32) -> [u8; 2] {
    f16::from_f32(value).to_le_bytes()
}

/// 1/d, or 0 where d is 0 or so small that 1/d is infinite: such a block is all zeros.
fn inverse(d: f32) -> f32 {
    let inv = 1.0 / d;
    if inv.is_finite() { inv } else { 0.0 }
}

/// The value of largest magnitude, sign kept; the first of equals.
fn signed_max(values: &[f32]) -> f32 {
    values
        .iter()
        .fold(0.0, |m: f32, &v| if v.abs() > m.abs() { v } else { m })
}

/// The smallest and the largest value.
fn min_max(values: &[f32]) -> (f32, f32) {
    values
        .iter()
        .fold((f32::MAX, f32::MIN), |(lo, hi), &v| (lo.min(v), hi.max(v)))
}
