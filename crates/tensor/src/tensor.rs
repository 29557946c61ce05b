//! The host tensor: an element type, a shape and bytes.

use crate::{AlignedBuf, Bytes, DType, Error, Layout, Result, Shape, cast};
use std::fmt;
use std::ops::Range;

/// A row-major, contiguous tensor in host memory.
///
/// Cloning shares the bytes. Bytes are little-endian; of a block-quantised type each row (the innermost dimension) is a
/// whole number of blocks.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    bytes: Bytes,
}

impl Tensor {
    /// A tensor over `bytes`, which must have exactly the size that the type and shape give.
    ///
    /// # Errors
    /// `InvalidInput` if the size differs or rows are no whole blocks, `Limit` if the element count does not fit.
    pub fn new(dtype: DType, shape: &[usize], bytes: impl Into<Bytes>) -> Result<Self> {
        let (shape, bytes) = (Shape::new(shape)?, bytes.into());
        let expected = checked_bytes(dtype, &shape)?;
        if bytes.len() != expected {
            return Err(Error::invalid(format!(
                "a {dtype} tensor {shape} takes {expected} bytes, got {}",
                bytes.len()
            )));
        }
        Ok(Tensor {
            dtype,
            shape,
            bytes,
        })
    }

    /// An f32 tensor of these values.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_f32(values: &[f32], shape: &[usize]) -> Result<Self> {
        Self::new(DType::F32, shape, values)
    }

    /// A tensor of zeros; of a block-quantised type, blocks of zero bytes, which mean zeros in every format.
    ///
    /// # Errors
    /// As [`Tensor::new`]; `OutOfMemory`.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Self> {
        let bytes = AlignedBuf::zeroed(checked_bytes(dtype, &Shape::new(shape)?)?)?;
        Self::new(dtype, shape, bytes)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.elements()
    }

    /// The bytes: little-endian, row-major.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, shared.
    pub fn data(&self) -> &Bytes {
        &self.bytes
    }

    /// The values in place, if the type is f32 (and the bytes aligned, as those this crate makes and reads are).
    pub fn as_f32(&self) -> Option<&[f32]> {
        (self.dtype == DType::F32)
            .then(|| bytemuck::try_cast_slice(&self.bytes).ok())
            .flatten()
    }

    /// The values as f32: dequantised, widened, or (integers) rounded to the nearest; bools as 0 and 1.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>> {
        let n = self.elements();
        let mut out = zeroed_f32(n)?;
        cast::to_f32(self.dtype, &self.bytes, &mut out)?;
        Ok(out)
    }

    /// This tensor in another type.
    ///
    /// Between integers values are kept, to f16 and bf16 rounded to nearest even (an f16 overflow is infinite), to a
    /// block-quantised type quantised, from float to integer truncated toward zero, to bool `x != 0`.
    ///
    /// # Errors
    /// `InvalidInput` if a value does not fit (integers), is not finite (integers, quantised types), or rows are no whole
    /// blocks.
    pub fn cast(&self, dtype: DType) -> Result<Self> {
        if dtype == self.dtype {
            return Ok(self.clone());
        }
        let mut out = AlignedBuf::zeroed(checked_bytes(dtype, &self.shape)?)?;
        cast::cast(self.dtype, &self.bytes, dtype, &mut out, self.elements())?;
        Ok(Tensor {
            dtype,
            shape: self.shape.clone(),
            bytes: out.into(),
        })
    }

    /// The same bytes in another shape of as many elements.
    ///
    /// # Errors
    /// `InvalidInput` if the counts differ or rows are no whole blocks.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        let shape = Shape::new(shape)?;
        if shape.elements() != self.elements() {
            return Err(Error::invalid(format!(
                "reshape {} to {shape}: counts differ",
                self.shape
            )));
        }
        checked_bytes(self.dtype, &shape)?;
        Ok(Tensor {
            dtype: self.dtype,
            shape,
            bytes: self.bytes.clone(),
        })
    }

    /// Entries `range` of the outermost dimension, sharing the bytes. Works on quantised tensors of two dimensions or more.
    ///
    /// # Errors
    /// `InvalidInput` if the range is not inside, or the tensor is a scalar or a quantised row.
    pub fn slice_outer(&self, range: Range<usize>) -> Result<Self> {
        let Some((&outer, inner)) = self.shape.split_first() else {
            return Err(Error::invalid(
                "a scalar has no outermost dimension to slice",
            ));
        };
        if range.start > range.end || range.end > outer {
            return Err(Error::invalid(format!("slice {range:?} of {}", self.shape)));
        }
        let shape = Shape::new([&[range.len()], inner].concat())?;
        checked_bytes(self.dtype, &shape)?;
        let per = Shape::count(inner)?;
        // Fails where a quantised row would be cut inside a block.
        let at = |i: usize| self.dtype.bytes_for(i * per);
        let bytes = self.bytes.slice(at(range.start)?..at(range.end)?)?;
        Ok(Tensor {
            dtype: self.dtype,
            shape,
            bytes,
        })
    }

    /// The contiguous layout of this tensor: the start of any view.
    pub fn layout(&self) -> Layout {
        Layout::contiguous(self.shape.clone())
    }

    /// The tensor that `view` describes over this one's elements, copied into row-major order.
    ///
    /// # Errors
    /// `InvalidInput` if the view reaches beyond this tensor, `Unsupported` for block-quantised types.
    pub fn gather(&self, view: &Layout) -> Result<Self> {
        if self.dtype.is_quantized() {
            return Err(Error::Unsupported(format!(
                "a view of single elements of a {} tensor; cast to f32 first",
                self.dtype
            )));
        }
        view.check_within(self.elements())?;
        let size = self.dtype.block_bytes();
        let mut out = AlignedBuf::zeroed(self.dtype.bytes_for(view.shape().elements())?)?;
        for (to, from) in out.chunks_exact_mut(size).zip(view.offsets()) {
            to.copy_from_slice(&self.bytes[from * size..(from + 1) * size]);
        }
        Tensor::new(self.dtype, view.shape(), out)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {})", self.dtype, self.shape)
    }
}

/// The bytes of a tensor whose rows must be whole blocks.
pub(crate) fn checked_bytes(dtype: DType, shape: &Shape) -> Result<usize> {
    if !shape.row_len().is_multiple_of(dtype.block_len()) {
        return Err(Error::invalid(format!(
            "a {dtype} tensor {shape}: expected rows of a multiple of {} elements",
            dtype.block_len()
        )));
    }
    dtype.bytes_for(shape.elements())
}

/// `n` zeros.
pub(crate) fn zeroed_f32(n: usize) -> Result<Vec<f32>> {
    bytemuck::allocation::try_zeroed_vec(n).map_err(|()| Error::OutOfMemory {
        bytes: (n as u64).saturating_mul(4),
    })
}
