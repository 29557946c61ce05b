//! Key/value caches of a model's layers, written in place.
//!
//! One pair of arrays `[NSEQ, CAP, NKV, HD]` per layer. `CAP` grows by blocks when a sequence needs more room: the only time
//! anything is copied, and never per token.

use crate::Result;
use crate::models::Spec;
use firelight_kernels::{Array, DType, Device, Holder};

/// Positions are added in blocks of this many.
const BLOCK: usize = 256;

/// See the module's head.
pub struct Cache {
    device: Device,
    sequences: usize,
    capacity: usize,
    layers: Vec<(Array, Array)>,
    ropes: Vec<Array>,
    /// Grows whenever the arrays are replaced: recordings of an older generation are void.
    generation: u64,
}

impl Cache {
    /// An empty cache for `sequences` sequences.
    pub fn new(device: &Device, sequences: usize) -> Self {
        Cache {
            device: device.clone(),
            sequences: sequences.max(1),
            capacity: 0,
            layers: Vec::new(),
            ropes: Vec::new(),
            generation: 0,
        }
    }

    /// Keys and values of a layer.
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

    /// Bytes held.
    pub fn nbytes(&self) -> u64 {
        self.layers
            .iter()
            .map(|(k, v)| k.nbytes() + v.nbytes())
            .sum()
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
        let dtype = self.device.cache_dtype();
        let mut layers = Vec::with_capacity(spec.layers.len());
        for (i, layer) in spec.layers.iter().enumerate() {
            let shape = [self.sequences, capacity, layer.kv_heads, layer.head_dim];
            let make = |old: Option<&Array>| -> Result<Array> {
                let array = self.device.array(dtype, &shape, Holder::Cache)?;
                if let Some(old) = old {
                    let bytes = old.nbytes() / self.sequences as u64;
                    for s in 0..self.sequences {
                        self.device
                            .copy(&old.rows(s, 1)?, &array.rows(s, 1)?, bytes)?;
                    }
                }
                Ok(array)
            };
            let old = self.layers.get(i);
            layers.push((make(old.map(|(k, _)| k))?, make(old.map(|(_, v)| v))?));
        }
        let mut ropes = Vec::with_capacity(spec.ropes.len());
        for rope in &spec.ropes {
            let table = rope.table(capacity);
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
}
