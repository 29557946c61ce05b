//! Running a kernel's f64 reference on bytes of any element type.

use crate::kernel::{Access, Call, Kernel};
use crate::{Error, Result};
use firelight_tensor::DType;
use firelight_tensor::quant::{Block, BlockQ8_0};

/// The values of an operand as f64.
pub(crate) fn to_f64(dtype: DType, bytes: &[u8]) -> Result<Vec<f64>> {
    Ok(match dtype {
        DType::U32 => bytemuck::pod_collect_to_vec::<u8, u32>(bytes)
            .iter()
            .map(|&v| f64::from(v))
            .collect(),
        DType::I32 => bytemuck::pod_collect_to_vec::<u8, i32>(bytes)
            .iter()
            .map(|&v| f64::from(v))
            .collect(),
        _ => {
            let elements = bytes.len() / dtype.block_bytes() * dtype.block_len();
            let mut out = vec![0f32; elements];
            crate::dequant::to_f32(dtype, bytes, &mut out)?;
            out.iter().map(|&v| f64::from(v)).collect()
        }
    })
}

/// Writes f64 values back in the operand's element type.
pub(crate) fn from_f64(dtype: DType, values: &[f64], bytes: &mut [u8]) -> Result<()> {
    match dtype {
        DType::F32 => put(values, bytes, |v| (v as f32).to_le_bytes()),
        DType::F16 => put(values, bytes, |v| half::f16::from_f64(v).to_le_bytes()),
        DType::BF16 => put(values, bytes, |v| half::bf16::from_f64(v).to_le_bytes()),
        DType::U32 => put(values, bytes, |v| (v as u32).to_le_bytes()),
        DType::I32 => put(values, bytes, |v| (v as i32).to_le_bytes()),
        DType::Q8_0 => {
            let blocks: &mut [BlockQ8_0] = bytemuck::cast_slice_mut(bytes);
            for (block, values) in blocks.iter_mut().zip(values.as_chunks::<32>().0) {
                let (mut before, now) = ([0f32; 32], values.map(|v| v as f32));
                block.dequantize(&mut before);
                // What nothing was written to keeps its bytes.
                if before != now {
                    *block = crate::rope_kv::cpu::rounded(&now);
                }
            }
        }
        other => {
            return Err(Error::Unsupported(format!(
                "a reference that writes {other}"
            )));
        }
    }
    Ok(())
}

fn put<const N: usize>(values: &[f64], bytes: &mut [u8], f: impl Fn(f64) -> [u8; N]) {
    for (chunk, &v) in bytes.chunks_exact_mut(N).zip(values) {
        chunk.copy_from_slice(&f(v));
    }
}

/// Runs the reference over operand bytes.
pub(crate) fn run(
    kernel: &dyn Kernel,
    call: &Call<'_>,
    reads: &[&[u8]],
    writes: &mut [&mut [u8]],
) -> Result<()> {
    let (mut r, mut w) = (reads.iter(), writes.iter());
    let mut values = Vec::with_capacity(call.operands.len());
    for (operand, view) in kernel.operands().iter().zip(call.operands) {
        let bytes: Option<&[u8]> = match operand.access {
            Access::Read => r.next().copied(),
            _ => w.next().map(|b| &**b),
        };
        values.push(to_f64(view.dtype, bytes.unwrap_or_default())?);
    }
    kernel.reference(call, &mut values);
    let mut out = writes.iter_mut();
    for ((operand, view), value) in kernel.operands().iter().zip(call.operands).zip(&values) {
        if operand.access != Access::Read
            && let Some(bytes) = out.next()
        {
            from_f64(view.dtype, value, bytes)?;
        }
    }
    Ok(())
}
