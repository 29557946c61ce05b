//! Element type conversion between byte slices of any types.

use crate::{DType, Error, Result, convert, quant};

/// Any type to f32; `out` has as many elements as `bytes`.
pub(crate) fn to_f32(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    match dtype {
        DType::F16 => convert::f16_to_f32(bytes, out),
        DType::BF16 => convert::bf16_to_f32(bytes, out),
        DType::F32 => each(bytes, out, f32::from_le_bytes),
        DType::I8 => each(bytes, out, |b: [u8; 1]| i8::from_le_bytes(b).into()),
        DType::U8 => each(bytes, out, |b: [u8; 1]| b[0].into()),
        DType::Bool => each(bytes, out, |b: [u8; 1]| f32::from(b[0] != 0)),
        DType::I32 => each(bytes, out, |b| i32::from_le_bytes(b) as f32),
        DType::U32 => each(bytes, out, |b| u32::from_le_bytes(b) as f32),
        DType::I64 => each(bytes, out, |b| i64::from_le_bytes(b) as f32),
        _ => quant::dequantize_into(dtype, bytes, out),
    }
}

/// Any type to any other; `out` is the right size for `elements` of `to`.
pub(crate) fn cast(
    from: DType,
    bytes: &[u8],
    to: DType,
    out: &mut [u8],
    elements: usize,
) -> Result<()> {
    // Integers go to integers by way of i64, which holds them all; everything else by way of f32.
    if let (true, Some(values)) = (integer_size(to).is_some(), integers(from, bytes)) {
        return put_integers(to, values.into_iter().map(Some), out);
    }
    let mut values = crate::tensor::zeroed_f32(elements)?;
    to_f32(from, bytes, &mut values)?;
    match to {
        DType::F32 => {
            out.copy_from_slice(bytemuck::cast_slice(&values));
            Ok(())
        }
        DType::F16 => convert::f32_to_f16(&values, out),
        DType::BF16 => convert::f32_to_bf16(&values, out),
        DType::Bool => {
            // NaN is not zero.
            out.iter_mut()
                .zip(&values)
                .for_each(|(o, &v)| *o = u8::from(v != 0.0));
            Ok(())
        }
        _ if integer_size(to).is_some() => {
            // 2^63 is the first f32 beyond i64.
            let whole = |v: f32| (v.abs() < 9_223_372_036_854_775_808.0).then_some(v as i64);
            put_integers(to, values.into_iter().map(whole), out)
        }
        _ => quant::quantize_into(to, &values, out),
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) -> Result<()> {
    let (values, rest) = bytes.as_chunks::<N>();
    if values.len() != out.len() || !rest.is_empty() {
        return Err(Error::invalid(format!(
            "{} bytes for {} values of {N} bytes",
            bytes.len(),
            out.len()
        )));
    }
    out.iter_mut().zip(values).for_each(|(o, &v)| *o = f(v));
    Ok(())
}

fn integer_size(dtype: DType) -> Option<usize> {
    matches!(
        dtype,
        DType::I8 | DType::U8 | DType::I32 | DType::U32 | DType::I64 | DType::Bool
    )
    .then(|| dtype.block_bytes())
}

fn integers(dtype: DType, bytes: &[u8]) -> Option<Vec<i64>> {
    fn all<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> i64) -> Vec<i64> {
        bytes.as_chunks::<N>().0.iter().map(|&b| f(b)).collect()
    }
    Some(match dtype {
        DType::I8 => all(bytes, |b| i8::from_le_bytes(b).into()),
        DType::U8 => all(bytes, |b: [u8; 1]| b[0].into()),
        DType::Bool => all(bytes, |b: [u8; 1]| (b[0] != 0).into()),
        DType::I32 => all(bytes, |b| i32::from_le_bytes(b).into()),
        DType::U32 => all(bytes, |b| u32::from_le_bytes(b).into()),
        DType::I64 => all(bytes, i64::from_le_bytes),
        _ => return None,
    })
}

/// Writes integers, `None` standing for a float that is none.
fn put_integers(
    to: DType,
    values: impl Iterator<Item = Option<i64>>,
    out: &mut [u8],
) -> Result<()> {
    let size = to.block_bytes();
    for (i, (value, out)) in values.zip(out.chunks_exact_mut(size)).enumerate() {
        let fits = value.filter(|&v| match to {
            DType::I8 => i8::try_from(v).is_ok(),
            DType::U8 => u8::try_from(v).is_ok(),
            DType::I32 => i32::try_from(v).is_ok(),
            DType::U32 => u32::try_from(v).is_ok(),
            _ => true,
        });
        let Some(value) = fits else {
            return Err(Error::invalid(format!("element {i} does not fit {to}")));
        };
        let value = if to == DType::Bool {
            i64::from(value != 0)
        } else {
            value
        };
        out.copy_from_slice(&value.to_le_bytes()[..size]);
    }
    Ok(())
}
