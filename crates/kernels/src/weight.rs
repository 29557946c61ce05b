//! A weight matrix, sharded by rows where the device's bindings are too small for the whole.

use crate::memory::Holder;
use crate::{Array, Device, Error, Result};
use firelight_tensor::DType;
use std::ops::Range;
use std::sync::Arc;

/// Rows `row0 ..` of a weight.
#[derive(Clone, Debug)]
pub struct Shard {
    /// The rows, `[rows, K]`.
    pub array: Array,
    /// Index of the first row in the whole weight.
    pub row0: usize,
}

/// Which rows of which tensor a weight is: what a [`Corrections`] knows it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The layer's name, without `.weight`.
    pub name: String,
    /// Ranges of the tensor's rows, one after the other.
    pub rows: Vec<Range<usize>>,
    /// Rows of the whole tensor.
    pub all: usize,
}

/// A low-rank matrix beside a weight's: `scale · B A`.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `[R, K]`.
    pub a: Weight,
    /// f32 `[R, N]`.
    pub b: Array,
    /// Factor.
    pub scale: f32,
}

/// What linear layers get on top of their weights while a recording is made; see [`crate::Recorder::correct`].
pub trait Corrections: Send + Sync {
    /// What is added to the layer of this weight.
    ///
    /// # Errors
    /// `InvalidInput` if it does not fit, `Device` if memory runs out.
    fn of(&self, device: &Device, weight: &Weight) -> Result<Vec<LowRank>>;
}

/// A matrix `[N, K]` of any weight type, packed as in its file. Kernels dequantise it where they use it.
#[derive(Clone, Debug)]
pub struct Weight {
    dtype: DType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    shards: Vec<Shard>,
    site: Option<Arc<Site>>,
}

impl Weight {
    /// Allocates an `[rows, cols]` weight of `dtype` on `device` and lets `fill(first_byte, bytes)` write its bytes,
    /// shard by shard.
    ///
    /// # Errors
    /// `InvalidInput` if a row is not a multiple of 8 elements or cuts a block, `Device` if memory runs out, or what
    /// `fill` returns.
    pub fn load<E: From<Error>>(
        device: &Device,
        dtype: DType,
        rows: usize,
        cols: usize,
        mut fill: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let weight = Self::empty(device, dtype, rows, cols)?;
        for shard in &weight.shards {
            let first = (shard.row0 * weight.row_bytes) as u64;
            device.fill(&shard.array, |bytes| fill(first, bytes))?;
        }
        Ok(weight)
    }

    /// Allocates an `[rows, cols]` weight of zeroes, whose shards are filled later.
    ///
    /// # Errors
    /// `InvalidInput` if a row is not a multiple of 8 elements or cuts a block, `Device` if memory runs out.
    pub fn empty(device: &Device, dtype: DType, rows: usize, cols: usize) -> Result<Self> {
        if !cols.is_multiple_of(8) || cols == 0 || rows == 0 {
            return Err(Error::invalid(format!(
                "weight [{rows}, {cols}]: rows must be a multiple of 8 elements, at least 8"
            )));
        }
        let row_bytes = dtype.bytes_for(cols)?;
        // Shards start on whole 64-row groups, so that every shard but the last has a word-aligned size.
        let fit = (device.caps().max_binding / row_bytes as u64).min(rows as u64) as usize;
        let per_shard = if fit >= rows {
            rows
        } else {
            (fit / 64 * 64).max(1)
        };
        let mut shards = Vec::new();
        for row0 in (0..rows).step_by(per_shard) {
            let count = per_shard.min(rows - row0);
            let array = device.array(dtype, &[count, cols], Holder::Weights)?;
            shards.push(Shard { array, row0 });
        }
        Ok(Weight {
            dtype,
            rows,
            cols,
            row_bytes,
            shards,
            site: None,
        })
    }

    /// A whole array `[N, K]` as a weight: rows of activations can be gathered like an embedding.
    ///
    /// # Errors
    /// `InvalidInput` unless the array has two dimensions.
    pub fn from_array(array: &Array) -> Result<Self> {
        let &[rows, cols] = array.shape() else {
            return Err(Error::invalid(format!(
                "{array:?} as a weight: expected [N, K]"
            )));
        };
        Ok(Weight {
            dtype: array.dtype(),
            rows,
            cols,
            row_bytes: array.dtype().bytes_for(cols)?,
            shards: vec![Shard {
                array: array.clone(),
                row0: 0,
            }],
            site: None,
        })
    }

    /// The same weight, known to corrections as this one.
    #[must_use]
    pub fn at_site(mut self, site: Site) -> Self {
        self.site = Some(Arc::new(site));
        self
    }

    /// What corrections know it by.
    pub fn site(&self) -> Option<&Site> {
        self.site.as_deref()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Rows `N` (outputs).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns `K` (inputs).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The parts, in row order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Bytes of all rows.
    pub fn nbytes(&self) -> u64 {
        (self.rows * self.row_bytes) as u64
    }
}
