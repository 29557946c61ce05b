//! The JSON header, checked against the file's length before anything is believed.

use super::FORMAT;
use crate::header::{HeaderStep, MAX_RANK, MAX_TENSORS, TensorInfo, UnsupportedTensor, to_usize};
use crate::{DType, Error, Result, Shape};
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// The longest header read, in bytes: the reference implementation's bound.
pub const MAX_HEADER: u64 = 100_000_000;
/// The most `__metadata__` entries read.
const MAX_METADATA: u64 = 1 << 16;

/// A parsed and checked header.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Header {
    /// `__metadata__`, empty if the file has none.
    pub metadata: BTreeMap<String, String>,
    /// Tensors of known types in the order of their bytes; offsets are absolute.
    pub tensors: Vec<TensorInfo>,
    /// Tensors of other types.
    pub unsupported: Vec<UnsupportedTensor>,
    /// Where the data section starts, in bytes from the start of the file.
    pub data_start: u64,
}

/// Parses the header of a file of `total_len` bytes from its first bytes.
///
/// Asks for 8 bytes, then for the exact header length. `prefix` may be longer than the header.
///
/// # Errors
/// `Malformed` with the offset, or `Limit`.
pub fn parse_header(prefix: &[u8], total_len: u64) -> Result<HeaderStep<Header>> {
    if total_len < 8 {
        return Err(Error::malformed(
            FORMAT,
            0,
            format!("expected an 8-byte header length, the file has {total_len} bytes"),
        ));
    }
    let Some((len, rest)) = prefix.split_first_chunk::<8>() else {
        return Ok(HeaderStep::NeedMore(8));
    };
    let len = u64::from_le_bytes(*len);
    // A wrong magic first: a length of 2^60 is far more often another kind of file than a long header.
    if rest.first().is_some_and(|&b| b != b'{') || len < 2 {
        return Err(Error::malformed(
            FORMAT,
            if len < 2 { 0 } else { 8 },
            "expected a header length and a JSON object: is this a safetensors file?",
        ));
    }
    if len > MAX_HEADER {
        return Err(Error::Limit {
            what: "bytes of a safetensors header",
            max: MAX_HEADER,
            got: len,
        });
    }
    let data_start = 8 + len;
    if data_start > total_len {
        return Err(Error::malformed(
            FORMAT,
            0,
            format!("a header of {len} bytes in a file of {total_len}: the file is cut short"),
        ));
    }
    let Some(json) = rest.get(..to_usize(len)?) else {
        return Ok(HeaderStep::NeedMore(data_start));
    };
    let raw = RawHeader::parse(json)?;
    check(raw, data_start, total_len - data_start).map(HeaderStep::Done)
}

fn check(raw: RawHeader, data_start: u64, data_len: u64) -> Result<Header> {
    let mut entries = raw.tensors;
    entries.sort_by(|a, b| a.offsets.cmp(&b.offsets).then_with(|| a.name.cmp(&b.name)));
    let mut header = Header {
        metadata: raw.metadata,
        tensors: Vec::with_capacity(entries.len()),
        unsupported: Vec::new(),
        data_start,
    };
    let mut at = 0;
    for RawTensor {
        name,
        dtype,
        shape,
        offsets: [begin, end],
    } in entries
    {
        let fault = |what: String| Error::malformed(FORMAT, data_start.saturating_add(begin), what);
        if begin > end || end > data_len {
            return Err(fault(format!(
                "tensor `{name}` lies at {begin}..{end} of {data_len} data bytes{}",
                if begin > end {
                    ""
                } else {
                    ": the file is cut short"
                }
            )));
        }
        if begin != at {
            let kind = if begin < at {
                "overlaps the one before"
            } else {
                "leaves a hole before it"
            };
            return Err(fault(format!(
                "tensor `{name}` at {begin}..{end} {kind}, which ends at {at}"
            )));
        }
        at = end;
        let shape = Shape::new(shape).map_err(|e| fault(format!("tensor `{name}`: {e}")))?;
        let Some(dtype) = known_dtype(&dtype) else {
            header.unsupported.push(UnsupportedTensor {
                name,
                type_name: dtype,
                shape,
            });
            continue;
        };
        let nbytes = dtype
            .bytes_for(shape.elements())
            .map_err(|e| fault(format!("tensor `{name}`: {e}")))?;
        if nbytes as u64 != end - begin {
            return Err(fault(format!(
                "tensor `{name}` {dtype} {shape} takes {nbytes} bytes, its offsets {begin}..{end} give {}",
                end - begin
            )));
        }
        header.tensors.push(TensorInfo {
            name,
            dtype,
            shape,
            nbytes,
            part: 0,
            offset: data_start + begin,
        });
    }
    if at != data_len {
        return Err(Error::malformed(
            FORMAT,
            data_start + at,
            format!(
                "{} bytes after the last tensor belong to none",
                data_len - at
            ),
        ));
    }
    Ok(header)
}

fn known_dtype(name: &str) -> Option<DType> {
    Some(match name {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "I8" => DType::I8,
        "U8" => DType::U8,
        "I32" => DType::I32,
        "U32" => DType::U32,
        "I64" => DType::I64,
        "BOOL" => DType::Bool,
        _ => return None,
    })
}

/// The format's name of a type, or `None` for the block-quantised types it has no names for.
pub(super) fn dtype_name(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::I8 => "I8",
        DType::U8 => "U8",
        DType::I32 => "I32",
        DType::U32 => "U32",
        DType::I64 => "I64",
        DType::Bool => "BOOL",
        _ => return None,
    })
}

struct RawTensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    offsets: [u64; 2],
}

#[derive(Default)]
struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: Vec<RawTensor>,
}

impl RawHeader {
    /// One pass over the text; serde_json's own depth bound holds for nesting.
    fn parse(json: &[u8]) -> Result<Self> {
        let mut limit = None;
        let mut de = serde_json::Deserializer::from_slice(json);
        let parsed = HeaderSeed { limit: &mut limit }
            .deserialize(&mut de)
            .and_then(|header| de.end().map(|()| header));
        parsed.map_err(|e| {
            limit.unwrap_or_else(|| {
                Error::malformed(
                    FORMAT,
                    8 + json_offset(json, &e) as u64,
                    format!("header: {e}"),
                )
            })
        })
    }
}

/// The byte offset of a serde_json error, which comes as a line and a column, both from 1.
pub(super) fn json_offset(json: &[u8], error: &serde_json::Error) -> usize {
    let line_start = match error.line().checked_sub(2) {
        Some(n) => {
            let newlines = json.iter().enumerate().filter(|&(_, &b)| b == b'\n');
            newlines.map(|(i, _)| i + 1).nth(n).unwrap_or(0)
        }
        None => 0,
    };
    (line_start + error.column().saturating_sub(1)).min(json.len())
}

/// Collects the header; a passed bound is left in `limit`, because serde errors are only text.
struct HeaderSeed<'a> {
    limit: &'a mut Option<Error>,
}

impl HeaderSeed<'_> {
    fn within<E: serde::de::Error>(
        &mut self,
        what: &'static str,
        max: u64,
        got: u64,
    ) -> Result<(), E> {
        if got > max {
            *self.limit = Some(Error::Limit { what, max, got });
            return Err(E::custom("limit"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_> {
    type Value = RawHeader;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<RawHeader, D::Error> {
        de.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut header = RawHeader::default();
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            self.within("safetensors tensors", MAX_TENSORS, names.len() as u64 + 1)?;
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("duplicate name `{name}`")));
            }
            if name == "__metadata__" {
                header.metadata = map.next_value_seed(MetadataSeed(&mut self))?;
            } else {
                let Entry {
                    dtype,
                    shape,
                    offsets,
                } = map.next_value()?;
                header.tensors.push(RawTensor {
                    name,
                    dtype,
                    shape: shape.0,
                    offsets,
                });
            }
        }
        Ok(header)
    }
}

struct MetadataSeed<'a, 'b>(&'a mut HeaderSeed<'b>);

impl<'de> DeserializeSeed<'de> for MetadataSeed<'_, '_> {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        de.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MetadataSeed<'_, '_> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut metadata = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            self.0.within(
                "safetensors metadata entries",
                MAX_METADATA,
                metadata.len() as u64 + 1,
            )?;
            let value = map.next_value::<String>()?;
            if let Some(_old) = metadata.insert(key, value) {
                return Err(A::Error::custom("duplicate metadata key"));
            }
        }
        Ok(metadata)
    }
}

/// One tensor's entry; serde's derived field visitor refuses repeated fields.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Dims,
    #[serde(rename = "data_offsets")]
    offsets: [u64; 2],
}

/// A dimension list bounded while it is read, so that a long one is never collected.
struct Dims(Vec<usize>);

impl<'de> serde::Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct DimsVisitor;
        impl<'de> Visitor<'de> for DimsVisitor {
            type Value = Dims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dims, A::Error> {
                let mut dims = Vec::new();
                while (dims.len() as u64) < MAX_RANK {
                    match seq.next_element()? {
                        Some(dim) => dims.push(dim),
                        None => return Ok(Dims(dims)),
                    }
                }
                match seq.next_element::<IgnoredAny>()? {
                    Some(_) => Err(A::Error::custom(format!("more than {MAX_RANK} dimensions"))),
                    None => Ok(Dims(dims)),
                }
            }
        }
        de.deserialize_seq(DimsVisitor)
    }
}
