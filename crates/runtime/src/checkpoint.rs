//! A model's files, opened: weights, configuration, tokenizer, templates.
//!
//! A folder in the Hugging Face layout, a single `.gguf`, or the first part of a split one; a Whisper model in CTranslate2's
//! layout or in whisper.cpp's. Nothing is loaded here.

mod ct2;
mod ggml;

use crate::adapter::{AdapterUse, Merge, Merged};
use crate::fill::Fill;
use crate::narrow::Narrow;
use crate::{Dtypes, Error, Result};
use firelight_tensor::gguf::Metadata;
use firelight_tensor::{ByteSource, DType, MemSource, TensorInfo, Weights};
use serde_json::Value;
#[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
mod projector;

#[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
pub(crate) use projector::{Projector, ProjectorKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What kind of configuration came with the weights.
pub enum Config<'a> {
    /// `config.json`.
    Json(&'a Value),
    /// GGUF metadata.
    Gguf(&'a Metadata),
}

/// See the module's head.
pub struct Checkpoint {
    root: PathBuf,
    weights: Weights,
    config: Option<Value>,
    generation_config: Option<Value>,
    /// Weights are made up, in this type.
    synthetic: Option<DType>,
    /// Side files given in memory, by name.
    given: Arc<BTreeMap<String, Vec<u8>>>,
    /// Where a [`crate::loader::Loader`] leaves what is to be filled, while a load is planned.
    plan: Option<Mutex<Vec<Fill>>>,
    /// Adapters that loading merges in.
    merge: Arc<Merge>,
    dtypes: Dtypes,
    narrow: Arc<Narrow>,
    /// The tower of a GGUF file's model, in a file of its own.
    #[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
    projector: Option<Arc<Projector>>,
}

impl Checkpoint {
    /// Opens a folder or file.
    ///
    /// # Errors
    /// `Malformed` or `Tensor` naming what is wrong, `Io` if a file cannot be read.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let root = path.as_ref().to_path_buf();
        let weights = Weights::open_path(&root)?;
        let json = |name: &str| -> Result<Option<Value>> {
            let file = root.join(name);
            if !root.is_dir() || !file.is_file() {
                return Ok(None);
            }
            let text = read_limited(&file, 16 << 20)?;
            serde_json::from_slice(&text)
                .map(Some)
                .map_err(|e| Error::malformed(file.display().to_string(), e.to_string()))
        };
        let files = (json("config.json")?, json("generation_config.json")?);
        let mut given = BTreeMap::new();
        let (weights, config, generation_config) = upstream(weights, files, &mut given)?;
        #[cfg_attr(not(feature = "vision"), allow(unused_mut))]
        let mut checkpoint = Checkpoint {
            root,
            weights,
            config,
            generation_config,
            synthetic: None,
            given: Arc::new(given),
            plan: None,
            merge: Arc::default(),
            dtypes: Dtypes::default(),
            narrow: Arc::default(),
            #[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
            projector: None,
        };
        checkpoint.config()?;
        #[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
        checkpoint.find_projector();
        Ok(checkpoint)
    }

    /// Takes the projector beside a GGUF file, if there is one that fits: what does not fit is another model's.
    #[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
    fn find_projector(&mut self) {
        let Some(text) = self.weights.gguf_metadata() else {
            return;
        };
        let file = match self.root.is_dir() {
            true => projector::beside(&self.root.join("model.gguf")),
            false => projector::beside(&self.root),
        };
        let open = |file: PathBuf| {
            let weights = Weights::open_path(&file).ok()?;
            Projector::new(&weights, &file.display().to_string(), text).ok()
        };
        self.projector = file.and_then(open).map(Arc::new);
    }

    /// This model in a GGUF file with the tower in `path`, `mmproj-….gguf`. A file of that name beside the model is found without.
    ///
    /// # Errors
    /// `Malformed` or `Unsupported` if it is no projector, or another model's; `Tensor` if it cannot be read.
    #[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
    pub fn with_projector(mut self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let Some(text) = self.weights.gguf_metadata() else {
            return Err(Error::invalid(format!(
                "a projector ({}) for a model that is no GGUF file; a folder has its tower among its own weights",
                path.display()
            )));
        };
        let weights = Weights::open_path(path)?;
        let projector = Projector::new(&weights, &path.display().to_string(), text)?;
        self.projector = Some(Arc::new(projector));
        Ok(self)
    }

    /// The tower's file, if there is one.
    #[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
    pub(crate) fn projector(&self) -> Option<&Projector> {
        self.projector.as_deref()
    }

    /// A model whose files are not in a folder: its weights' sources, one `.gguf` or the parts of a split one or `.safetensors`
    /// files, and the small files beside them by name. `name` appears in messages.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_parts(
        name: &str,
        weights: Vec<Arc<dyn ByteSource>>,
        mut files: BTreeMap<String, Vec<u8>>,
    ) -> Result<Self> {
        let json = |name: &str| -> Result<Option<Value>> {
            let parse = |bytes: &Vec<u8>| {
                serde_json::from_slice(bytes).map_err(|e| Error::malformed(name, e.to_string()))
            };
            files.get(name).map(parse).transpose()
        };
        let configs = (json("config.json")?, json("generation_config.json")?);
        let (weights, config, generation_config) =
            upstream(Weights::open_parts(weights)?, configs, &mut files)?;
        let checkpoint = Checkpoint {
            root: PathBuf::from(name),
            weights,
            config,
            generation_config,
            synthetic: None,
            given: Arc::new(files),
            plan: None,
            merge: Arc::default(),
            dtypes: Dtypes::default(),
            narrow: Arc::default(),
            #[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
            projector: None,
        };
        checkpoint.config()?;
        Ok(checkpoint)
    }

    /// The same files, for a load that only notes what is to be filled: see [`crate::stream`].
    pub(crate) fn planning(&self) -> Self {
        Checkpoint {
            root: self.root.clone(),
            weights: self.weights.clone(),
            config: self.config.clone(),
            generation_config: self.generation_config.clone(),
            synthetic: self.synthetic,
            given: Arc::clone(&self.given),
            plan: Some(Mutex::default()),
            merge: Arc::clone(&self.merge),
            dtypes: self.dtypes,
            narrow: Arc::clone(&self.narrow),
            #[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
            projector: self.projector.clone(),
        }
    }

    /// Notes a fill if a load is being planned; gives it back if it is to be done at once.
    pub(crate) fn postpone(&self, fill: Fill) -> Option<Fill> {
        let Some(plan) = &self.plan else {
            return Some(fill);
        };
        plan.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(fill);
        None
    }

    /// What was noted.
    pub(crate) fn into_plan(self) -> Vec<Fill> {
        let plan = self.plan.unwrap_or_default();
        plan.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// A model in the shapes of a `config.json`, with random weights of type `dtype`: nothing is read from a file.
    ///
    /// # Errors
    /// `Malformed` if the configuration is no JSON.
    pub fn synthetic(config_json: &[u8], dtype: DType) -> Result<Self> {
        let config = serde_json::from_slice(config_json)
            .map_err(|e| Error::malformed("config.json", e.to_string()))?;
        let nothing = firelight_tensor::safetensors::write_to_vec(&Default::default(), [])?;
        let weights = Weights::open(Arc::new(MemSource::new("synthetic", nothing)))?;
        let root = PathBuf::from("synthetic");
        Ok(Checkpoint {
            root,
            weights,
            config: Some(config),
            generation_config: None,
            synthetic: Some(dtype),
            given: Arc::default(),
            plan: None,
            merge: Arc::default(),
            dtypes: Dtypes::default(),
            narrow: Arc::default(),
            #[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
            projector: None,
        })
    }

    /// The type of made-up weights; `None` for real ones.
    pub fn synthetic_dtype(&self) -> Option<DType> {
        self.synthetic
    }

    /// The same checkpoint with adapters merged into its weights when they are loaded: floats in f32; quantised matrices are
    /// dequantised, added to and quantised again (see [`Checkpoint::merged`]).
    #[must_use]
    pub fn with_adapters(mut self, adapters: Vec<AdapterUse>) -> Self {
        self.merge = Arc::new(Merge::new(adapters));
        self
    }

    /// What adapters were merged into, as far as it has been loaded.
    pub fn merged(&self) -> Vec<Merged> {
        self.merge.log()
    }

    pub(crate) fn merge(&self) -> &Merge {
        &self.merge
    }

    /// This checkpoint with its matrices in other types, converted as they are loaded. Beside block-quantised layers a head that
    /// `dtypes` does not name becomes q6_k, as in files that llama.cpp's quantiser writes.
    ///
    /// # Errors
    /// `InvalidInput` if `dtypes` names a head that the model has not, or has only as its embedding and in another type.
    pub fn with_dtypes(mut self, dtypes: Dtypes) -> Result<Self> {
        let head = |name: &str| name == "output.weight" || name.ends_with("lm_head.weight");
        let tied = !self.weights.names().any(head);
        let family = self.model_type().unwrap_or_default();
        let encoder = crate::models::encoder_families().any(|name| name == family);
        let dtypes = match tied {
            true => dtypes.tied(encoder.then_some(&family))?,
            false => dtypes,
        };
        self.dtypes = dtypes.with_better_head(tied);
        Ok(self)
    }

    /// The types its matrices are loaded as.
    pub fn dtypes(&self) -> Dtypes {
        self.dtypes
    }

    pub(crate) fn narrow(&self) -> &Narrow {
        &self.narrow
    }

    /// True if matrices are loaded in a block-quantised type.
    pub fn is_quantized(&self) -> bool {
        let held = |info: &TensorInfo| match *info.shape {
            [_, cols] => self.dtypes.of(&info.name, info.dtype, cols),
            _ => info.dtype,
        };
        let made_up = self.synthetic.is_some_and(DType::is_quantized);
        made_up
            || self
                .weights
                .tensors()
                .iter()
                .any(|info| held(info).is_quantized())
    }

    /// Where the files are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The tensors.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The configuration.
    ///
    /// # Errors
    /// `Malformed` if there is none.
    pub fn config(&self) -> Result<Config<'_>> {
        if let Some(metadata) = self
            .weights
            .gguf_metadata()
            .filter(|_| self.config.is_none())
        {
            return Ok(Config::Gguf(metadata));
        }
        self.config.as_ref().map(Config::Json).ok_or_else(|| {
            Error::malformed(
                self.root.display().to_string(),
                "no config.json beside the weights; give the model's whole folder",
            )
        })
    }

    /// `generation_config.json`, if there is one.
    pub fn generation_config(&self) -> Option<&Value> {
        self.generation_config.as_ref()
    }

    /// The family: `model_type` of `config.json`, or `general.architecture` of a GGUF file.
    ///
    /// # Errors
    /// `Malformed` if it is missing.
    pub fn model_type(&self) -> Result<String> {
        let missing = |key: &str| {
            Error::malformed(
                self.root.display().to_string(),
                format!("`{key}` is missing"),
            )
        };
        match self.config()? {
            Config::Json(v) => v
                .get("model_type")
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| missing("model_type")),
            Config::Gguf(m) => m
                .get_as::<&str>("general.architecture")?
                .map(str::to_owned)
                .ok_or_else(|| missing("general.architecture")),
        }
    }

    /// A side file of a folder checkpoint, at most 64 MiB.
    ///
    /// # Errors
    /// `Io` if it is there and cannot be read, `Limit` if it is larger.
    pub fn side_file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.given.get(name) {
            return Ok(Some(bytes.clone()));
        }
        let file = self.root.join(name);
        if !self.root.is_dir() || !file.is_file() {
            return Ok(None);
        }
        read_limited(&file, 64 << 20).map(Some)
    }

    /// Ids that end an answer: of the generation config, else of the config or the GGUF metadata.
    ///
    /// # Errors
    /// `Tensor` if a GGUF key has the wrong type.
    pub fn eos_ids(&self) -> Result<Vec<u32>> {
        let ids = |v: &Value| -> Vec<u32> {
            let one = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
            match v {
                Value::Array(list) => list.iter().filter_map(one).collect(),
                v => one(v).into_iter().collect(),
            }
        };
        if let Some(metadata) = self.weights.gguf_metadata() {
            let keys = [
                "tokenizer.ggml.eos_token_id",
                "tokenizer.ggml.eot_token_id",
                "tokenizer.ggml.eom_token_id",
            ];
            let mut found = Vec::new();
            for key in keys {
                found.extend(metadata.get_as::<u32>(key)?);
            }
            return Ok(found);
        }
        // Multimodal checkpoints keep the text tower's ids one level down.
        let inner = self.config.as_ref().and_then(|c| c.get("text_config"));
        let sources = [self.generation_config.as_ref(), self.config.as_ref(), inner];
        let found = sources
            .into_iter()
            .flatten()
            .filter_map(|v| v.get("eos_token_id"))
            .map(ids);
        Ok(found
            .into_iter()
            .find(|l| !l.is_empty())
            .unwrap_or_default())
    }
}

/// Weights and configurations under upstream's names. What upstream has in files of their own and this file inside is added to `given`.
fn upstream(
    weights: Weights,
    (config, generation): (Option<Value>, Option<Value>),
    given: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(Weights, Option<Value>, Option<Value>)> {
    if let Some(head) = weights.ggml_head() {
        let (config, tokenizer) = ggml::whisper(head)?;
        let file = || tokenizer.to_string().into_bytes();
        given
            .entry("tokenizer.json".to_owned())
            .or_insert_with(file);
        return Ok((weights.renamed(ggml::name), Some(config), generation));
    }
    if weights.ct2_spec().is_none() {
        return Ok((weights, config, generation));
    }
    let (weights, config, own) = ct2::whisper(&weights, config.as_ref())?;
    Ok((weights, Some(config), generation.or(own)))
}

/// A file of at most `max` bytes.
pub(crate) fn read_limited(path: &Path, max: u64) -> Result<Vec<u8>> {
    let io = |source| Error::Io {
        path: path.display().to_string(),
        source,
    };
    let len = std::fs::metadata(path).map_err(io)?.len();
    if len > max {
        return Err(Error::Limit {
            what: "bytes of a configuration file",
            max,
            got: len,
        });
    }
    std::fs::read(path).map_err(io)
}

/// Reads the fields of a `config.json`.
pub(crate) struct Fields<'a>(pub(crate) &'a Value);

impl Fields<'_> {
    /// A required positive integer.
    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        self.maybe_size(key)?
            .ok_or_else(|| Error::malformed("config.json", format!("`{key}` is missing")))
    }

    /// An optional positive integer; null counts as missing.
    pub(crate) fn maybe_size(&self, key: &str) -> Result<Option<usize>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_u64() {
                Some(n) if (1..=1 << 31).contains(&n) => Ok(Some(n as usize)),
                _ => Err(Error::malformed(
                    "config.json",
                    format!("`{key}` is {v}; expected a positive integer"),
                )),
            },
        }
    }

    /// How many of something there are: an integer, 0 if it is missing or null.
    pub(crate) fn count(&self, key: &str) -> Result<usize> {
        match self.0.get(key) {
            Some(Value::Number(n)) if n.as_u64() == Some(0) => Ok(0),
            _ => Ok(self.maybe_size(key)?.unwrap_or(0)),
        }
    }

    /// An optional number; null counts as missing.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => v.as_f64().map(Some).ok_or_else(|| {
                Error::malformed("config.json", format!("`{key}` is {v}; expected a number"))
            }),
        }
    }

    /// An optional flag.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.0.get(key).and_then(Value::as_bool)
    }

    /// An optional string.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }
}
