//! The header: metadata, then the tensor directory, checked against the file's length as they are read.

use super::cursor::{Cursor, Stop};
use super::metadata::Metadata;
use super::types::GgmlType;
use super::value::{Array, StrArray, Value};
use super::{
    DEFAULT_ALIGNMENT, FORMAT, MAX_ARRAY_DEPTH, MAX_KEY, MAX_METADATA, MAX_NESTED, MAX_STRING,
};
use crate::header::{
    HeaderStep, MAX_RANK, MAX_TENSORS, TensorInfo, UnsupportedTensor, check_overlaps,
};
use crate::{Error, Result, Shape};
use std::collections::{BTreeMap, HashSet};

/// A parsed and checked header.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Header {
    /// The format version: 2 or 3.
    pub version: u32,
    /// The key-value part.
    pub metadata: Metadata,
    /// Tensors of known types, in file order; offsets are absolute.
    pub tensors: Vec<TensorInfo>,
    /// Tensors of other types.
    pub unsupported: Vec<UnsupportedTensor>,
    /// Every tensor starts at a multiple of this many bytes, counted from `data_start`.
    pub alignment: u64,
    /// Where the data section starts, in bytes from the start of the file.
    pub data_start: u64,
}

/// Parses the header of a file of `total_len` bytes from its first bytes.
///
/// # Errors
/// `Malformed` with the offset, `Limit`, or `Unsupported` for version 1 and big-endian files.
pub fn parse_header(prefix: &[u8], total_len: u64) -> Result<HeaderStep<Header>> {
    let mut cursor = Cursor::new(prefix, total_len);
    match header(&mut cursor) {
        Ok(header) => Ok(HeaderStep::Done(header)),
        Err(Stop::Fault(e)) => Err(e),
        // Twice the prefix each time keeps the cost of starting over at that of one more pass.
        Err(Stop::NeedMore(n)) => {
            let double = (prefix.len() as u64).saturating_mul(2);
            Ok(HeaderStep::NeedMore(n.max(double).min(total_len)))
        }
    }
}

fn header(c: &mut Cursor<'_>) -> Result<Header, Stop> {
    let magic: [u8; 4] = c.array("the magic")?;
    if magic != *b"GGUF" {
        return Err(Error::malformed(
            FORMAT,
            0,
            format!(
                "expected the magic \"GGUF\", found {:?}",
                magic.escape_ascii().to_string()
            ),
        )
        .into());
    }
    let version = c.u32("the version")?;
    if !(2..=3).contains(&version) {
        let what = match version {
            1 => "GGUF version 1; convert the file with a current llama.cpp".to_owned(),
            v if (1..=3).contains(&v.swap_bytes()) => "a big-endian GGUF file".to_owned(),
            v => format!("GGUF version {v}; versions read: 2 and 3"),
        };
        return Err(Error::Unsupported(what).into());
    }
    let tensor_count = count(c, "tensors", MAX_TENSORS, 24)?;
    let metadata_count = count(c, "metadata entries", MAX_METADATA, 13)?;
    let metadata = metadata(c, metadata_count)?;
    let alignment = metadata.get_u64("general.alignment");
    let alignment = match alignment.map_err(|e| c.fault(e.to_string()))? {
        None => DEFAULT_ALIGNMENT,
        Some(a) if a.is_power_of_two() => a,
        Some(a) => {
            return Err(c.fault(format!("general.alignment is {a}: expected a power of two")));
        }
    };
    directory(c, version, metadata, tensor_count, alignment)
}

/// A claimed count, believed only as far as the file is long: each item takes `item_min` bytes at least.
fn count(c: &mut Cursor<'_>, what: &'static str, max: u64, item_min: u64) -> Result<u64, Stop> {
    let at = c.pos();
    let n = c.u64(what)?;
    if n > (c.total() - c.pos()) / item_min {
        return Err(Error::malformed(
            FORMAT,
            at,
            format!("{n} {what} in a file of {} bytes", c.total()),
        )
        .into());
    }
    if n > max {
        return Err(Error::Limit { what, max, got: n }.into());
    }
    Ok(n)
}

fn metadata(c: &mut Cursor<'_>, n: u64) -> Result<Metadata, Stop> {
    let mut map = BTreeMap::new();
    let mut nested = 0;
    for _ in 0..n {
        let key = c.str(MAX_KEY, "a metadata key")?;
        if map.contains_key(key) {
            return Err(c.fault(format!("metadata key `{key}` appears twice")));
        }
        let kind = c.u32("a value type")?;
        let value = match kind {
            0 => Value::U8(c.array::<1>("a u8")?[0]),
            1 => Value::I8(i8::from_le_bytes(c.array("an i8")?)),
            2 => Value::U16(u16::from_le_bytes(c.array("a u16")?)),
            3 => Value::I16(i16::from_le_bytes(c.array("an i16")?)),
            4 => Value::U32(c.u32("a u32")?),
            5 => Value::I32(i32::from_le_bytes(c.array("an i32")?)),
            6 => Value::F32(f32::from_le_bytes(c.array("an f32")?)),
            7 => Value::Bool(bools(c, 1)?[0]),
            8 => Value::String(c.str(MAX_STRING, "a string value")?.to_owned()),
            9 => Value::Array(array(c, 1, &mut nested)?),
            10 => Value::U64(c.u64("a u64")?),
            11 => Value::I64(i64::from_le_bytes(c.array("an i64")?)),
            12 => Value::F64(f64::from_le_bytes(c.array("an f64")?)),
            _ => {
                return Err(c.fault(format!(
                    "metadata `{key}`: no value type has the number {kind}"
                )));
            }
        };
        map.insert(key.to_owned(), value);
    }
    Ok(Metadata(map))
}

fn array(c: &mut Cursor<'_>, depth: u64, nested: &mut u64) -> Result<Array, Stop> {
    let kind = c.u32("an element type")?;
    let n = c.u64("an array length")?;
    Ok(match kind {
        0 => Array::U8(numbers::<1, _>(c, n, |b| b[0])?),
        1 => Array::I8(numbers(c, n, i8::from_le_bytes)?),
        2 => Array::U16(numbers(c, n, u16::from_le_bytes)?),
        3 => Array::I16(numbers(c, n, i16::from_le_bytes)?),
        4 => Array::U32(numbers(c, n, u32::from_le_bytes)?),
        5 => Array::I32(numbers(c, n, i32::from_le_bytes)?),
        6 => Array::F32(numbers(c, n, f32::from_le_bytes)?),
        7 => Array::Bool(bools(c, n)?),
        8 => {
            // Every string has a length of 8 bytes, so `n` is bounded by bytes at hand.
            c.need(n.saturating_mul(8), "an array of strings")?;
            let mut strings = StrArray::with_capacity(n as usize);
            for _ in 0..n {
                strings.push(c.str(MAX_STRING, "a string of an array")?);
            }
            Array::String(strings)
        }
        9 => {
            *nested = nested.saturating_add(n);
            for (what, max, got) in [
                ("levels of nested GGUF arrays", MAX_ARRAY_DEPTH, depth + 1),
                ("nested GGUF arrays", MAX_NESTED, *nested),
            ] {
                if got > max {
                    return Err(Error::Limit { what, max, got }.into());
                }
            }
            c.need(n.saturating_mul(12), "an array of arrays")?;
            Array::Array(
                (0..n)
                    .map(|_| array(c, depth + 1, nested))
                    .collect::<Result<_, _>>()?,
            )
        }
        10 => Array::U64(numbers(c, n, u64::from_le_bytes)?),
        11 => Array::I64(numbers(c, n, i64::from_le_bytes)?),
        12 => Array::F64(numbers(c, n, f64::from_le_bytes)?),
        _ => return Err(c.fault(format!("no element type has the number {kind}"))),
    })
}

fn numbers<const N: usize, T>(
    c: &mut Cursor<'_>,
    n: u64,
    from: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, Stop> {
    let bytes = c.take(n.saturating_mul(N as u64), "an array of numbers")?;
    Ok(bytes.as_chunks::<N>().0.iter().map(|&b| from(b)).collect())
}

fn bools(c: &mut Cursor<'_>, n: u64) -> Result<Vec<bool>, Stop> {
    let at = c.pos();
    let bytes = c.take(n, "bools")?;
    if let Some(i) = bytes.iter().position(|&b| b > 1) {
        return Err(Error::malformed(
            FORMAT,
            at + i as u64,
            format!("expected a bool of 0 or 1, found {}", bytes[i]),
        )
        .into());
    }
    Ok(bytes.iter().map(|&b| b == 1).collect())
}

/// A directory entry as the file has it.
struct Entry {
    name: String,
    shape: Shape,
    kind: GgmlType,
    offset: u64,
    /// Where the entry stands in the file, for messages.
    at: u64,
}

fn directory(
    c: &mut Cursor<'_>,
    version: u32,
    metadata: Metadata,
    n: u64,
    alignment: u64,
) -> Result<Header, Stop> {
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..n {
        let entry = entry(c)?;
        if !names.insert(entry.name.clone()) {
            return Err(Error::malformed(
                FORMAT,
                entry.at,
                format!("tensor `{}` is listed twice", entry.name),
            )
            .into());
        }
        entries.push(entry);
    }
    let data_start = c
        .pos()
        .checked_next_multiple_of(alignment)
        .ok_or_else(|| c.fault(format!("alignment {alignment} leads beyond any file")))?;
    let mut header = Header {
        version,
        metadata,
        tensors: Vec::new(),
        unsupported: Vec::new(),
        alignment,
        data_start,
    };
    let mut ranges = Vec::with_capacity(entries.len());
    let names: Vec<_> = entries.iter().map(|e| e.name.clone()).collect();
    for (i, entry) in entries.into_iter().enumerate() {
        let (start, end) = place(&entry, &mut header, c.total())?;
        if end > start {
            ranges.push((start, end, i));
        }
    }
    check_overlaps(FORMAT, &mut ranges, |i| {
        names.get(i).cloned().unwrap_or_default()
    })?;
    Ok(header)
}

fn entry(c: &mut Cursor<'_>) -> Result<Entry, Stop> {
    let at = c.pos();
    let name = c.str(MAX_KEY, "a tensor name")?.to_owned();
    let rank = c.u32("the number of dimensions")?;
    if u64::from(rank) > MAX_RANK {
        return Err(Error::Limit {
            what: "dimensions of a tensor",
            max: MAX_RANK,
            got: rank.into(),
        }
        .into());
    }
    let mut dims = Vec::with_capacity(rank as usize);
    for _ in 0..rank {
        let dim = c.u64("a dimension")?;
        dims.push(usize::try_from(dim).map_err(|_| c.fault(format!("a dimension of {dim}")))?);
    }
    // The file lists the innermost dimension first.
    dims.reverse();
    let shape = Shape::new(dims)
        .map_err(|e| Error::malformed(FORMAT, at, format!("tensor `{name}`: {e}")))?;
    let kind = GgmlType::from_id(c.u32("a tensor type")?);
    let offset = c.u64("a tensor offset")?;
    Ok(Entry {
        name,
        shape,
        kind,
        offset,
        at,
    })
}

/// Checks one entry against the data section and files it in the header; gives its absolute byte range.
fn place(entry: &Entry, header: &mut Header, total: u64) -> Result<(u64, u64)> {
    let Entry {
        name,
        shape,
        kind,
        offset,
        at,
    } = entry;
    let fault = |what: String| Error::malformed(FORMAT, *at, format!("tensor `{name}`: {what}"));
    if !offset.is_multiple_of(header.alignment) {
        return Err(fault(format!(
            "offset {offset} is not a multiple of the alignment {}",
            header.alignment
        )));
    }
    let nbytes = match kind.block() {
        Some((len, bytes)) => {
            if !(shape.row_len() as u64).is_multiple_of(len) {
                return Err(fault(format!(
                    "rows of {} in {}: expected a multiple of {len}",
                    shape.row_len(),
                    kind.name()
                )));
            }
            (shape.elements() as u64 / len)
                .checked_mul(bytes)
                .ok_or_else(|| fault(format!("{shape} is larger than any file")))?
        }
        None => 0,
    };
    let start = header.data_start.checked_add(*offset);
    let end = start.and_then(|s| s.checked_add(nbytes));
    let (Some(start), Some(end)) = (start, end) else {
        return Err(fault(format!("offset {offset} leads beyond any file")));
    };
    if end > total && (nbytes > 0 || start > total) {
        return Err(fault(format!(
            "{nbytes} bytes at {start} in a file of {total}: the file is cut short"
        )));
    }
    match *kind {
        GgmlType::Known(dtype) => header.tensors.push(TensorInfo {
            name: name.clone(),
            dtype,
            shape: shape.clone(),
            nbytes: crate::header::to_usize(nbytes)?,
            part: 0,
            offset: start,
        }),
        _ => header.unsupported.push(UnsupportedTensor {
            name: name.clone(),
            type_name: kind.name(),
            shape: shape.clone(),
        }),
    }
    Ok((start, end))
}
