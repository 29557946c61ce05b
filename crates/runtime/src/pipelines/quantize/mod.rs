//! A GGUF file in other types, or a folder in the Hugging Face layout as a GGUF file: `firelight quantize`.
//!
//! Matrices are converted, vectors and metadata kept. One tensor is in memory at a time. The new file is written beside its name
//! and takes it at the end, so that no half file is ever found there.

mod folder;
mod learned;
mod vocabulary;

use crate::checkpoint::{Checkpoint, Config};
use crate::dtypes;
use crate::fill::check_finite;
use crate::{CancelToken, Dtypes, Error, Result};
use firelight_tensor::gguf::{Value, Writer};
use firelight_tensor::{AlignedBuf, DType, TensorInfo};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Tensors in all.
    pub tensors: usize,
    /// Those whose type changed.
    pub converted: usize,
    /// Bytes of the tensors before.
    pub bytes_before: u64,
    /// Bytes of the tensors now.
    pub bytes_now: u64,
}

/// A tensor of the new file.
struct Entry<'a> {
    name: String,
    info: &'a TensorInfo,
    order: Order,
    /// What is added to a vector's elements, and what the sums are multiplied with.
    offset: f32,
    factor: f32,
}

/// Where the rows of a matrix come from.
#[derive(Clone, Copy)]
enum Order {
    Same,
    /// In each head of so many rows the two halves are interleaved.
    Interleaved(usize),
    /// Its columns.
    Transposed,
}

impl Order {
    /// The row of the source that becomes row `row`.
    fn source(self, row: usize) -> usize {
        match self {
            Order::Same | Order::Transposed => row,
            Order::Interleaved(head) => {
                let (first, at) = (row - row % head, row % head);
                first + at / 2 + at % 2 * (head / 2)
            }
        }
    }
}

impl Entry<'_> {
    /// The shape in the new file.
    fn dims(&self) -> Vec<usize> {
        let mut dims = self.info.shape.dims().to_vec();
        if matches!(self.order, Order::Transposed) {
            dims.reverse();
        }
        dims
    }
}

/// All that a new file is made of.
struct Parts<'a> {
    metadata: Vec<(String, Value)>,
    entries: Vec<Entry<'a>>,
    /// Vectors that follow from the configuration.
    more: Vec<(String, Vec<f32>)>,
}

/// Writes `source` (a GGUF file or set, or a folder in the Hugging Face layout) to the single file `target` with its matrices as
/// `dtypes` says; a head that `dtypes` does not name keeps more bits, q6_k, beside block-quantised layers, as llama.cpp's
/// quantiser does. `progress` gets bytes read and bytes in all.
///
/// # Errors
/// `InvalidInput` if `target` exists or no type is named, `Unsupported` for a folder of a family or with a tokenizer that is not
/// written, or types this version does not read, `Malformed` if a value cannot be converted, `Cancelled`, `Io`.
pub fn quantize(
    source: &Path,
    target: &Path,
    dtypes: Dtypes,
    progress: &mut dyn FnMut(u64, u64),
    cancel: &CancelToken,
) -> Result<Written> {
    if dtypes.is_empty() {
        return Err(Error::invalid(
            "no type to convert to; expected for instance q4_k",
        ));
    }
    if target.exists() {
        return Err(Error::invalid(format!(
            "{} exists already; choose another name or remove it",
            target.display()
        )));
    }
    let checkpoint = Checkpoint::open(source)?.with_dtypes(dtypes)?;
    let weights = checkpoint.weights();
    if let Some(tensor) = weights.unsupported().first() {
        return Err(Error::Unsupported(format!(
            "tensor `{}` is {}, which this version does not read",
            tensor.name, tensor.type_name
        )));
    }
    let parts = match checkpoint.config()? {
        Config::Gguf(metadata) => Parts {
            metadata: metadata
                .iter()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            entries: weights.tensors().iter().map(same).collect(),
            more: Vec::new(),
        },
        Config::Json(config) => folder::parts(&checkpoint, config)?,
    };
    let plan: Vec<(&Entry<'_>, DType)> = parts
        .entries
        .iter()
        .map(|entry| (entry, target_type(entry, checkpoint.dtypes())))
        .collect();

    let mut writer = Writer::new();
    for (key, value) in &parts.metadata {
        // The parts of a split set become one file; the type of most tensors is counted anew.
        if !key.starts_with("split.") && key != "general.file_type" {
            writer.metadata(key, value.clone())?;
        }
    }
    if let Some(file_type) = file_type(&plan) {
        writer.metadata("general.file_type", Value::U32(file_type))?;
    }
    let version = "general.quantization_version";
    if !parts.metadata.iter().any(|(key, _)| key == version) {
        writer.metadata(version, Value::U32(2))?;
    }
    for (entry, dtype) in &plan {
        writer.tensor(&entry.name, *dtype, &entry.dims())?;
    }
    for (name, values) in &parts.more {
        writer.tensor(name, DType::F32, &[values.len()])?;
    }

    let part = Part::create(target)?;
    let mut out = writer.start(BufWriter::with_capacity(1 << 20, part.file()?))?;
    let total = weights.total_bytes();
    let mut written = Written {
        tensors: plan.len() + parts.more.len(),
        converted: 0,
        bytes_before: total,
        bytes_now: 0,
    };
    let mut done = 0;
    for (entry, dtype) in &plan {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        progress(done, total);
        let bytes = bytes(&checkpoint, entry, *dtype)?;
        written.converted += usize::from(*dtype != entry.info.dtype);
        written.bytes_now += bytes.len() as u64;
        out.write(&entry.name, &bytes)?;
        done += entry.info.nbytes as u64;
    }
    for (name, values) in &parts.more {
        out.write(name, bytemuck::cast_slice(values))?;
    }
    progress(done, total);
    let file = out
        .finish()?
        .into_inner()
        .map_err(|e| part.error(e.into_error()))?;
    file.sync_all().map_err(|e| part.error(e))?;
    part.rename(target)?;
    Ok(written)
}

fn same(info: &TensorInfo) -> Entry<'_> {
    Entry {
        name: info.name.clone(),
        info,
        order: Order::Same,
        offset: 0.0,
        factor: 1.0,
    }
}

/// Matrices are converted; a mixture's router and convolutions are not. Vectors of folders become f32, as llama.cpp wants them.
fn target_type(entry: &Entry<'_>, dtypes: Dtypes) -> DType {
    let info = entry.info;
    let number = info.dtype.is_float() || info.dtype.is_quantized();
    if info.shape.rank() < 2 && info.dtype.is_float() {
        return DType::F32;
    }
    let kept = ["_norm.weight", "ffn_gate_inp.weight", "conv1d.weight"];
    // Learned positions and segments are added as they are.
    let added = ["position_embd.weight", "token_types.weight"];
    if info.dtype.is_float() && added.contains(&entry.name.as_str()) {
        return DType::F32;
    }
    let matrix = info.shape.rank() >= 2 && entry.name.ends_with(".weight") && number;
    let cols = entry.dims().last().copied().unwrap_or(0);
    if !matrix || cols == 0 || kept.iter().any(|end| entry.name.ends_with(end)) {
        return info.dtype;
    }
    dtypes.of(&entry.name, info.dtype, cols)
}

/// A tensor of the new file.
fn bytes(checkpoint: &Checkpoint, entry: &Entry<'_>, to: DType) -> Result<AlignedBuf> {
    let (info, weights) = (entry.info, checkpoint.weights());
    let dims = entry.dims();
    let (rows, cols) = match &dims[..] {
        [rows @ .., cols] => (rows.iter().product::<usize>(), *cols),
        [] => (1, 1),
    };
    let row_bytes = info.dtype.bytes_for(cols)?;
    let turned = match entry.order {
        Order::Transposed => Some(transposed(checkpoint, info, cols)?),
        _ => None,
    };
    let read = |first: usize, bytes: &mut [u8]| -> Result<()> {
        match entry.order {
            Order::Same => weights.read_part(&info.name, first * row_bytes, bytes)?,
            Order::Transposed => {
                let from = turned.as_deref().and_then(|t| t.get(first * row_bytes..));
                let from = from.and_then(|f| f.get(..bytes.len())).unwrap_or_default();
                bytes.copy_from_slice(from);
            }
            order => {
                for (i, row) in bytes.chunks_exact_mut(row_bytes).enumerate() {
                    let from = order.source(first + i) * row_bytes;
                    weights.read_part(&info.name, from, row)?;
                }
            }
        }
        check_finite(info, (first * row_bytes) as u64, bytes)
    };
    let mut bytes = AlignedBuf::zeroed(rows * to.bytes_for(cols)?)?;
    match to == info.dtype {
        true => read(0, &mut bytes)?,
        false => dtypes::convert(info, cols, to, &mut bytes, read)?,
    }
    if (entry.offset, entry.factor) != (0.0, 1.0) && to == DType::F32 {
        for value in bytemuck::cast_slice_mut::<u8, f32>(&mut bytes) {
            *value = (*value + entry.offset) * entry.factor;
        }
    }
    Ok(bytes)
}

/// A float matrix `[cols, rows]` of the source as `[rows, cols]`.
fn transposed(checkpoint: &Checkpoint, info: &TensorInfo, cols: usize) -> Result<AlignedBuf> {
    let mut stored = AlignedBuf::zeroed(info.nbytes)?;
    checkpoint.weights().read_part(&info.name, 0, &mut stored)?;
    let (size, rows) = (
        info.dtype.bytes_for(1)?,
        info.shape.elements() / cols.max(1),
    );
    let mut turned = AlignedBuf::zeroed(info.nbytes)?;
    for (row, line) in turned.chunks_exact_mut((cols * size).max(1)).enumerate() {
        for (col, element) in line.chunks_exact_mut(size).enumerate() {
            element.copy_from_slice(&stored[(col * rows + row) * size..][..size]);
        }
    }
    Ok(turned)
}

/// llama.cpp's number for a file of mostly this type: the one that most bytes have.
fn file_type(plan: &[(&Entry<'_>, DType)]) -> Option<u32> {
    let number = |dtype: DType| {
        Some(match dtype {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::Q4_0 => 2,
            DType::Q4_1 => 3,
            DType::Q8_0 => 7,
            DType::Q5_0 => 8,
            DType::Q5_1 => 9,
            DType::Q2K => 10,
            DType::Q3K => 12,
            DType::Q4K => 15,
            DType::Q5K => 17,
            DType::Q6K => 18,
            DType::BF16 => 32,
            _ => return None,
        })
    };
    let elements = |dtype: DType| -> usize {
        plan.iter()
            .filter(|(_, d)| *d == dtype)
            .map(|(entry, _)| entry.info.shape.elements())
            .sum()
    };
    let most = plan.iter().map(|(_, d)| *d).max_by_key(|d| elements(*d))?;
    number(most)
}

/// A file on its way: removed unless it is renamed.
struct Part(PathBuf);

impl Part {
    fn create(target: &Path) -> Result<Self> {
        let mut name = target.as_os_str().to_owned();
        name.push(".part");
        let part = Part(PathBuf::from(name));
        File::create(&part.0).map_err(|e| part.error(e))?;
        Ok(part)
    }

    fn file(&self) -> Result<File> {
        File::create(&self.0).map_err(|e| self.error(e))
    }

    fn error(&self, source: std::io::Error) -> Error {
        Error::Io {
            path: self.0.display().to_string(),
            source,
        }
    }

    fn rename(self, target: &Path) -> Result<()> {
        std::fs::rename(&self.0, target).map_err(|e| self.error(e))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already where it was renamed.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firelight_tensor::{Tensor, Weights};

    fn file(folder: &Path) -> PathBuf {
        let matrix: Vec<f32> = (0..512 * 6)
            .map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0)
            .collect();
        let tensor = |shape: &[usize]| {
            let n = shape.iter().product();
            Tensor::from_f32(&matrix[..n], shape).expect("a tensor")
        };
        let tensors = [
            ("token_embd.weight", tensor(&[6, 512])),
            ("blk.0.attn_norm.weight", tensor(&[512])),
            ("blk.0.attn_q.weight", tensor(&[4, 512])),
            ("blk.0.ffn_up.weight", tensor(&[5, 288])),
            ("blk.0.ffn_gate_inp.weight", tensor(&[2, 512])),
        ];
        let mut writer = Writer::new();
        writer
            .metadata("general.architecture", "llama")
            .expect("a key");
        writer
            .metadata("general.file_type", Value::U32(0))
            .expect("a key");
        writer
            .metadata("tokenizer.ggml.model", "gpt2")
            .expect("a key");
        let path = folder.join("f32.gguf");
        let out = File::create(&path).expect("a file");
        writer
            .write_all(out, tensors.iter().map(|(n, t)| (*n, t)))
            .expect("written");
        path
    }

    #[test]
    fn matrices_change_and_the_rest_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let (source, target) = (file(dir.path()), dir.path().join("q4.gguf"));
        let (mut calls, cancel) = (0, CancelToken::new());
        let dtypes = "q4_k".parse().expect("parses");
        let written =
            quantize(&source, &target, dtypes, &mut |_, _| calls += 1, &cancel).expect("quantises");
        assert_eq!((written.tensors, written.converted), (5, 3));
        assert!(written.bytes_now < written.bytes_before / 2 && calls == 6);
        let (old, new) = (
            Weights::open_path(&source).expect("opens"),
            Weights::open_path(&target).expect("opens"),
        );
        let dtype = |name: &str| new.info(name).expect(name).dtype;
        // Tied: the embedding is the head. 288 is no multiple of 256.
        assert_eq!(dtype("token_embd.weight"), DType::Q6K);
        assert_eq!(dtype("blk.0.attn_q.weight"), DType::Q4K);
        assert_eq!(dtype("blk.0.ffn_up.weight"), DType::Q5_0);
        assert_eq!(dtype("blk.0.ffn_gate_inp.weight"), DType::F32);
        for info in old.tensors() {
            assert_eq!(new.info(&info.name).expect("there").shape, info.shape);
            let (a, b) = (old.read(&info.name), new.read(&info.name));
            let (a, b) = (a.expect("reads"), b.expect("reads"));
            let direct = a.cast(dtype(&info.name)).expect("casts");
            assert_eq!(direct.bytes(), b.bytes(), "{}", info.name);
        }
        let metadata = new.gguf_metadata().expect("metadata");
        assert_eq!(
            metadata.get("tokenizer.ggml.model"),
            Some(&Value::from("gpt2"))
        );
        assert_eq!(metadata.get("general.file_type"), Some(&Value::U32(18)));
        let again = quantize(&source, &target, dtypes, &mut |_, _| (), &cancel);
        assert!(again.expect_err("exists").to_string().contains("exists"));
    }

    #[test]
    fn cancelling_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a folder");
        let (source, target) = (file(dir.path()), dir.path().join("q8.gguf"));
        let cancel = CancelToken::new();
        let stop = &cancel;
        let mut progress = |done, _| {
            if done > 0 {
                stop.cancel();
            }
        };
        let result = quantize(
            &source,
            &target,
            "q8".parse().expect("q8"),
            &mut progress,
            &cancel,
        );
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }
}
