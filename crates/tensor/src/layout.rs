//! Strides and views: how a shape lies over a flat sequence of elements.

use crate::{Error, Result, Shape};
use std::ops::Range;

/// A view: element `[i, j, …]` is number `offset + i·strides[0] + j·strides[1] + …` of the underlying sequence.
///
/// Strides count elements and are never negative; a stride of 0 repeats (broadcasting).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    shape: Shape,
    strides: Vec<usize>,
    offset: usize,
}

impl Layout {
    /// Row-major from the first element on.
    pub fn contiguous(shape: Shape) -> Self {
        let strides = shape.strides();
        Layout {
            shape,
            strides,
            offset: 0,
        }
    }

    /// A layout of given strides.
    ///
    /// # Errors
    /// `InvalidInput` if there are not as many strides as dimensions, `Limit` if the last element's number does not fit.
    pub fn new(shape: Shape, strides: Vec<usize>, offset: usize) -> Result<Self> {
        if shape.rank() != strides.len() {
            return Err(Error::invalid(format!(
                "{} strides for the shape {shape}",
                strides.len()
            )));
        }
        let layout = Layout {
            shape,
            strides,
            offset,
        };
        layout.end()?;
        Ok(layout)
    }

    /// The dimensions.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Elements from one index of a dimension to the next.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// The number of the first element.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// True if the elements lie one after another in row-major order (strides of dimensions of 1 do not matter).
    pub fn is_contiguous(&self) -> bool {
        let natural = self.shape.strides();
        self.shape.elements() == 0
            || self
                .shape
                .iter()
                .zip(&self.strides)
                .zip(natural)
                .all(|((&d, &s), n)| d == 1 || s == n)
    }

    /// The element number of an index.
    ///
    /// # Errors
    /// `InvalidInput` if the index has another rank or is out of range.
    pub fn index(&self, index: &[usize]) -> Result<usize> {
        let inside =
            index.len() == self.shape.rank() && index.iter().zip(&*self.shape).all(|(i, d)| i < d);
        if !inside {
            return Err(Error::invalid(format!(
                "index {index:?} of the shape {}",
                self.shape
            )));
        }
        Ok(self.offset
            + index
                .iter()
                .zip(&self.strides)
                .map(|(i, s)| i * s)
                .sum::<usize>())
    }

    /// The same elements in another shape, where that is possible without copying them.
    ///
    /// # Errors
    /// `InvalidInput` if the counts differ or this view is not contiguous.
    pub fn reshape(&self, shape: Shape) -> Result<Self> {
        if shape.elements() != self.shape.elements() {
            return Err(Error::invalid(format!(
                "reshape {} to {shape}: counts differ",
                self.shape
            )));
        }
        if !self.is_contiguous() {
            return Err(Error::invalid(format!(
                "reshape of a view with strides {:?}: copy it into row-major order first",
                self.strides
            )));
        }
        Ok(Layout {
            strides: shape.strides(),
            shape,
            offset: self.offset,
        })
    }

    /// Swaps two dimensions.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such dimension.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        let mut order: Vec<_> = (0..self.shape.rank()).collect();
        self.check_axis(a)?;
        self.check_axis(b)?;
        order.swap(a, b);
        self.permute(&order)
    }

    /// Reorders dimensions: new dimension `i` is old dimension `order[i]`.
    ///
    /// # Errors
    /// `InvalidInput` if `order` does not hold each dimension once.
    pub fn permute(&self, order: &[usize]) -> Result<Self> {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..self.shape.rank()) {
            return Err(Error::invalid(format!(
                "order {order:?} of the shape {}",
                self.shape
            )));
        }
        let dims: Vec<_> = order.iter().map(|&i| self.shape[i]).collect();
        Ok(Layout {
            shape: Shape::new(dims)?,
            strides: order.iter().map(|&i| self.strides[i]).collect(),
            offset: self.offset,
        })
    }

    /// Indices `range` of dimension `axis`.
    ///
    /// # Errors
    /// `InvalidInput` if the dimension or the range does not exist.
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Result<Self> {
        self.check_axis(axis)?;
        if range.start > range.end || range.end > self.shape[axis] {
            return Err(Error::invalid(format!(
                "slice {range:?} of dimension {axis} of the shape {}",
                self.shape
            )));
        }
        let mut dims = self.shape.to_vec();
        dims[axis] = range.len();
        // An empty view points at nothing: keep its offset, which may not move past the last element.
        let empty = range.is_empty() || self.shape.elements() == 0;
        let skip = if empty {
            0
        } else {
            range.start * self.strides[axis]
        };
        Ok(Layout {
            shape: Shape::new(dims)?,
            strides: self.strides.clone(),
            offset: self.offset + skip,
        })
    }

    /// Stretches dimensions of 1, and adds outer ones, to reach `shape`.
    ///
    /// # Errors
    /// `InvalidInput` if a dimension of this view is neither 1 nor the one asked for.
    pub fn broadcast_to(&self, shape: Shape) -> Result<Self> {
        let added = shape.rank().checked_sub(self.shape.rank());
        let fits = added.is_some_and(|n| {
            self.shape
                .iter()
                .zip(shape.iter().skip(n))
                .all(|(&from, &to)| from == to || from == 1)
        });
        let (Some(added), true) = (added, fits) else {
            return Err(Error::invalid(format!(
                "broadcast {} to {shape}",
                self.shape
            )));
        };
        let mut strides = vec![0; shape.rank()];
        for (i, &stride) in self.strides.iter().enumerate() {
            if self.shape[i] == shape[added + i] {
                strides[added + i] = stride;
            }
        }
        Ok(Layout {
            shape,
            strides,
            offset: self.offset,
        })
    }

    /// Checks that every element lies in a sequence of `elements`.
    ///
    /// # Errors
    /// `InvalidInput` if not.
    pub fn check_within(&self, elements: usize) -> Result<()> {
        let end = self.end()?;
        if end > elements {
            return Err(Error::invalid(format!(
                "a view of {} with strides {:?} from {} needs {end} elements, there are {elements}",
                self.shape, self.strides, self.offset
            )));
        }
        Ok(())
    }

    /// The element numbers in row-major order of the view.
    pub fn offsets(&self) -> impl Iterator<Item = usize> {
        let mut index = vec![0; self.shape.rank()];
        let mut at = self.offset;
        (0..self.shape.elements()).map(move |_| {
            let here = at;
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.strides[axis] * index[axis];
                index[axis] = 0;
            }
            here
        })
    }

    /// One past the highest element number, 0 for an empty view.
    fn end(&self) -> Result<usize> {
        if self.shape.elements() == 0 {
            return Ok(0);
        }
        let last = self
            .shape
            .iter()
            .zip(&self.strides)
            .try_fold(self.offset, |at, (&d, &s)| {
                at.checked_add((d - 1).checked_mul(s)?)
            });
        // The step past the last element of an axis is taken in `offsets`, so it must fit as well.
        let step = self.strides.iter().copied().max().unwrap_or(0).max(1);
        match last.and_then(|n| n.checked_add(step)) {
            Some(n) => Ok(n - step + 1),
            None => Err(Error::Limit {
                what: "elements under a view",
                max: usize::MAX as u64,
                got: u64::MAX,
            }),
        }
    }

    fn check_axis(&self, axis: usize) -> Result<()> {
        if axis < self.shape.rank() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "dimension {axis} of the shape {}",
            self.shape
        )))
    }
}
