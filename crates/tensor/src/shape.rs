//! Shapes: dimension lists whose element count is known to fit.

use crate::{Error, Result};
use std::fmt;
use std::ops::Deref;

/// The dimensions of a row-major tensor, outermost first.
///
/// A `Shape` can only be made when the product of its dimensions fits in `usize`, so nothing that holds one has to check
/// again. The empty shape is a scalar of one element. Dimensions of 0 are allowed and give 0 elements.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: Vec<usize>,
    elements: usize,
}

impl Shape {
    /// Checks the dimensions and keeps them.
    ///
    /// # Errors
    /// `Limit` if the product of the dimensions, a 0 counted as 1 so that strides fit too, does not fit in `usize`.
    pub fn new(dims: impl Into<Vec<usize>>) -> Result<Self> {
        let dims = dims.into();
        let elements = Self::count(&dims)?;
        Ok(Shape { dims, elements })
    }

    /// The element count of these dimensions, checked as in [`Shape::new`].
    ///
    /// # Errors
    /// As [`Shape::new`].
    pub fn count(dims: &[usize]) -> Result<usize> {
        let all = dims
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
        match all {
            Some(_) if dims.contains(&0) => Ok(0),
            Some(n) => Ok(n),
            None => Err(Error::Limit {
                what: "elements of a shape",
                max: usize::MAX as u64,
                got: u64::MAX,
            }),
        }
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The number of elements (1 for a scalar).
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// The length of a row, which is the innermost dimension (1 for a scalar).
    pub fn row_len(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// Row-major strides in elements: the innermost is 1.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.dims.len()];
        let mut step = 1;
        for (stride, &dim) in strides.iter_mut().zip(&self.dims).rev() {
            *stride = step;
            step *= dim.max(1);
        }
        strides
    }

    /// The shape two operands have together, by the usual rule: aligned at the innermost dimension, a 1 stretches.
    ///
    /// # Errors
    /// `InvalidInput` naming both shapes when some pair of dimensions differs and neither is 1.
    pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Shape> {
        let rank = a.len().max(b.len());
        let at = |dims: &[usize], i: usize| {
            (i + dims.len())
                .checked_sub(rank)
                .and_then(|j| dims.get(j))
                .copied()
                .unwrap_or(1)
        };
        let mut dims = Vec::with_capacity(rank);
        for i in 0..rank {
            dims.push(match (at(a, i), at(b, i)) {
                (x, y) if x == y => x,
                (1, y) => y,
                (x, 1) => x,
                _ => {
                    return Err(Error::invalid(format!(
                        "shapes {a:?} and {b:?} do not broadcast: aligned at the last dimension, each pair must be equal \
                         or hold a 1"
                    )));
                }
            });
        }
        Shape::new(dims)
    }
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.dims
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.dims, f)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.dims, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_strides() {
        let s = Shape::new([2, 3, 4]).unwrap();
        assert_eq!((s.elements(), s.rank(), s.row_len()), (24, 3, 4));
        assert_eq!(s.strides(), [12, 4, 1]);
        let scalar = Shape::new([]).unwrap();
        assert_eq!((scalar.elements(), scalar.row_len()), (1, 1));
        assert_eq!(Shape::new([0, 5]).unwrap().elements(), 0);
    }

    #[test]
    fn a_product_that_overflows_is_refused_even_beside_a_zero() {
        for dims in [
            vec![usize::MAX, 2],
            vec![1 << 20; 4],
            vec![usize::MAX, 0, usize::MAX],
        ] {
            assert!(matches!(Shape::new(dims), Err(Error::Limit { .. })));
        }
    }

    #[test]
    fn broadcast_stretches_ones_only() {
        assert_eq!(
            Shape::broadcast(&[4, 1, 3], &[5, 1]).unwrap().dims(),
            [4, 5, 3]
        );
        assert_eq!(Shape::broadcast(&[], &[2]).unwrap().dims(), [2]);
        assert_eq!(Shape::broadcast(&[0], &[1]).unwrap().dims(), [0]);
        assert!(Shape::broadcast(&[2], &[3]).is_err());
        assert!(Shape::broadcast(&[0], &[3]).is_err());
    }
}
