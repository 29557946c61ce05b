//! What a model's layers keep of the sequences: keys and values, or a recurrent state. Written in place on the device.
//!
//! Each layer has a pair of arrays, of the kind its [`LayerCache`] says:
//!
//! | kind | arrays | grows | can go back to |
//! |---|---|---|---|
//! | attention | keys, values `[NSEQ, CAP, NKV, HD]` | by blocks, with the sequence | any earlier position |
//! | sliding | keys, values of the last positions `[NSEQ, SLOTS, NKV, HD]`, position `p` in slot `p mod SLOTS` | up to window and a step | positions whose window is still there |
//! | recurrent | last inputs `[NSEQ, K, C]`, matrices `[NSEQ, NV, HK, HV]` (f32) | never | positions of which there is a [snapshot](Cache::snapshot) |
//!
//! `CAP` grows when a sequence needs more room: the only time keys and values are copied, and never per token. A recurrent state
//! is all of the past in one matrix: nothing can be taken out of it again. So the cache knows the position each sequence's
//! states are at, and [`Cache::rewind`] says from where a sequence can go on; positions from there on are computed again.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod saved;

use crate::models::{LayerCache, Spec};
use crate::rope::{Places, Rope};
use crate::state::CHUNK;
use crate::{Error, Result};
use firelight_kernels::{Array, DType, Device, Holder, Span};

/// Positions are added in blocks of this many.
const BLOCK: usize = 256;
/// Snapshots kept of a sequence.
const SNAPSHOTS: usize = 4;

/// See the module's head.
pub struct Cache {
    device: Device,
    sequences: usize,
    capacity: usize,
    layers: Vec<(Array, Array)>,
    ropes: Vec<Array>,
    /// Positions of the longest sequence the rotary tables are for.
    length: usize,
    /// Where the tokens are, for models that count along several axes.
    places: Places,
    /// Grows whenever the arrays are replaced: recordings of an older generation are void.
    generation: u64,
    /// Per sequence: how far it has come.
    marks: Vec<Marks>,
    /// Arrays of dropped snapshots, used again.
    spare: Vec<Vec<Array>>,
}

/// How far a sequence has come.
#[derive(Default)]
struct Marks {
    /// Positions that have been written since it last began: what was there further back may be written over.
    high: usize,
    /// Positions the recurrent states have seen.
    at: usize,
    /// Copies of them, by position.
    snapshots: Vec<Snapshot>,
}

struct Snapshot {
    position: usize,
    /// Two per recurrent layer, of one sequence.
    arrays: Vec<Array>,
}

impl Cache {
    /// An empty cache for `sequences` sequences.
    pub fn new(device: &Device, sequences: usize) -> Self {
        let sequences = sequences.max(1);
        Cache {
            device: device.clone(),
            sequences,
            capacity: 0,
            layers: Vec::new(),
            ropes: Vec::new(),
            length: 1,
            places: Places::default(),
            generation: 0,
            marks: (0..sequences).map(|_| Marks::default()).collect(),
            spare: Vec::new(),
        }
    }

    /// The pair of arrays of a layer; see the module's head.
    pub fn layer(&self, index: usize) -> (&Array, &Array) {
        let (k, v) = &self.layers[index];
        (k, v)
    }

    /// The rotary table `index` of the model's list, for all positions there is room for.
    pub fn rope(&self, index: usize) -> &Array {
        &self.ropes[index]
    }

    /// Positions a sequence has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Which arrays these are; see [`Cache::reserve`].
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes held, snapshots included.
    pub fn nbytes(&self) -> u64 {
        let layers = self.layers.iter().flat_map(|(a, b)| [a, b]);
        let taken = self.marks.iter().flat_map(|m| &m.snapshots);
        let copies = taken
            .flat_map(|s| &s.arrays)
            .chain(self.spare.iter().flatten());
        layers.chain(copies).map(Array::nbytes).sum()
    }

    /// True if keys cached so far do not hold in sequences of `length` positions: their rotation depends on it (LongRoPE).
    pub fn switches(&self, spec: &Spec, length: usize) -> bool {
        let long = |n: usize, switch: usize| n > switch;
        spec.ropes
            .iter()
            .filter_map(Rope::switch)
            .any(|s| long(self.length, s) != long(length, s))
    }

    /// Sets the rotary tables for sequences of `length` positions, in place: recordings stay good. True if they changed; what
    /// is cached then has to be computed again.
    ///
    /// # Errors
    /// `Device` if the device is lost.
    pub fn span(&mut self, spec: &Spec, length: usize) -> Result<bool> {
        let changed = self.switches(spec, length);
        self.length = length;
        for (rope, array) in spec.ropes.iter().zip(&self.ropes) {
            if changed && rope.switch().is_some() {
                let table = rope.table_at(self.capacity, length, &self.places);
                self.device.write(array, bytemuck::cast_slice(&table))?;
            }
        }
        Ok(changed)
    }

    /// Says where the tokens are: the rotary tables of models that count along several axes are written anew, in place. What is cached
    /// stays as it was turned.
    ///
    /// # Errors
    /// `Device` if the device is lost.
    pub fn place(&mut self, spec: &Spec, places: Places) -> Result<()> {
        if self.places == places {
            return Ok(());
        }
        self.places = places;
        for (rope, array) in spec.ropes.iter().zip(&self.ropes) {
            if !rope.axes.is_empty() {
                let table = rope.table_at(self.capacity, self.length, &self.places);
                self.device.write(array, bytemuck::cast_slice(&table))?;
            }
        }
        Ok(())
    }

    /// Makes room for `positions` positions per sequence, at most the model's context. Keeps what is there. Recordings made
    /// before are void if [`Cache::generation`] changes.
    ///
    /// # Errors
    /// `Device` if memory runs out; the cache is then as before.
    pub fn reserve(&mut self, spec: &Spec, positions: usize) -> Result<()> {
        if positions <= self.capacity {
            return Ok(());
        }
        // Half as much again, so that a long chat grows a few times and not every 256 tokens.
        let wanted = positions
            .max(self.capacity + self.capacity / 2)
            .next_multiple_of(BLOCK);
        let capacity = wanted
            .min(spec.context.next_multiple_of(BLOCK))
            .max(positions);
        let mut layers = Vec::with_capacity(spec.layers.len());
        for (i, layer) in spec.layers.iter().enumerate() {
            let old = self.layers.get(i);
            layers.push(match *layer {
                LayerCache::Attention { kv_heads, head_dim } => {
                    let shape = [self.sequences, capacity, kv_heads, head_dim];
                    (
                        self.grown(&shape, old.map(|(k, _)| k))?,
                        self.grown(&shape, old.map(|(_, v)| v))?,
                    )
                }
                LayerCache::Sliding {
                    kv_heads,
                    head_dim,
                    window,
                } => {
                    // The keys that a step's first token sees are not written over by its last.
                    let slots = (window + CHUNK.max(spec.mutual))
                        .next_multiple_of(64)
                        .min(capacity);
                    let shape = [self.sequences, slots, kv_heads, head_dim];
                    match old.filter(|(k, _)| k.shape() == shape) {
                        Some(pair) => pair.clone(),
                        // Slots that are still added to have not been used twice.
                        None => (
                            self.grown(&shape, old.map(|(k, _)| k))?,
                            self.grown(&shape, old.map(|(_, v)| v))?,
                        ),
                    }
                }
                LayerCache::Recurrent { .. } => match old {
                    Some(pair) => pair.clone(),
                    None => {
                        let [inputs, states] = recurrent_shapes(layer, self.sequences);
                        (self.zeroes(&inputs)?, self.zeroes(&states)?)
                    }
                },
            });
        }
        let mut ropes = Vec::with_capacity(spec.ropes.len());
        for rope in &spec.ropes {
            let table = rope.table_at(capacity, self.length, &self.places);
            let shape = [capacity, rope.dims / 2, 2];
            ropes.push(self.device.upload(
                DType::F32,
                &shape,
                bytemuck::cast_slice(&table),
                Holder::Cache,
            )?);
        }
        (self.layers, self.ropes, self.capacity) = (layers, ropes, capacity);
        self.generation += 1;
        Ok(())
    }

    fn zeroes(&self, shape: &[usize]) -> Result<Array> {
        Ok(self.device.array(DType::F32, shape, Holder::Cache)?)
    }

    /// A larger array of keys or values with the old one's content.
    fn grown(&self, shape: &[usize; 4], old: Option<&Array>) -> Result<Array> {
        let dtype = self.device.cache_dtype();
        if dtype == DType::Q8_0 && !shape[3].is_multiple_of(64) {
            return Err(Error::invalid(format!(
                "key/value caches in {dtype} need heads of a multiple of 64 elements; this model's have {}: take f16",
                shape[3]
            )));
        }
        let array = self.device.array(dtype, shape, Holder::Cache)?;
        if let Some(old) = old {
            let bytes = old.nbytes() / self.sequences as u64;
            let step = array.nbytes() / self.sequences as u64;
            let spans = (0..self.sequences as u64).map(|s| Span {
                from: old,
                from_byte: s * bytes,
                to: &array,
                to_byte: s * step,
                bytes,
            });
            self.device.copy_all(&spans.collect::<Vec<_>>())?;
        }
        Ok(array)
    }

    /// Notes that steps up to position `end` (exclusive) of a sequence were submitted.
    pub fn advance(&mut self, sequence: usize, end: usize) {
        if let Some(marks) = self.marks.get_mut(sequence) {
            marks.at = end;
            marks.high = marks.high.max(end);
        }
    }

    /// Keeps a copy of a sequence's recurrent states as they are now, to be gone back to. Without such layers there is nothing to
    /// do. Of more than a few copies those are dropped that have close neighbours.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown sequence, `Device` if memory runs out.
    pub fn snapshot(&mut self, spec: &Spec, sequence: usize) -> Result<()> {
        let Some(marks) = self.marks.get(sequence) else {
            return Err(no_sequence(sequence, self.sequences));
        };
        let position = marks.at;
        if !spec.is_recurrent() || marks.snapshots.iter().any(|s| s.position == position) {
            return Ok(());
        }
        if marks.snapshots.len() >= SNAPSHOTS {
            self.thin(sequence);
        }
        let arrays = match self.spare.pop() {
            Some(arrays) => arrays,
            None => {
                let one = |a: &Array| -> Result<Array> {
                    let mut shape = a.shape().to_vec();
                    shape[0] = 1;
                    self.zeroes(&shape)
                };
                states(&self.layers, spec).map(one).collect::<Result<_>>()?
            }
        };
        let spans: Vec<_> = states(&self.layers, spec)
            .zip(&arrays)
            .map(|(from, to)| Span {
                from,
                from_byte: sequence as u64 * to.nbytes(),
                to,
                to_byte: 0,
                bytes: to.nbytes(),
            })
            .collect();
        self.device.copy_all(&spans)?;
        let snapshots = &mut self.marks[sequence].snapshots;
        let i = snapshots.partition_point(|s| s.position < position);
        snapshots.insert(i, Snapshot { position, arrays });
        Ok(())
    }

    /// Drops the snapshot that is missed least: the one whose neighbours are closest, the last two excepted.
    fn thin(&mut self, sequence: usize) {
        let snapshots = &mut self.marks[sequence].snapshots;
        let gap = |i: usize| {
            let before = i.checked_sub(1).map_or(0, |b| snapshots[b].position);
            snapshots[i + 1].position - before
        };
        let least = (0..snapshots.len().saturating_sub(2)).min_by_key(|&i| gap(i));
        let dropped = snapshots.remove(least.unwrap_or(0));
        self.spare.push(dropped.arrays);
    }

    /// Forgets a sequence; the memory stays.
    pub fn forget(&mut self, sequence: usize) {
        if let Some(marks) = self.marks.get_mut(sequence) {
            (marks.at, marks.high) = (0, 0);
            self.spare
                .extend(marks.snapshots.drain(..).map(|s| s.arrays));
        }
    }

    /// Makes a sequence hold its first `keep` tokens, or fewer, and returns how many it holds then: all of them if every layer can
    /// go back, else those up to the last snapshot, or none. What is beyond is forgotten.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown sequence, `Device` if the device failed.
    pub fn rewind(&mut self, spec: &Spec, sequence: usize, keep: usize) -> Result<usize> {
        let held = self.rewind_states(spec, sequence, keep)?;
        let high = self.marks.get(sequence).map_or(0, |m| m.high);
        // The first key that the token after `held` sees, against the first that is still there.
        let lost = spec.layers.iter().zip(&self.layers).any(|(kind, (k, _))| {
            let LayerCache::Sliding { window, .. } = *kind else {
                return false;
            };
            let slots = k.shape().get(1).copied().unwrap_or(0);
            (held + 1).saturating_sub(window) < high.saturating_sub(slots)
        });
        if held == 0 || lost {
            self.forget(sequence);
            return Ok(0);
        }
        Ok(held)
    }

    fn rewind_states(&mut self, spec: &Spec, sequence: usize, keep: usize) -> Result<usize> {
        let Some(marks) = self.marks.get_mut(sequence) else {
            return Err(no_sequence(sequence, self.sequences));
        };
        let from = marks
            .snapshots
            .partition_point(|s| s.position <= keep.min(marks.at));
        let beyond = marks.snapshots.drain(from..);
        self.spare.extend(beyond.map(|s| s.arrays));
        if !spec.is_recurrent() || marks.at == keep {
            marks.at = keep;
            return Ok(keep);
        }
        let Some(last) = marks.snapshots.last() else {
            // Position 0 starts from nothing, whatever the arrays hold.
            marks.at = 0;
            return Ok(0);
        };
        let position = last.position;
        let spans: Vec<_> = last
            .arrays
            .iter()
            .zip(states(&self.layers, spec))
            .map(|(from, to)| Span {
                from,
                from_byte: 0,
                to,
                to_byte: sequence as u64 * from.nbytes(),
                bytes: from.nbytes(),
            })
            .collect();
        self.device.copy_all(&spans)?;
        self.marks[sequence].at = position;
        Ok(position)
    }
}

fn no_sequence(sequence: usize, sequences: usize) -> Error {
    Error::invalid(format!("sequence {sequence} of a cache for 0..{sequences}"))
}

/// The arrays that hold recurrent states.
fn states<'a>(layers: &'a [(Array, Array)], spec: &'a Spec) -> impl Iterator<Item = &'a Array> {
    let kinds = layers.iter().zip(&spec.layers);
    kinds
        .filter(|(_, kind)| matches!(kind, LayerCache::Recurrent { .. }))
        .flat_map(|((a, b), _)| [a, b])
}

/// Shapes of a recurrent layer's two arrays.
fn recurrent_shapes(layer: &LayerCache, sequences: usize) -> [Vec<usize>; 2] {
    match *layer {
        LayerCache::Recurrent {
            taps,
            channels,
            heads,
            key_dim,
            value_dim,
        } => [
            vec![sequences, taps, channels],
            vec![sequences, heads, key_dim, value_dim],
        ],
        LayerCache::Attention { .. } | LayerCache::Sliding { .. } => [Vec::new(), Vec::new()],
    }
}
