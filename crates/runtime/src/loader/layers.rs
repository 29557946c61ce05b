//! Layers out of a checkpoint's tensors: a matrix with its bias, a convolution as a matrix, a norm.

use super::{Linear, Loader, RmsNorm};
use crate::Result;
use firelight_kernels::{DType, Holder, Weight};
use std::ops::Range;

impl Loader<'_> {
    /// The matrix `name.weight` and, if there is one, the bias `name.bias` of a linear layer with `rows` outputs.
    ///
    /// # Errors
    /// As [`Loader::weight`].
    pub fn linear(&mut self, name: &str, rows: usize, cols: usize) -> Result<Linear> {
        let weight = self.weight(name, rows, cols)?;
        let bias = match self.has(&format!("{name}.bias")) {
            true => Some(self.vector(&format!("{name}.bias"), rows)?),
            false => None,
        };
        Ok(Linear { weight, bias })
    }

    /// The convolution `name` whose kernel is its stride, as a linear layer of patches: `name.weight` of `shape` `[N, C, …]` as rows of
    /// all its elements but the first dimension, filled up with zeros to a multiple of 8, and the bias if there is one.
    ///
    /// # Errors
    /// As [`Loader::weight`].
    pub fn patch_embedding(&mut self, name: &str, shape: &[usize]) -> Result<Linear> {
        let (rows, cols) = (
            shape.first().copied().unwrap_or(0),
            shape.iter().skip(1).product::<usize>(),
        );
        let (tensor, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let padded = cols.next_multiple_of(8);
        let second = format!("{tensor}.1");
        let synthetic = self.checkpoint.synthetic_dtype().is_some();
        let weight = if synthetic {
            self.matrix(&tensor, &[rows, padded], std::slice::from_ref(&(0..rows)))?
        } else if let [n, c, 2, h, w] = *shape
            && self.has(&second)
        {
            // GGUF has a tensor for each of two frames.
            let frame = [n, c, h, w];
            let frames = [self.host(&tensor, &frame)?, self.host(&second, &frame)?];
            let plane = h * w;
            let mut values = Vec::with_capacity(rows * cols);
            for i in 0..n * c {
                for frame in &frames {
                    values.extend_from_slice(&frame[i * plane..(i + 1) * plane]);
                }
            }
            self.padded_matrix(&values, rows, cols)?
        } else if padded == cols {
            let info = self.require(&tensor, shape)?;
            self.rows_of(info, (rows, cols), std::slice::from_ref(&(0..rows)))?
        } else {
            let values = self.host(&tensor, shape)?;
            self.padded_matrix(&values, rows, cols)?
        };
        let bias = match self.has(&bias) {
            true => Some(self.vector(&bias, rows)?),
            false => None,
        };
        Ok(Linear { weight, bias })
    }

    /// A matrix made on the host, f32 `[rows, cols]` with each row filled up with zeros to a multiple of 8.
    ///
    /// # Errors
    /// `Device` if memory runs out.
    pub fn padded_matrix(&self, values: &[f32], rows: usize, cols: usize) -> Result<Weight> {
        let padded = cols.next_multiple_of(8);
        let mut wide = vec![0.0f32; rows * padded];
        for (from, to) in values.chunks(cols.max(1)).zip(wide.chunks_mut(padded)) {
            to[..from.len()].copy_from_slice(from);
        }
        let bytes = bytemuck::cast_slice(&wide);
        let array = self
            .device
            .upload(DType::F32, &[rows, padded], bytes, Holder::Weights)?;
        Ok(Weight::from_array(&array)?)
    }

    /// Rows of the matrix `name.weight` `[all, cols]` and of the bias `name.bias` `[all]`, which has to be there if `bias`.
    ///
    /// # Errors
    /// As [`Loader::weight`].
    pub fn linear_part(
        &mut self,
        name: &str,
        rows: Range<usize>,
        all: usize,
        cols: usize,
        bias: bool,
    ) -> Result<Linear> {
        let weight = self.weight_part(name, rows.clone(), all, cols)?;
        self.with_bias(weight, name, rows, all, bias)
    }

    /// A linear layer of `weight` and rows of the bias `name.bias` `[all]`, which has to be there if `bias`.
    ///
    /// # Errors
    /// As [`Loader::weight`].
    pub fn with_bias(
        &mut self,
        weight: Weight,
        name: &str,
        rows: Range<usize>,
        all: usize,
        bias: bool,
    ) -> Result<Linear> {
        let name = format!("{name}.bias");
        let bias = match bias || self.has(&name) {
            true => {
                let values = self.host(&name, &[all])?;
                Some(self.upload(values.get(rows).unwrap_or_default())?)
            }
            false => None,
        };
        Ok(Linear { weight, bias })
    }

    /// The linear layer of some rows of the matrix `name.weight` `[all, cols]`: the `pieces` one after the other. No bias.
    ///
    /// # Errors
    /// As [`Loader::weight`].
    pub fn linear_rows(
        &mut self,
        name: &str,
        all: usize,
        cols: usize,
        pieces: &[Range<usize>],
    ) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), &[all, cols], pieces)?;
        Ok(Linear { weight, bias: None })
    }

    /// The weight of an RMSNorm over `n` elements.
    ///
    /// # Errors
    /// As [`Loader::weight`].
    pub fn rms_norm(&mut self, name: &str, n: usize, eps: f32, offset: f32) -> Result<RmsNorm> {
        Ok(RmsNorm {
            weight: self.vector(&format!("{name}.weight"), n)?,
            eps,
            offset,
        })
    }
}
