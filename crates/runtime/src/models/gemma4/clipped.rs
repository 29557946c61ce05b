//! Linear layers whose inputs and outputs are kept within bounds that the checkpoint has: those of the towers.
//!
//! `Gemma4ClippableLinear` of transformers 5.23.0: `clamp(clamp(x, input) · Wᵀ, output)` with four scalars beside each matrix.

use crate::Result;
use crate::loader::{Linear, Loader};
use firelight_kernels::clamp::clamp;
use firelight_kernels::{Array, Recorder};
use std::ops::Range;

/// See the module's head.
pub(super) struct Clipped {
    linear: Linear,
    /// Of the input and of the output; `None`: no bounds.
    input: Option<(f32, f32)>,
    output: Option<(f32, f32)>,
}

impl Clipped {
    /// Loads the matrix `name.linear.weight` `[rows, cols]`, and the bounds if `clipped`.
    pub(super) fn load(
        l: &mut Loader<'_>,
        name: &str,
        (rows, cols): (usize, usize),
        clipped: bool,
    ) -> Result<Self> {
        let whole = 0..rows;
        Clipped::rows(l, name, (rows, cols), std::slice::from_ref(&whole), clipped)
    }

    /// The same with the matrix's rows in the order of `pieces`.
    pub(super) fn rows(
        l: &mut Loader<'_>,
        name: &str,
        (rows, cols): (usize, usize),
        pieces: &[Range<usize>],
        clipped: bool,
    ) -> Result<Self> {
        let linear = l.linear_rows(&format!("{name}.linear"), rows, cols, pieces)?;
        let mut bounds = |side: &str| -> Result<Option<(f32, f32)>> {
            if !clipped {
                return Ok(None);
            }
            let lo = l.bound(&format!("{name}.{side}_min"))?;
            let hi = l.bound(&format!("{name}.{side}_max"))?;
            let none = lo == f32::NEG_INFINITY && hi == f32::INFINITY;
            Ok((!none).then_some((lo, hi)))
        };
        Ok(Clipped {
            linear,
            input: bounds("input")?,
            output: bounds("output")?,
        })
    }

    /// f32 `[T, cols]` to `[T, rows]`.
    pub(super) fn forward(&self, rec: &mut Recorder, x: &Array) -> Result<Array> {
        let y = match self.input {
            Some(bounds) => {
                let x = clamp(rec, x, bounds)?;
                self.linear.forward(rec, &x)?
            }
            None => self.linear.forward(rec, x)?,
        };
        Ok(match self.output {
            Some(bounds) => clamp(rec, &y, bounds)?,
            None => y,
        })
    }
}
