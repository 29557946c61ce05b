//! A sequence's keys, values and recurrent states as tensors of a file, and back.
//!
//! | tensor | |
//! |---|---|
//! | `layers.I.keys`, `layers.I.values` | `[positions or slots, NKV · HD]` as in the cache; of q8_0 the bytes of the blocks |
//! | `snapshots.J.layers.I.inputs`, `….states` | recurrent states at the position that the metadata's `snapshots` tell |

use super::{Cache, Marks, Snapshot, recurrent_shapes};
use crate::models::{LayerCache, Spec};
use crate::{Error, Result};
use firelight_kernels::{Array, DType};
use firelight_tensor::Tensor;
use std::collections::BTreeMap;

/// How far a saved sequence had come.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Reach {
    /// Positions held.
    pub(crate) held: usize,
    /// Positions that had been written: [`Marks::high`].
    pub(crate) high: usize,
    /// [`Cache::length`].
    pub(crate) length: usize,
    /// Positions of the recurrent states, ascending.
    pub(crate) snapshots: Vec<usize>,
}

impl Cache {
    /// What sequence 0 holds of its first `held` positions.
    ///
    /// # Errors
    /// `Device` if the device failed.
    pub(crate) async fn save(
        &self,
        spec: &Spec,
        held: usize,
    ) -> Result<(Reach, Vec<(String, Tensor)>)> {
        let marks = &self.marks[0];
        let kept = marks.snapshots.iter().filter(|s| s.position <= held);
        let kept: Vec<&Snapshot> = kept.collect();
        let reach = Reach {
            held: if spec.is_recurrent() {
                kept.last().map_or(0, |s| s.position)
            } else {
                held
            },
            high: marks.high,
            length: self.length,
            snapshots: kept.iter().map(|s| s.position).collect(),
        };
        let mut tensors = Vec::new();
        for (i, (kind, (keys, values))) in spec.layers.iter().zip(&self.layers).enumerate() {
            let Some(rows) = rows(kind, keys, &reach) else {
                continue;
            };
            for (name, array) in [("keys", keys), ("values", values)] {
                let part = flat(array)?.rows(0, rows)?;
                let bytes = self.device.read(&part).await?;
                let (dtype, shape) = stored(&part);
                tensors.push((
                    format!("layers.{i}.{name}"),
                    Tensor::new(dtype, &shape, bytes)?,
                ));
            }
        }
        for (j, snapshot) in kept.iter().enumerate() {
            for (name, array) in names(spec, j).zip(&snapshot.arrays) {
                let bytes = self.device.read(array).await?;
                tensors.push((name, Tensor::new(DType::F32, array.shape(), bytes)?));
            }
        }
        Ok((reach, tensors))
    }

    /// Makes sequence 0 hold what [`Cache::save`] gave. On an error it holds nothing.
    ///
    /// # Errors
    /// `Malformed` if tensors are not what the model's cache has, `Device` if memory runs out.
    pub(crate) fn restore(
        &mut self,
        spec: &Spec,
        reach: &Reach,
        file: &BTreeMap<String, Tensor>,
    ) -> Result<()> {
        self.forget(0);
        let Reach {
            held, high, length, ..
        } = *reach;
        let ascending = reach.snapshots.is_sorted_by(|a, b| a < b);
        let last = reach.snapshots.last().copied();
        let fits = (1..=spec.context).contains(&held)
            && (held..=spec.context).contains(&high)
            && ascending;
        if !fits || length > spec.context || spec.is_recurrent() && last != Some(held) {
            return Err(damaged(format!(
                "{reach:?} of a model for {} positions",
                spec.context
            )));
        }
        self.span(spec, length)?;
        self.reserve(spec, high)?;
        for (i, (kind, (keys, values))) in spec.layers.iter().zip(&self.layers).enumerate() {
            let Some(rows) = rows(kind, keys, reach) else {
                continue;
            };
            for (name, array) in [("keys", keys), ("values", values)] {
                let part = flat(array)?.rows(0, rows)?;
                let (dtype, shape) = stored(&part);
                let tensor = read(file, &format!("layers.{i}.{name}"), dtype, &shape)?;
                self.device.write(&part, tensor.bytes())?;
            }
        }
        let mut marks = Marks {
            high,
            at: held,
            snapshots: Vec::new(),
        };
        for (j, &position) in reach.snapshots.iter().enumerate() {
            let mut arrays = Vec::new();
            let shapes = spec
                .layers
                .iter()
                .flat_map(|l| recurrent_shapes(l, 1))
                .filter(|s| !s.is_empty());
            for (name, shape) in names(spec, j).zip(shapes) {
                let tensor = read(file, &name, DType::F32, &shape)?;
                let array = self.zeroes(&shape)?;
                self.device.write(&array, tensor.bytes())?;
                arrays.push(array);
            }
            marks.snapshots.push(Snapshot { position, arrays });
        }
        self.marks[0] = marks;
        if spec.is_recurrent() {
            // The states in use are those of another sequence: `rewind` puts the last snapshot's in their place.
            self.marks[0].at = usize::MAX;
            self.rewind(spec, 0, held)?;
        }
        Ok(())
    }
}

/// Rows of keys that hold something of what is saved; `None` for recurrent layers.
fn rows(kind: &LayerCache, keys: &Array, reach: &Reach) -> Option<usize> {
    let slots = keys.shape().get(1).copied().unwrap_or(0);
    match kind {
        LayerCache::Attention { .. } => Some(reach.held.min(slots)),
        // As long as no slot has been used twice, only those up to the end.
        LayerCache::Sliding { .. } => Some(reach.high.min(slots)),
        LayerCache::Recurrent { .. } => None,
    }
}

/// The slots of sequence 0, a row each.
fn flat(array: &Array) -> Result<Array> {
    let [_, slots, heads, dim] = *array.shape() else {
        return Err(Error::invalid(format!("keys of shape {:?}", array.shape())));
    };
    let sequences = array.elements() / (slots * heads * dim).max(1);
    Ok(array.reshape(&[sequences * slots, heads * dim])?)
}

/// How the rows of a cache are in a file: the format has no blocks.
fn stored(part: &Array) -> (DType, Vec<usize>) {
    let rows = part.shape()[0];
    match part.dtype() {
        DType::F32 | DType::F16 => (part.dtype(), part.shape().to_vec()),
        _ => (DType::U8, vec![rows, part.nbytes() as usize / rows.max(1)]),
    }
}

/// Names of a snapshot's tensors, in the order of its arrays.
fn names(spec: &Spec, snapshot: usize) -> impl Iterator<Item = String> {
    let recurrent = spec.layers.iter().enumerate();
    let recurrent = recurrent.filter(|(_, l)| matches!(l, LayerCache::Recurrent { .. }));
    recurrent.flat_map(move |(i, _)| {
        ["inputs", "states"].map(|n| format!("snapshots.{snapshot}.layers.{i}.{n}"))
    })
}

fn read<'a>(
    file: &'a BTreeMap<String, Tensor>,
    name: &str,
    dtype: DType,
    shape: &[usize],
) -> Result<&'a Tensor> {
    match file.get(name) {
        Some(t) if t.dtype() == dtype && t.shape() == shape => Ok(t),
        Some(t) => Err(damaged(format!(
            "{name} is {} {:?}, expected {dtype} {shape:?}",
            t.dtype(),
            t.shape()
        ))),
        None => Err(damaged(format!("{name} is missing"))),
    }
}

pub(crate) fn damaged(what: String) -> Error {
    Error::malformed("prompt cache", what)
}
