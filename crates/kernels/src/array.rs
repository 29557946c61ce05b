//! An n-d array living on a device.

use crate::buffer::Buffer;
use crate::{Error, Result};
use firelight_tensor::DType;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Free intermediates of one recorder.
pub(crate) type FreeList = Mutex<Vec<Arc<Buffer>>>;

/// A user's hold on a buffer. An intermediate's buffer goes back to its recorder when the last hold is dropped: recorded
/// calls keep the buffer itself, so a later call of the same recording may write over it.
pub(crate) struct Lease {
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) home: Option<Weak<FreeList>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(free) = self.home.as_ref().and_then(Weak::upgrade) {
            free.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Arc::clone(&self.buffer));
        }
    }
}

/// An n-dimensional, row-major, contiguous array on a [`crate::Device`]. Cloning shares the memory.
///
/// Quantised arrays hold their rows in the byte layout of GGUF files. An array belongs to the device that made it.
#[derive(Clone)]
pub struct Array {
    pub(crate) lease: Arc<Lease>,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// First byte inside the buffer.
    pub(crate) offset: u64,
    pub(crate) nbytes: u64,
}

impl Array {
    pub(crate) fn new(
        buffer: Arc<Buffer>,
        home: Option<Weak<FreeList>>,
        dtype: DType,
        shape: &[usize],
        offset: u64,
    ) -> Result<Self> {
        let nbytes = bytes_of(dtype, shape)?;
        Ok(Array {
            lease: Arc::new(Lease { buffer, home }),
            dtype,
            shape: shape.to_vec(),
            offset,
            nbytes,
        })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements in all.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of the elements.
    pub fn nbytes(&self) -> u64 {
        self.nbytes
    }

    /// The same elements under another shape, without a copy.
    ///
    /// # Errors
    /// `InvalidInput` if the element counts differ or quantised blocks would be cut.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        let (from, to) = (self.elements(), shape.iter().product::<usize>());
        if from != to {
            return Err(Error::invalid(format!(
                "reshape {:?} ({from} elements) to {shape:?} ({to} elements)",
                self.shape
            )));
        }
        bytes_of(self.dtype, shape)?;
        Ok(Array {
            shape: shape.to_vec(),
            ..self.clone()
        })
    }

    /// Rows `start..start + count` of the first dimension, without a copy.
    ///
    /// # Errors
    /// `InvalidInput` if the range leaves the array, `Limit` if its first byte is not on the 256-byte border a GPU
    /// binding needs.
    pub fn rows(&self, start: usize, count: usize) -> Result<Self> {
        let rows = self.shape.first().copied().unwrap_or(0);
        if start > rows || count > rows - start {
            return Err(Error::invalid(format!(
                "rows {start}..{} of {rows}",
                start + count
            )));
        }
        let row_bytes = self.nbytes / rows.max(1) as u64;
        let offset = self.offset + start as u64 * row_bytes;
        if !offset.is_multiple_of(256) {
            return Err(Error::Limit {
                what: "alignment of a view's first byte",
                max: 256,
                got: offset,
            });
        }
        let mut shape = self.shape.clone();
        shape[0] = count;
        Ok(Array {
            shape,
            offset,
            nbytes: row_bytes * count as u64,
            ..self.clone()
        })
    }

    /// The wgpu buffer behind a GPU array with the array's first byte and size, or `None` on the CPU. No copy is made:
    /// what the application writes there is what kernels read.
    #[cfg(feature = "gpu")]
    pub fn as_wgpu(&self) -> Option<(&wgpu::Buffer, u64, u64)> {
        self.lease
            .buffer
            .gpu()
            .map(|b| (b, self.offset, self.nbytes))
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

/// Bytes of an array; the last dimension must be whole blocks.
pub(crate) fn bytes_of(dtype: DType, shape: &[usize]) -> Result<u64> {
    let too_big = || Error::Limit {
        what: "array elements",
        max: u64::MAX,
        got: u64::MAX,
    };
    let last = shape.last().copied().unwrap_or(1);
    if !last.is_multiple_of(dtype.block_len()) {
        return Err(Error::invalid(format!(
            "{dtype} array {shape:?}: the last dimension must be a multiple of {}",
            dtype.block_len()
        )));
    }
    let elements = shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .ok_or_else(too_big)?;
    Ok(dtype.bytes_for(elements)? as u64)
}
