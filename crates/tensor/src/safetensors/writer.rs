//! Writing safetensors, for tests, dumps and conversions.

use super::header::dtype_name;
use crate::{Error, Result, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// Writes tensors in the given order, with `metadata` as `__metadata__` (left out if empty).
///
/// # Errors
/// `Unsupported` for block-quantised tensors, which the format has no types for; `InvalidInput` for a repeated name;
/// `Io` if writing fails.
pub fn write<'a>(
    out: &mut dyn Write,
    metadata: &BTreeMap<String, String>,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    let tensors: Vec<_> = tensors.into_iter().collect();
    let header = header(metadata, &tensors)?;
    let io = |e| Error::io("safetensors output", e);
    out.write_all(&(header.len() as u64).to_le_bytes())
        .map_err(io)?;
    out.write_all(header.as_bytes()).map_err(io)?;
    for (_, tensor) in &tensors {
        out.write_all(tensor.bytes()).map_err(io)?;
    }
    out.flush().map_err(io)
}

/// [`write()`] into memory.
///
/// # Errors
/// As [`write()`].
pub fn write_to_vec<'a>(
    metadata: &BTreeMap<String, String>,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    write(&mut out, metadata, tensors)?;
    Ok(out)
}

/// The JSON text in file order, padded with spaces so that the data starts at a multiple of 8.
fn header(metadata: &BTreeMap<String, String>, tensors: &[(&str, &Tensor)]) -> Result<String> {
    let quote = |s: &str| serde_json::Value::from(s).to_string();
    let mut parts = Vec::with_capacity(tensors.len() + 1);
    if !metadata.is_empty() {
        let map =
            serde_json::Value::from_iter(metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        parts.push(format!("\"__metadata__\":{map}"));
    }
    let mut names = BTreeSet::from(["__metadata__"]);
    let mut at = 0u64;
    for (name, tensor) in tensors {
        if !names.insert(name) {
            return Err(Error::invalid(format!("tensor name `{name}` is taken")));
        }
        crate::header::check_rank(tensor.shape())?;
        let dtype = dtype_name(tensor.dtype()).ok_or_else(|| {
            Error::Unsupported(format!(
                "tensor `{name}`: safetensors has no type for {}; write GGUF or cast to f16 first",
                tensor.dtype()
            ))
        })?;
        let end = at + tensor.bytes().len() as u64;
        parts.push(format!(
            "{}:{{\"dtype\":\"{dtype}\",\"shape\":{},\"data_offsets\":[{at},{end}]}}",
            quote(name),
            serde_json::Value::from(tensor.shape()),
        ));
        at = end;
    }
    let mut header = format!("{{{}}}", parts.join(","));
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    Ok(header)
}
