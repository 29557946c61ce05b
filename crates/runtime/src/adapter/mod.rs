//! LoRA adapters (PEFT's folder: `adapter_config.json` and `adapter_model.safetensors`) over a loaded model, or merged into one.
//!
//! An adapter adds `scale · B A x` to the result of some linear layers: `A` `[R, K]`, `B` `[N, R]`, `scale = lora_alpha / R`. Over a loaded
//! model it costs two small products a layer and is switched from request to request ([`GenerateOptions::adapters`]); the weights
//! stay as they are and several requests' adapters do not meet, because a sequence that was computed with one is computed anew
//! with another. Merged ([`Checkpoint::with_adapters`]) it costs nothing while generating, and cannot be taken off again: floats are merged
//! in f32, quantised matrices are dequantised, added to and quantised again, which [`Checkpoint::merged`] tells.
//!
//! ```no_run
//! use firelight_runtime::{Adapter, AdapterUse, CancelToken, Engine, EngineOptions, GenerateOptions, Message, Session};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # pollster::block_on(async {
//! let engine = Engine::new(EngineOptions::default()).await?;
//! let model = engine.load("llama-3.2-1b", &mut |_, _| ()).await?;
//! let clinic = Adapter::open("adapters/clinic")?;
//! clinic.fit(&model)?; // says now what a request would say later
//! let mut session = Session::new(&engine, &model)?;
//! for adapters in [vec![AdapterUse { adapter: clinic, scale: 1.0 }], Vec::new()] {
//!     let options = GenerateOptions { adapters, ..GenerateOptions::default() };
//!     let question = [Message::user("Sum up the findings.")];
//!     let answer = session.chat(&question, &options, &CancelToken::new(), &mut |_| ()).await?;
//!     println!("{}", answer.text);
//! }
//! # Ok(()) })
//! # }
//! ```
//!
//! Which layer is meant is known by its upstream name, in every family, also in a GGUF file. What this does not compute
//! (DoRA, trained biases, `modules_to_save`, …) is refused with the field's name. Source: Hu et al. 2021; PEFT 0.21.
//!
//! [`GenerateOptions::adapters`]: crate::GenerateOptions::adapters
//! [`Checkpoint::with_adapters`]: crate::checkpoint::Checkpoint::with_adapters
//! [`Checkpoint::merged`]: crate::checkpoint::Checkpoint::merged

mod config;
mod merge;

pub use merge::Merged;
pub(crate) use merge::{Merge, merge_rows};

use crate::cache::Cache;
use crate::checkpoint::Config;
use crate::engine::LoadedModel;
use crate::loader::PREFIXES;
use crate::models::{Inputs, Logits};
use crate::{Error, Result};
use config::AdapterConfig;
use firelight_kernels::{
    Array, Corrections, DType, Device, Holder, LowRank, Recorder, Site, Weight,
};
use firelight_tensor::Weights;
use std::collections::{BTreeMap, BTreeSet};
#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A LoRA adapter. Cloning shares it; see the module's head.
#[derive(Clone)]
pub struct Adapter(Arc<Inner>);

struct Inner {
    name: String,
    layers: BTreeMap<String, Layer>,
    /// What has been brought to a device.
    bound: Mutex<Option<Bound>>,
}

/// One layer's matrices on the host.
pub(crate) struct Layer {
    pub(crate) rank: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// `[R, K]`.
    pub(crate) a: Vec<f32>,
    /// `[N, R]`.
    pub(crate) b: Vec<f32>,
    /// `lora_alpha / R`.
    pub(crate) scale: f32,
}

/// Arrays on a device, by site.
struct Bound {
    device: Device,
    arrays: Vec<(Site, Weight, Array)>,
}

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Adapter({}, {} layers)",
            self.0.name,
            self.0.layers.len()
        )
    }
}

impl PartialEq for Adapter {
    /// True for the same adapter, opened once.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// An adapter and how much of it.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterUse {
    /// The adapter.
    pub adapter: Adapter,
    /// Factor on top of the adapter's own scale; 1: as it was trained.
    pub scale: f32,
}

impl Adapter {
    /// Reads a folder with `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// `Io` or `Tensor` if a file cannot be read, `Malformed` for what does not fit together, `Unsupported` naming the field of what
    /// this version does not compute.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = dir.join("adapter_config.json");
        let json = crate::checkpoint::read_limited(&path, 16 << 20)?;
        let file = dir.join("adapter_model.safetensors");
        if !file.is_file() && dir.join("adapter_model.bin").is_file() {
            return Err(Error::Unsupported(format!(
                "{}: adapter_model.bin is a pickle, which can run code when it is read; save the adapter again with \
                 safe_serialization=True",
                dir.display()
            )));
        }
        Self::new(
            &dir.display().to_string(),
            &json,
            &Weights::open_path(&file)?,
        )
    }

    /// An adapter from its two files' content; `name` is for messages.
    ///
    /// # Errors
    /// As [`Adapter::open`].
    pub fn new(name: &str, config_json: &[u8], weights: &Weights) -> Result<Self> {
        let config = AdapterConfig::read(name, config_json)?;
        let mut parts: BTreeMap<String, [Option<&str>; 2]> = BTreeMap::new();
        for tensor in weights.names() {
            let (module, half) = split_name(tensor).ok_or_else(|| {
                Error::Unsupported(format!(
                    "{name}: tensor `{tensor}`; this version reads lora_A and lora_B of linear layers"
                ))
            })?;
            parts.entry(module.to_owned()).or_default()[half] = Some(tensor);
        }
        let mut layers = BTreeMap::new();
        for (module, halves) in &parts {
            let [Some(a), Some(b)] = halves else {
                let half = ["lora_A", "lora_B"][usize::from(halves[0].is_some())];
                return Err(Error::malformed(
                    name,
                    format!("`{half}` of `{module}` is missing"),
                ));
            };
            let layer = Layer::read(name, &config, module, weights, (a, b))?;
            let site = site_name(module).to_owned();
            if layers.insert(site, layer).is_some() {
                let what = format!("`{module}` is there twice under different prefixes");
                return Err(Error::malformed(name, what));
            }
        }
        if layers.is_empty() {
            return Err(Error::malformed(
                name,
                "there is no lora_A in adapter_model.safetensors",
            ));
        }
        config.check_targets(name, parts.keys().map(String::as_str))?;
        Ok(Adapter(Arc::new(Inner {
            name: name.to_owned(),
            layers,
            bound: Mutex::new(None),
        })))
    }

    /// What it was opened as.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The layers it corrects, under upstream's names.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.0.layers.keys().map(String::as_str)
    }

    pub(crate) fn layer(&self, site: &str) -> Option<&Layer> {
        self.0.layers.get(site)
    }

    /// Checks that a model has every layer this adapter corrects, in its sizes, and brings the matrices to the model's device.
    ///
    /// # Errors
    /// `InvalidInput` naming a layer the model does not have or one of another size, `Device` if memory runs out.
    pub fn fit(&self, model: &LoadedModel) -> Result<()> {
        let seen = Arc::new(Seen {
            uses: Uses(vec![AdapterUse {
                adapter: self.clone(),
                scale: 1.0,
            }]),
            sites: Mutex::default(),
        });
        // A step is recorded as it would be and not run: every layer it has asks for its corrections.
        let spec = model.model.spec();
        let mut cache = Cache::new(&model.device, 1);
        cache.reserve(spec, 1)?;
        let mut rec = Recorder::new(&model.device);
        rec.correct(Some(seen.clone()));
        let (ids, rows) = (rec.dynamic(1)?, rec.dynamic(2)?);
        let inputs = Inputs::text(ids.array(), rows.array(), Logits::All);
        model.model.forward(&mut rec, inputs, &cache)?;
        let sites = seen.sites.lock().unwrap_or_else(PoisonError::into_inner);
        match self.0.layers.keys().find(|l| !sites.contains(*l)) {
            None => Ok(()),
            Some(layer) => {
                let hint = match model.checkpoint.config() {
                    Ok(Config::Gguf(_)) => {
                        " (layers that a GGUF file has in another order take no adapter; the safetensors checkpoint does)"
                    }
                    _ => "",
                };
                Err(Error::invalid(format!(
                    "{}: `target_modules`: the model has no linear layer `{layer}`{hint}; it has {}",
                    self.0.name,
                    some_of(&sites)
                )))
            }
        }
    }

    fn bound(&self) -> MutexGuard<'_, Option<Bound>> {
        self.0.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this adds to the layer of `weight`; its arrays are made at the first use on a device.
    fn low_rank(&self, device: &Device, weight: &Weight) -> Result<Option<(Weight, Array, f32)>> {
        let Some(site) = weight.site() else {
            return Ok(None);
        };
        // A matrix that is both embedding and head is a linear layer as the head only.
        let name = if site.name == "embed_tokens" {
            "lm_head"
        } else {
            &site.name
        };
        let Some(layer) = self.0.layers.get(name) else {
            return Ok(None);
        };
        let mut bound = self.bound();
        if bound.as_ref().is_none_or(|b| !b.device.is(device)) {
            *bound = None;
        }
        let bound = bound.get_or_insert_with(|| Bound {
            device: device.clone(),
            arrays: Vec::new(),
        });
        if let Some((_, a, b)) = bound.arrays.iter().find(|(s, ..)| s == site) {
            return Ok(Some((a.clone(), b.clone(), layer.scale)));
        }
        layer.check(&self.0.name, site, weight)?;
        let (a, b) = layer.upload(device, site)?;
        bound.arrays.push((site.clone(), a.clone(), b.clone()));
        Ok(Some((a, b, layer.scale)))
    }
}

impl Layer {
    fn read(
        name: &str,
        config: &AdapterConfig,
        module: &str,
        weights: &Weights,
        (a, b): (&str, &str),
    ) -> Result<Self> {
        let (a, b) = (weights.read(a)?, weights.read(b)?);
        let (&[rank, inputs], &[outputs, columns]) = (a.shape(), b.shape()) else {
            let what = format!(
                "`{module}`: lora_A {:?}, lora_B {:?}; expected matrices",
                a.shape(),
                b.shape()
            );
            return Err(Error::malformed(name, what));
        };
        let (field, said) = config.rank(name, module)?;
        if rank != said || columns != rank || rank == 0 {
            let what = format!(
                "`{module}`: lora_A {:?} and lora_B {:?} for a rank of {said} by `{field}`",
                a.shape(),
                b.shape()
            );
            return Err(Error::malformed(name, what));
        }
        let (a, b) = (a.to_f32_vec()?, b.to_f32_vec()?);
        if a.iter().chain(&b).any(|v| !v.is_finite()) {
            let what = format!("`{module}` holds NaN or infinity: the file is damaged");
            return Err(Error::malformed(name, what));
        }
        let scale = config.scale(name, module, rank)?;
        Ok(Layer {
            rank,
            inputs,
            outputs,
            a,
            b,
            scale,
        })
    }

    /// Fails unless the layer has this weight's size.
    fn check(&self, name: &str, site: &Site, weight: &Weight) -> Result<()> {
        if site.all == self.outputs && self.inputs == weight.cols() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{name}: `{}` is made for a layer [{}, {}]; the model's is [{}, {}]",
            site.name,
            self.outputs,
            self.inputs,
            site.all,
            weight.cols()
        )))
    }

    /// `A` with its rank filled up to whole groups, and the wanted rows of `B`, by rank.
    fn upload(&self, device: &Device, site: &Site) -> Result<(Weight, Array)> {
        let (rank, inputs) = (self.rank, self.inputs);
        let a = Weight::load::<Error>(device, DType::F32, rank, inputs, |first, bytes| {
            let first = first as usize / 4;
            let values = &self.a[first..first + bytes.len() / 4];
            bytes.copy_from_slice(bytemuck::cast_slice(values));
            Ok(())
        })?;
        let rows: Vec<usize> = site.rows.iter().cloned().flatten().collect();
        let mut b = vec![0f32; rank * rows.len()];
        for (n, row) in rows.iter().enumerate() {
            for r in 0..rank {
                b[r * rows.len() + n] = self.b[row * rank + r];
            }
        }
        let shape = [rank, rows.len()];
        let b = device.upload(
            DType::F32,
            &shape,
            bytemuck::cast_slice(&b),
            Holder::Weights,
        )?;
        Ok((a, b))
    }
}

/// The adapters of a request, in order.
pub(crate) struct Uses(pub(crate) Vec<AdapterUse>);

impl Corrections for Uses {
    fn of(&self, device: &Device, weight: &Weight) -> firelight_kernels::Result<Vec<LowRank>> {
        let mut all = Vec::new();
        for AdapterUse { adapter, scale } in &self.0 {
            let low = adapter.low_rank(device, weight).map_err(to_kernels)?;
            if let Some((a, b, own)) = low {
                all.push(LowRank {
                    a,
                    b,
                    scale: own * scale,
                });
            }
        }
        Ok(all)
    }
}

/// Notes which layers there are.
struct Seen {
    uses: Uses,
    sites: Mutex<BTreeSet<String>>,
}

impl Corrections for Seen {
    fn of(&self, device: &Device, weight: &Weight) -> firelight_kernels::Result<Vec<LowRank>> {
        if let Some(site) = weight.site() {
            let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
            if site.name == "embed_tokens" {
                sites.insert("lm_head".to_owned());
            } else {
                sites.insert(site.name.clone());
            }
        }
        self.uses.of(device, weight)
    }
}

/// Errors pass through a recording as the kernels' own.
fn to_kernels(error: Error) -> firelight_kernels::Error {
    match error {
        Error::Kernels(e) => e,
        Error::InvalidInput(what) => firelight_kernels::Error::invalid(what),
        other => firelight_kernels::Error::invalid(other.to_string()),
    }
}

/// The layers of one block and what is outside the blocks, for a message.
fn some_of(sites: &BTreeSet<String>) -> String {
    let short = |s: &String| match s.strip_prefix("layers.").and_then(|r| r.split_once('.')) {
        Some((_, rest)) => format!("layers.N.{rest}"),
        None => s.clone(),
    };
    let names: BTreeSet<String> = sites.iter().map(short).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// The module of an adapter's tensor and which half it is: 0 `lora_A`, 1 `lora_B`.
fn split_name(tensor: &str) -> Option<(&str, usize)> {
    let name = tensor.strip_prefix("base_model.model.")?;
    let name = name.strip_suffix(".weight")?;
    let name = name.strip_suffix(".default").unwrap_or(name);
    let module = name.strip_suffix(".lora_A").map(|m| (m, 0));
    module.or_else(|| name.strip_suffix(".lora_B").map(|m| (m, 1)))
}

/// What loading calls a module: its name without the prefix that checkpoints carry.
fn site_name(module: &str) -> &str {
    let longest = PREFIXES
        .iter()
        .filter(|p| module.starts_with(**p))
        .max_by_key(|p| p.len());
    &module[longest.map_or(0, |p| p.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_prefixes_and_halves() {
        let split = |t| split_name(t).map(|(m, half)| (site_name(m), half));
        assert_eq!(
            split("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"),
            Some(("layers.0.self_attn.q_proj", 0))
        );
        assert_eq!(
            split(
                "base_model.model.model.language_model.layers.3.mlp.up_proj.lora_B.default.weight"
            ),
            Some(("layers.3.mlp.up_proj", 1))
        );
        assert_eq!(
            split("base_model.model.lm_head.lora_A.weight"),
            Some(("lm_head", 0))
        );
        for other in [
            "base_model.model.lm_head.weight",
            "base_model.model.model.embed_tokens.lora_embedding_A",
            "base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector",
            "model.layers.0.self_attn.q_proj.weight",
        ] {
            assert_eq!(split_name(other), None, "{other}");
        }
    }
}
