//! Bringing tensors onto a device, one at a time.
//!
//! While a load is planned (see [`crate::stream`]) matrices and vectors are allocated here and filled after the model is put
//! together: a model's `load` must not compute with them. What it computes with it asks for with [`Loader::host`].
//!
//! Names are upstream's; [`Loader`] tries the prefixes checkpoints carry and, for GGUF, the model's rename. Every tensor is
//! checked for its shape and, as its bytes pass, for NaN and infinity.

use crate::adapter::{Merged, merge_rows};
use crate::checkpoint::{Checkpoint, Config};
use crate::dtypes;
use crate::fill::{Fill, check_finite};
use crate::narrow;
use crate::{Error, Result};
use firelight_kernels::harness::random_weight;
use firelight_kernels::{Array, DType, Device, Holder, Site, Weight};
use firelight_tensor::TensorInfo;
use std::ops::Range;

pub use crate::layers::{Linear, RmsNorm};

/// Prefixes a text model's tensors may have.
pub(crate) const PREFIXES: [&str; 8] = [
    "model.",
    "model.text_model.",
    "",
    "transformer.",
    "model.language_model.",
    "language_model.model.",
    "bert.",
    "distilbert.",
];

/// Called with bytes loaded and bytes in all.
pub type LoadProgress<'a> = dyn FnMut(u64, u64) + 'a;

/// See the module's head.
pub struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    rename: fn(&str) -> Option<String>,
    progress: &'a mut LoadProgress<'a>,
    loaded: u64,
    /// Elements of a head, if the file has the rows of queries and keys in GGUF's order.
    adjacent: Option<usize>,
    /// Part of the names of layers that the file has in an order of its own.
    reordered: Option<&'static str>,
}

impl<'a> Loader<'a> {
    /// A loader; `rename` turns an upstream name into GGUF's.
    pub fn new(
        checkpoint: &'a Checkpoint,
        device: &'a Device,
        rename: fn(&str) -> Option<String>,
        progress: &'a mut LoadProgress<'a>,
    ) -> Self {
        Loader {
            checkpoint,
            device,
            rename,
            progress,
            loaded: 0,
            adjacent: None,
            reordered: None,
        }
    }

    /// Says that the file has the rows of `q_proj` and `k_proj` permuted so that neighbours turn together (GGUF's llama): adapters are
    /// made for upstream's order.
    pub fn adjacent_heads(&mut self, head_dim: usize) {
        self.adjacent = Some(head_dim.max(2));
    }

    /// Says that layers with `part` in their name are in an order that adapters cannot be brought to: they get none.
    pub fn reordered(&mut self, part: &'static str) {
        self.reordered = Some(part);
    }

    /// What adapters know the rows `pieces` of tensor `name`, which has `all`, by.
    fn site(&self, name: &str, pieces: &[Range<usize>], all: usize) -> Option<Site> {
        let name = name.strip_suffix(".weight").unwrap_or(name);
        if self.reordered.is_some_and(|part| name.contains(part)) {
            return None;
        }
        let turned = self
            .adjacent
            .filter(|_| name.ends_with(".q_proj") || name.ends_with(".k_proj"));
        let rows = match turned {
            None => pieces.to_vec(),
            // Row 2i + j of a head in the file is upstream's row j · HD/2 + i.
            Some(hd) => {
                let upstream = |row: usize| {
                    let (head, row) = (row / hd, row % hd);
                    let at = head * hd + row % 2 * (hd / 2) + row / 2;
                    at..at + 1
                };
                pieces.iter().cloned().flatten().map(upstream).collect()
            }
        };
        Some(Site {
            name: name.to_owned(),
            rows,
            all,
        })
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> &'a Checkpoint {
        self.checkpoint
    }

    /// True for a GGUF file.
    pub fn is_gguf(&self) -> bool {
        matches!(self.checkpoint.config(), Ok(Config::Gguf(_)))
    }

    fn find(&self, name: &str) -> Option<&'a TensorInfo> {
        let weights = self.checkpoint.weights();
        if self.is_gguf() {
            return (self.rename)(name).and_then(|n| weights.info(&n));
        }
        PREFIXES
            .iter()
            .find_map(|p| weights.info(&format!("{p}{name}")))
    }

    /// True if the checkpoint has this tensor.
    pub fn has(&self, name: &str) -> bool {
        if self.checkpoint.synthetic_dtype().is_some() {
            let tied = match self.checkpoint.config() {
                Ok(Config::Json(v)) => {
                    v.get("tie_word_embeddings") != Some(&serde_json::Value::Bool(false))
                }
                _ => true,
            };
            return name == "lm_head.weight" && !tied;
        }
        self.find(name).is_some()
    }

    fn require(&self, name: &str, shape: &[usize]) -> Result<&'a TensorInfo> {
        let file = || self.checkpoint.root().display().to_string();
        let Some(info) = self.find(name) else {
            let known = (self.rename)(name).filter(|_| self.is_gguf());
            let wanted = known.unwrap_or_else(|| format!("model.{name}"));
            let unread = self
                .checkpoint
                .weights()
                .unsupported()
                .iter()
                .find(|t| t.name == wanted);
            if let Some(tensor) = unread {
                return Err(Error::Unsupported(format!(
                    "tensor `{wanted}` is {}; requantise the model to a type this version reads (q4_0 … q6_k, q8_0, f16)",
                    tensor.type_name
                )));
            }
            return Err(Error::malformed(
                file(),
                format!("tensor `{wanted}` is missing"),
            ));
        };
        let found: &[usize] = info.shape.dims();
        // GGUF writes vectors with one dimension, some exporters [1, n].
        let same = found == shape
            || found
                .iter()
                .filter(|&&d| d != 1)
                .eq(shape.iter().filter(|&&d| d != 1));
        if !same {
            return Err(Error::malformed(
                file(),
                format!(
                    "tensor `{}` has shape {found:?}, expected {shape:?} by the configuration",
                    info.name
                ),
            ));
        }
        Ok(info)
    }

    fn advance(&mut self, bytes: usize) {
        self.loaded += bytes as u64;
        let total = self.checkpoint.weights().total_bytes();
        (self.progress)(self.loaded.min(total), total);
    }

    /// The matrix `name.weight` `[rows, cols]`, as it is stored.
    ///
    /// # Errors
    /// `Malformed` if it is missing, has another shape or holds NaN; `Device` if memory runs out.
    pub fn weight(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weight> {
        self.matrix(
            &format!("{name}.weight"),
            &[rows, cols],
            std::slice::from_ref(&(0..rows)),
        )
    }

    /// Rows of the matrix `name.weight` `[all, cols]`: one of several that a checkpoint keeps as one.
    ///
    /// # Errors
    /// As [`Loader::weight`].
    pub fn weight_part(
        &mut self,
        name: &str,
        rows: Range<usize>,
        all: usize,
        cols: usize,
    ) -> Result<Weight> {
        self.matrix(
            &format!("{name}.weight"),
            &[all, cols],
            std::slice::from_ref(&rows),
        )
    }

    /// The table of a vocabulary: as [`Loader::weight`], but a wrong number of rows is told by its field.
    ///
    /// # Errors
    /// As [`Loader::weight`].
    pub fn table(
        &mut self,
        name: &str,
        (field, rows): (&str, usize),
        cols: usize,
    ) -> Result<Weight> {
        let found = self.find(&format!("{name}.weight"));
        if let Some(&[n, _]) = found.map(|info| info.shape.dims())
            && n != rows
        {
            return Err(Error::malformed(
                self.checkpoint.root().display().to_string(),
                format!("`{field}` is {rows}, but tensor `{name}.weight` has {n} rows"),
            ));
        }
        self.weight(name, rows, cols)
    }

    /// Rows of the tensor `name`, whose last dimension is a row and the others count rows: the `pieces` one after the other.
    ///
    /// # Errors
    /// As [`Loader::weight`].
    pub fn matrix(
        &mut self,
        name: &str,
        shape: &[usize],
        pieces: &[Range<usize>],
    ) -> Result<Weight> {
        let (all, cols) = match shape {
            [rows @ .., cols] => (rows.iter().product::<usize>(), *cols),
            [] => (0, 0),
        };
        let rows = pieces.iter().map(Range::len).sum();
        if let Some(dtype) = self.checkpoint.synthetic_dtype() {
            // Narrow rows take the nearest type whose blocks fit.
            let dtype = if cols.is_multiple_of(dtype.block_len()) {
                dtype
            } else {
                DType::F16
            };
            let scale = (cols as f32).powf(-0.5);
            return Weight::load::<Error>(self.device, dtype, rows, cols, |first, bytes| {
                Ok(random_weight(dtype, bytes, scale, first + rows as u64)?)
            });
        }
        let info = self.require(name, shape)?;
        let dtype = info.dtype;
        if !dtype.is_float() && !dtype.is_quantized() {
            return Err(Error::Unsupported(format!(
                "tensor `{}` is {dtype}; weights are floats or quantised",
                info.name
            )));
        }
        if pieces.iter().any(|p| p.end > all) {
            return Err(Error::invalid(format!("rows {pieces:?} of {shape:?}")));
        }
        let site = self.site(name, pieces, all);
        let merging = site
            .as_ref()
            .filter(|s| self.checkpoint.merge().touches(&s.name));
        let weight = match merging {
            Some(site) => {
                let (weights, row_bytes) = (self.checkpoint.weights(), dtype.bytes_for(cols)?);
                let in_file: Vec<usize> = pieces.iter().cloned().flatten().collect();
                self.merged(info, site, (rows, cols), |first, bytes| {
                    let rows = in_file.iter().skip(first);
                    for (at, bytes) in rows.zip(bytes.chunks_mut(row_bytes)) {
                        weights.read_part(&info.name, at * row_bytes, bytes)?;
                        check_finite(info, (at * row_bytes) as u64, bytes)?;
                    }
                    Ok(())
                })?
            }
            None => self.rows_of(info, (rows, cols), pieces)?,
        };
        Ok(match site {
            Some(site) => weight.at_site(site),
            None => weight,
        })
    }

    /// The matrix of which `read(first row, bytes)` gives rows in `info`'s type, checked, with adapters merged into them: a block of rows at a
    /// time, so that the host does not hold the matrix.
    fn merged(
        &mut self,
        info: &TensorInfo,
        site: &Site,
        (rows, cols): (usize, usize),
        read: impl Fn(usize, &mut [u8]) -> Result<()>,
    ) -> Result<Weight> {
        let (merge, dtype) = (self.checkpoint.merge(), info.dtype);
        let held = match self.checkpoint.dtypes().of(&info.name, dtype, cols) {
            same if same == dtype && dtype.is_float() => DType::F32,
            other => other,
        };
        let (row_bytes, held_row) = (dtype.bytes_for(cols)?, held.bytes_for(cols)?);
        let block = ((1 << 20) / cols.max(1)).max(1);
        let mut stored = Vec::new();
        let weight = Weight::load::<Error>(self.device, held, rows, cols, |first, bytes| {
            let mut row = first as usize / held_row;
            for out in bytes.chunks_mut(block * held_row) {
                let count = out.len() / held_row;
                stored.resize(count * row_bytes, 0);
                read(row, &mut stored)?;
                merge_rows(merge, site, (row, cols), (dtype, &stored), (held, out))?;
                row += count;
            }
            Ok(())
        })?;
        merge.note(Merged {
            layer: site.name.clone(),
            stored: dtype,
            held,
        });
        self.advance(rows * row_bytes);
        Ok(weight)
    }

    /// The matrix `[rows, cols]` that `read(first row, bytes)` gives the rows of in `info`'s type.
    fn converted(
        &self,
        info: &TensorInfo,
        rows: usize,
        cols: usize,
        read: impl Fn(usize, &mut [u8]) -> Result<()> + Sync,
    ) -> Result<Weight> {
        let (checkpoint, device) = (self.checkpoint, self.device);
        narrow::retried(checkpoint, || {
            let to = narrow::held(checkpoint, device, info, cols)?;
            let row_bytes = to.bytes_for(cols)?;
            Weight::load(device, to, rows, cols, |first, bytes| {
                let first = first as usize / row_bytes;
                if to == info.dtype {
                    return read(first, bytes);
                }
                dtypes::convert(info, cols, to, bytes, |row, bytes| {
                    read(first + row, bytes)?;
                    narrow::check(checkpoint, device, info, (cols, to), bytes)
                })
            })
        })
    }

    /// The matrix `[rows, cols]` of which the checkpoint has the transpose `name.weight` `[cols, rows]` (GPT-2's `Conv1D`;
    /// GGUF has it the right way round). Floats only, turned on the host.
    ///
    /// # Errors
    /// As [`Loader::weight`].
    pub fn transposed(
        &mut self,
        name: &str,
        rows: Range<usize>,
        all: usize,
        cols: usize,
    ) -> Result<Weight> {
        if self.is_gguf() || self.checkpoint.synthetic_dtype().is_some() {
            return self.weight_part(name, rows, all, cols);
        }
        let name = format!("{name}.weight");
        let info = self.require(&name, &[cols, all])?;
        let dtype = info.dtype;
        if !dtype.is_float() || dtype.block_len() != 1 {
            return Err(Error::Unsupported(format!(
                "tensor `{}` is {dtype}; a matrix stored as [in, out] is read as floats",
                info.name
            )));
        }
        let tensor = self.checkpoint.weights().read(&info.name)?;
        let size = dtype.block_bytes();
        let stored = tensor.bytes();
        check_finite(info, 0, stored)?;
        let read = |first: usize, bytes: &mut [u8]| {
            for (i, out) in bytes.chunks_exact_mut(size).enumerate() {
                let (row, col) = (rows.start + first + i / cols, i % cols);
                out.copy_from_slice(&stored[(col * all + row) * size..][..size]);
            }
            Ok(())
        };
        let site = self.site(&name, std::slice::from_ref(&rows), all);
        let merging = site
            .as_ref()
            .filter(|s| self.checkpoint.merge().touches(&s.name));
        let weight = match merging {
            Some(site) => self.merged(info, site, (rows.len(), cols), read)?,
            None => {
                let weight = self.converted(info, rows.len(), cols, read)?;
                self.advance(info.nbytes * rows.len() / all.max(1));
                weight
            }
        };
        Ok(match site {
            Some(site) => weight.at_site(site),
            None => weight,
        })
    }

    /// Rows of a tensor that has rows of `cols` elements, in the type that it is to be held in: the `pieces` one after the other.
    fn rows_of(
        &mut self,
        info: &TensorInfo,
        (rows, cols): (usize, usize),
        pieces: &[Range<usize>],
    ) -> Result<Weight> {
        narrow::retried(self.checkpoint, || {
            let held = narrow::held(self.checkpoint, self.device, info, cols)?;
            let weight = Weight::empty(self.device, held, rows, cols)?;
            self.fill_weight(info, &weight, pieces)?;
            Ok(weight)
        })
    }

    /// Fills a weight with rows of a tensor that has the same row length: the `pieces` one after the other.
    fn fill_weight(
        &mut self,
        info: &TensorInfo,
        weight: &Weight,
        pieces: &[Range<usize>],
    ) -> Result<()> {
        let row_bytes = info.dtype.bytes_for(weight.cols())? as u64;
        for shard in weight.shards() {
            let rows = shard.array.shape().first().copied().unwrap_or(0);
            let wanted = shard.row0..shard.row0 + rows;
            let mut first = 0;
            for piece in pieces {
                // Rows of the weight that this piece gives to this shard.
                let start = wanted.start.max(first);
                let end = wanted.end.min(first + piece.len());
                if start < end {
                    let from = (piece.start + start - first) as u64 * row_bytes;
                    self.fill(Fill {
                        info: info.clone(),
                        bytes: from..from + (end - start) as u64 * row_bytes,
                        array: shard.array.clone(),
                        at: ((start - wanted.start) * weight.row_bytes()) as u64,
                        to_f32: false,
                        cols: weight.cols(),
                    })?;
                }
                first += piece.len();
            }
        }
        Ok(())
    }

    /// Fills an array, now or when the planned load is run.
    fn fill(&mut self, fill: Fill) -> Result<()> {
        if let Some(fill) = self.checkpoint.postpone(fill) {
            let len = fill.bytes.end - fill.bytes.start;
            fill.run(self.checkpoint, self.device, 0, len)?;
            self.advance(len as usize);
        }
        Ok(())
    }

    /// Values made on the host, as f32 `[n]` on the device.
    ///
    /// # Errors
    /// `Device` if memory runs out.
    pub fn upload(&self, values: &[f32]) -> Result<Array> {
        let bytes = bytemuck::cast_slice(values);
        let array = self
            .device
            .upload(DType::F32, &[values.len()], bytes, Holder::Weights)?;
        Ok(array)
    }

    /// The vector `name` `[n]` in f32, whatever it is stored in.
    ///
    /// # Errors
    /// As [`Loader::weight`].
    pub fn vector(&mut self, name: &str, n: usize) -> Result<Array> {
        if self.checkpoint.synthetic_dtype().is_some() {
            let ones = vec![1.0f32; n];
            let bytes = bytemuck::cast_slice(&ones);
            return Ok(self
                .device
                .upload(DType::F32, &[n], bytes, Holder::Weights)?);
        }
        let info = self.require(name, &[n])?;
        let array = self.device.array(DType::F32, &[n], Holder::Weights)?;
        self.fill(Fill {
            info: info.clone(),
            bytes: 0..info.nbytes as u64,
            array: array.clone(),
            at: 0,
            to_f32: true,
            cols: n,
        })?;
        Ok(array)
    }

    /// A scalar that may be infinite: a bound.
    ///
    /// # Errors
    /// As [`Loader::weight`]; NaN is `Malformed`.
    pub fn bound(&mut self, name: &str) -> Result<f32> {
        if self.checkpoint.synthetic_dtype().is_some() {
            return Ok(f32::INFINITY.copysign(if name.ends_with("min") { -1.0 } else { 1.0 }));
        }
        let info = self.require(name, &[])?;
        let tensor = self.checkpoint.weights().read(&info.name)?;
        self.advance(info.nbytes);
        let value = tensor.to_f32_vec()?.first().copied().unwrap_or(f32::NAN);
        if value.is_nan() {
            return Err(Error::malformed(name, "NaN; expected a bound"));
        }
        Ok(value)
    }

    /// A small tensor's values on the host.
    ///
    /// # Errors
    /// As [`Loader::weight`].
    pub fn host(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        if self.checkpoint.synthetic_dtype().is_some() {
            return Ok(vec![1.0; shape.iter().product()]);
        }
        let info = self.require(name, shape)?;
        let tensor = self.checkpoint.weights().read(&info.name)?;
        check_finite(info, 0, tensor.bytes())?;
        self.advance(info.nbytes);
        Ok(tensor.to_f32_vec()?)
    }
}

mod layers;
#[cfg(test)]
mod tests;
