//! A weight matrix, sharded by rows where the device's bindings are too small for the whole.

use crate::memory::Holder;
use crate::{Array, Device, Error, Result};
use firelight_tensor::DType;

/// Rows `row0 ..` of a weight.
#[derive(Clone, Debug)]
pub struct Shard {
    /// The rows, `[rows, K]`.
    pub array: Array,
    /// Index of the first row in the whole weight.
    pub row0: usize,
}

/// A matrix `[N, K]` of any weight type, packed as in its file. Kernels dequantise it where they use it.
#[derive(Clone, Debug)]
pub struct Weight {
    dtype: DType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    shards: Vec<Shard>,
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
        })
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
