//! Merging adapters into the weights as they are loaded.

use super::AdapterUse;
use crate::{Error, Result};
use firelight_kernels::Site;
use firelight_tensor::{DType, quant};
use std::sync::{Mutex, PoisonError};

/// A matrix that adapters were merged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The layer.
    pub layer: String,
    /// How it is stored in the file.
    pub stored: DType,
    /// How it is held now: f32 for floats; else the file's type, quantised again.
    pub held: DType,
}

/// Adapters to be merged, and what was.
#[derive(Default)]
pub(crate) struct Merge {
    pub(crate) adapters: Vec<AdapterUse>,
    log: Mutex<Vec<Merged>>,
}

impl Merge {
    pub(crate) fn new(adapters: Vec<AdapterUse>) -> Self {
        Merge {
            adapters,
            log: Mutex::default(),
        }
    }

    /// True if something is merged into this matrix.
    pub(crate) fn touches(&self, site: &str) -> bool {
        self.adapters
            .iter()
            .any(|u| u.adapter.layer(site).is_some())
    }

    pub(crate) fn note(&self, merged: Merged) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if !log.contains(&merged) {
            log.push(merged);
        }
    }

    pub(crate) fn log(&self) -> Vec<Merged> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Fails for a layer of an adapter that nothing was merged into.
    pub(crate) fn check(&self) -> Result<()> {
        let log = self.log();
        for AdapterUse { adapter, .. } in &self.adapters {
            let missing = adapter
                .layers()
                .find(|l| !log.iter().any(|m| m.layer == **l));
            if let Some(layer) = missing {
                let hint = if layer == "lm_head" {
                    "; a head that is also the embedding cannot be merged into, use the adapter unmerged"
                } else {
                    ""
                };
                return Err(Error::invalid(format!(
                    "{}: `target_modules`: the model has no linear layer `{layer}` of its own to merge into{hint}",
                    adapter.name()
                )));
            }
        }
        Ok(())
    }
}

/// Adds the adapters' part to whole rows of a matrix `[.., cols]`: `stored` holds rows `first ..` of the site's, in type `from`; `out`
/// gets them in type `to`.
///
/// # Errors
/// `InvalidInput` if an adapter is made for another size, `Tensor` if a sum is beyond what the type holds.
pub(crate) fn merge_rows(
    merge: &Merge,
    site: &Site,
    (first, cols): (usize, usize),
    (from, stored): (DType, &[u8]),
    (to, out): (DType, &mut [u8]),
) -> Result<()> {
    let row_bytes = from.bytes_for(cols)?;
    let rows: Vec<usize> = site
        .rows
        .iter()
        .cloned()
        .flatten()
        .skip(first)
        .take(stored.len() / row_bytes)
        .collect();
    let mut values = vec![0f32; rows.len() * cols];
    firelight_kernels::dequant::to_f32(from, stored, &mut values)?;
    for AdapterUse { adapter, scale } in &merge.adapters {
        let Some(layer) = adapter.layer(&site.name) else {
            continue;
        };
        if layer.inputs != cols || site.all != layer.outputs {
            return Err(Error::invalid(format!(
                "{}: `{}` is made for a layer [{}, {}]; the model's is [{}, {cols}]",
                adapter.name(),
                site.name,
                layer.outputs,
                layer.inputs,
                site.all
            )));
        }
        let scale = f64::from(layer.scale * scale);
        let mut sum = vec![0f64; cols];
        for (row, values) in rows.iter().zip(values.chunks_mut(cols)) {
            sum.fill(0.0);
            let b = &layer.b[row * layer.rank..(row + 1) * layer.rank];
            for (b, a) in b.iter().zip(layer.a.chunks(cols)) {
                for (s, a) in sum.iter_mut().zip(a) {
                    *s += f64::from(*b) * f64::from(*a);
                }
            }
            for (v, s) in values.iter_mut().zip(&sum) {
                *v = (f64::from(*v) + scale * s) as f32;
            }
        }
    }
    if to == DType::F32 {
        out.copy_from_slice(bytemuck::cast_slice(&values));
    } else {
        quant::quantize_into(to, &values, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Adapter;
    use firelight_tensor::{MemSource, Tensor, Weights, safetensors};
    use std::sync::Arc;

    /// An adapter `[4, 64]` of rank 2 with a scale of 3.
    fn adapter(a: &[f32], b: &[f32]) -> Adapter {
        let a = Tensor::from_f32(a, &[2, 64]).expect("a tensor");
        let b = Tensor::from_f32(b, &[4, 2]).expect("a tensor");
        let name =
            |half: &str| format!("base_model.model.model.layers.0.mlp.up_proj.{half}.weight");
        let (na, nb) = (name("lora_A"), name("lora_B"));
        let tensors = [(na.as_str(), &a), (nb.as_str(), &b)];
        let bytes = safetensors::write_to_vec(&Default::default(), tensors).expect("a file");
        let weights = Weights::open(Arc::new(MemSource::new("adapter", bytes))).expect("opens");
        let config =
            br#"{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": "all-linear"}"#;
        Adapter::new("adapter", config, &weights).expect("an adapter")
    }

    #[test]
    fn quantised_rows_are_the_nearest_to_the_sum() {
        let a: Vec<f32> = (0..128)
            .map(|i| ((i * 37 % 41) as f32 - 20.0) * 0.01)
            .collect();
        let b = [1.0, -0.5, 0.25, 2.0, 0.0, 0.0, -1.0, 1.5];
        let used = AdapterUse {
            adapter: adapter(&a, &b),
            scale: 0.5,
        };
        let merge = Merge::new(vec![used]);
        let base: Vec<f32> = (0..4 * 64)
            .map(|i| ((i * 29 % 53) as f32 - 26.0) * 0.02)
            .collect();
        let mut stored = vec![0; DType::Q8_0.bytes_for(base.len()).expect("whole blocks")];
        quant::quantize_into(DType::Q8_0, &base, &mut stored).expect("quantised");
        let mut plain = vec![0f32; base.len()];
        quant::dequantize_into(DType::Q8_0, &stored, &mut plain).expect("dequantised");
        // Rows 3 and 1 of the layer, in this order, the first skipped.
        let site = Site {
            name: "layers.0.mlp.up_proj".into(),
            rows: vec![2..3, 3..4, 1..2],
            all: 4,
        };
        let row = stored.len() / 4;
        let two = [&stored[3 * row..], &stored[row..2 * row]].concat();
        let mut out = vec![0; 2 * row];
        merge_rows(
            &merge,
            &site,
            (1, 64),
            (DType::Q8_0, &two),
            (DType::Q8_0, &mut out),
        )
        .expect("merges");
        let mut merged = vec![0f32; 128];
        quant::dequantize_into(DType::Q8_0, &out, &mut merged).expect("dequantised");
        for (i, r) in [3usize, 1].into_iter().enumerate() {
            for c in 0..64 {
                let delta = 1.5 * (b[2 * r] * a[c] + b[2 * r + 1] * a[64 + c]);
                let want = plain[r * 64 + c] + delta;
                let got = merged[i * 64 + c];
                // Half a step of a block whose largest number is below 1.5.
                assert!(
                    (got - want).abs() <= 0.75 / 127.0,
                    "{r},{c}: {got}, expected {want}"
                );
            }
        }
        // Into f32 the sum is exact but for one rounding.
        let mut wide = vec![0u8; 128 * 4];
        merge_rows(
            &merge,
            &site,
            (1, 64),
            (DType::Q8_0, &two),
            (DType::F32, &mut wide),
        )
        .expect("merges");
        let wide: Vec<f32> = bytemuck::pod_collect_to_vec(&wide);
        let delta = 1.5 * (b[6] * a[5] + b[7] * a[64 + 5]);
        assert!((wide[5] - plain[3 * 64 + 5] - delta).abs() < 1e-6);
        // A layer of another size, and one that nothing was merged into.
        let other = Site { all: 5, ..site };
        let error = merge_rows(
            &merge,
            &other,
            (0, 64),
            (DType::Q8_0, &two),
            (DType::F32, &mut [0; 512]),
        );
        assert!(error.is_err_and(|e| e.to_string().contains("is made for a layer [4, 64]")));
        assert!(
            merge
                .check()
                .is_err_and(|e| e.to_string().contains("layers.0.mlp.up_proj"))
        );
    }
}
