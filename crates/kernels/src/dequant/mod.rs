//! WGSL that reads weights of any element type, eight at a time: the part every kernel that touches weights shares.
//!
//! Each file defines `fn weights8(row: u32, g: u32) -> W8`: elements `8g .. 8g+8` of a row of the weight `w`, whose rows
//! are `p.row_bytes` bytes in the byte layout of GGUF files. Formulas: ggml's `dequantize_row_*`.

use crate::Result;
use firelight_tensor::{DType, convert, quant};

/// Element types weights may have.
pub const WEIGHT_DTYPES: &[DType] = &[
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::Q2K,
    DType::Q3K,
    DType::Q4K,
    DType::Q5K,
    DType::Q6K,
];

/// The WGSL parts for weights of this type, to be put before a kernel that binds `w: array<u32>`.
pub fn wgsl(dtype: DType) -> [&'static str; 2] {
    let format = match dtype {
        DType::F32 => include_str!("f32.wgsl"),
        DType::F16 => include_str!("f16.wgsl"),
        DType::BF16 => include_str!("bf16.wgsl"),
        DType::Q4_0 => include_str!("q4_0.wgsl"),
        DType::Q4_1 => include_str!("q4_1.wgsl"),
        DType::Q5_0 => include_str!("q5_0.wgsl"),
        DType::Q5_1 => include_str!("q5_1.wgsl"),
        DType::Q8_0 => include_str!("q8_0.wgsl"),
        DType::Q2K => include_str!("q2_k.wgsl"),
        DType::Q3K => include_str!("q3_k.wgsl"),
        DType::Q4K => include_str!("q4_k.wgsl"),
        DType::Q5K => include_str!("q5_k.wgsl"),
        _ => include_str!("q6_k.wgsl"),
    };
    [include_str!("bytes.wgsl"), format]
}

/// [`wgsl`] for a further weight of the same kernel: everything it defines and uses of it has `suffix` behind its name (`w_up`,
/// `weights8_up`, `p.row_bytes_up` with `_up`). To be put beside the parts of the first weight, which define `W8`.
pub fn wgsl_named(dtype: DType, suffix: &str) -> [String; 2] {
    wgsl(dtype).map(|part| {
        let functions = part
            .lines()
            .filter_map(|l| l.strip_prefix("fn ")?.split('(').next());
        let mut names: Vec<&str> = functions.collect();
        names.extend(["w", "row_bytes", "weights8"]);
        // Functions of the other part.
        names.extend(["word_at", "byte_at", "half_at", "bits4", "spread4"]);
        let lines = part.lines().filter(|l| !l.starts_with("struct "));
        let mut text = String::with_capacity(part.len() + 256);
        for line in lines {
            let code = line.split("//").next().unwrap_or_default();
            let mut word = String::new();
            for c in code.chars().chain(['\n']) {
                if c.is_ascii_alphanumeric() || c == '_' {
                    word.push(c);
                    continue;
                }
                text.push_str(&word);
                if names.contains(&word.as_str()) {
                    text.push_str(suffix);
                }
                word.clear();
                text.push(c);
            }
        }
        text
    })
}

/// Converts or dequantises `bytes` of a weight type to f32 on the host.
///
/// # Errors
/// `Unsupported` for types that are no weights, `InvalidInput` if the lengths do not fit.
pub fn to_f32(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    match dtype {
        DType::F32 if bytes.len() == out.len() * 4 => {
            bytemuck::cast_slice_mut::<f32, u8>(out).copy_from_slice(bytes);
        }
        DType::F16 => convert::f16_to_f32(bytes, out)?,
        DType::BF16 => convert::bf16_to_f32(bytes, out)?,
        _ => quant::dequantize_into(dtype, bytes, out)?,
    }
    Ok(())
}
