//! Writing GGUF version 3, streamed: the directory first, then one tensor after another.

use super::types::GgmlType;
use super::value::{Array, StrArray, Value};
use super::{DEFAULT_ALIGNMENT, Metadata};
use crate::{DType, Error, Result, Shape, Tensor};
use std::collections::HashSet;
use std::io::Write;

/// Collects metadata and a directory, then streams the tensors.
///
/// Tensors are declared with [`Writer::tensor`] and written, in that order, through the [`DataWriter`] that
/// [`Writer::start`] gives: only one has to be in memory at a time.
#[derive(Default)]
pub struct Writer {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Entry>,
    names: HashSet<String>,
    keys: HashSet<String>,
}

struct Entry {
    name: String,
    dtype: DType,
    shape: Shape,
    nbytes: usize,
}

impl Writer {
    /// A writer of an empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metadata entry; entries keep their order. `general.alignment` sets the alignment.
    ///
    /// # Errors
    /// `InvalidInput` if the key is taken, or is an alignment that is no power of two.
    pub fn metadata(&mut self, key: &str, value: impl Into<Value>) -> Result<&mut Self> {
        let value = value.into();
        if key == "general.alignment" && !matches!(value, Value::U32(a) if a.is_power_of_two()) {
            return Err(Error::invalid(
                "general.alignment: expected a u32 that is a power of two",
            ));
        }
        if !self.keys.insert(key.to_owned()) {
            return Err(Error::invalid(format!("metadata key `{key}` is taken")));
        }
        self.metadata.push((key.to_owned(), value));
        Ok(self)
    }

    /// Adds every entry of `metadata`.
    ///
    /// # Errors
    /// As [`Writer::metadata`].
    pub fn all_metadata(&mut self, metadata: &Metadata) -> Result<&mut Self> {
        for (key, value) in metadata.iter() {
            self.metadata(key, value.clone())?;
        }
        Ok(self)
    }

    /// Declares the next tensor: row-major shape, outermost first.
    ///
    /// # Errors
    /// `InvalidInput` if the name is taken or the rows are no whole blocks; `Unsupported` for u8, u32 and bool, which the
    /// format lacks.
    pub fn tensor(&mut self, name: &str, dtype: DType, shape: &[usize]) -> Result<&mut Self> {
        let shape = Shape::new(shape)?;
        crate::header::check_rank(&shape)?;
        let nbytes = crate::tensor::checked_bytes(dtype, &shape)?;
        if GgmlType::id_of(dtype).is_none() {
            return Err(Error::Unsupported(format!(
                "tensor `{name}`: GGUF has no type for {dtype}"
            )));
        }
        if !self.names.insert(name.to_owned()) {
            return Err(Error::invalid(format!("tensor name `{name}` is taken")));
        }
        self.tensors.push(Entry {
            name: name.to_owned(),
            dtype,
            shape,
            nbytes,
        });
        Ok(self)
    }

    /// Writes the header; the tensors' bytes follow through the returned writer.
    ///
    /// # Errors
    /// `Io` if writing fails.
    pub fn start<W: Write>(self, mut out: W) -> Result<DataWriter<W>> {
        let alignment = self.metadata.iter().find(|(k, _)| k == "general.alignment");
        let alignment = match alignment {
            Some((_, Value::U32(a))) => u64::from(*a),
            _ => DEFAULT_ALIGNMENT,
        };
        let mut head = Vec::from(*b"GGUF");
        head.extend(3u32.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_str(&mut head, key);
            head.extend(value.type_id().to_le_bytes());
            put_value(&mut head, value);
        }
        let mut offset = 0u64;
        for Entry {
            name,
            dtype,
            shape,
            nbytes,
        } in &self.tensors
        {
            put_str(&mut head, name);
            head.extend((shape.rank() as u32).to_le_bytes());
            shape
                .iter()
                .rev()
                .for_each(|&d| head.extend((d as u64).to_le_bytes()));
            let id = GgmlType::id_of(*dtype)
                .ok_or_else(|| Error::Unsupported(format!("GGUF has no type for {dtype}")))?;
            head.extend(id.to_le_bytes());
            head.extend(offset.to_le_bytes());
            offset = (offset + *nbytes as u64).next_multiple_of(alignment);
        }
        head.resize(head.len().next_multiple_of(alignment as usize), 0);
        out.write_all(&head).map_err(io)?;
        let mut pending = self.tensors;
        pending.reverse();
        Ok(DataWriter {
            out,
            pending,
            alignment: alignment as usize,
        })
    }

    /// Declares and writes all `tensors` at once.
    ///
    /// # Errors
    /// As [`Writer::tensor`] and [`Writer::start`].
    pub fn write_all<'a, W: Write>(
        mut self,
        out: W,
        tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<W> {
        let tensors: Vec<_> = tensors.into_iter().collect();
        for (name, tensor) in &tensors {
            self.tensor(name, tensor.dtype(), tensor.shape())?;
        }
        let mut data = self.start(out)?;
        for (name, tensor) in tensors {
            data.write(name, tensor.bytes())?;
        }
        data.finish()
    }
}

/// Takes the bytes of the declared tensors, in order.
pub struct DataWriter<W> {
    out: W,
    /// What is still to come, last first.
    pending: Vec<Entry>,
    alignment: usize,
}

impl<W: Write> DataWriter<W> {
    /// Writes the next tensor and its padding.
    ///
    /// # Errors
    /// `InvalidInput` if another tensor is next or the size is not the declared one; `Io`.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        match self.pending.last() {
            Some(e) if e.name == name && e.nbytes == bytes.len() => {}
            Some(e) => {
                return Err(Error::invalid(format!(
                    "expected tensor `{}` of {} bytes next, got `{name}` of {}",
                    e.name,
                    e.nbytes,
                    bytes.len()
                )));
            }
            None => return Err(Error::invalid(format!("tensor `{name}` was not declared"))),
        }
        self.pending.pop();
        self.out.write_all(bytes).map_err(io)?;
        let mut padding = bytes.len().next_multiple_of(self.alignment) - bytes.len();
        while padding > 0 {
            let n = padding.min(64);
            self.out.write_all(&[0; 64][..n]).map_err(io)?;
            padding -= n;
        }
        Ok(())
    }

    /// Ends the file and gives the output back.
    ///
    /// # Errors
    /// `InvalidInput` if a declared tensor was not written; `Io`.
    pub fn finish(mut self) -> Result<W> {
        if let Some(e) = self.pending.last() {
            return Err(Error::invalid(format!(
                "tensor `{}` was declared and not written",
                e.name
            )));
        }
        self.out.flush().map_err(io)?;
        Ok(self.out)
    }
}

fn io(e: std::io::Error) -> Error {
    Error::io("gguf output", e)
}

fn put_str(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.push(*v),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push((*v).into()),
        Value::String(v) => put_str(out, v),
        Value::Array(v) => put_array(out, v),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    out.extend(array.type_id().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend(v),
        Array::I8(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::U16(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::I16(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::U32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::I32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::F32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::Bool(v) => out.extend(v.iter().map(|&x| u8::from(x))),
        Array::String(v) => StrArray::iter(v).for_each(|s| put_str(out, s)),
        Array::Array(v) => v.iter().for_each(|a| put_array(out, a)),
        Array::U64(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::I64(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::F64(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
    }
}
