//! Model families, one file each.
//!
//! A model records kernel calls; see [`CausalLm`]. The registry below is the one line a new family adds.

pub mod bert;
#[cfg(feature = "vision")]
mod clip;
mod decoder;
pub mod distilbert;
#[cfg(feature = "vision")]
mod dual;
pub mod gemma3_text;
pub mod gemma4;
pub mod gpt2;
#[cfg(feature = "audio")]
mod hearing;
pub mod llama;
#[cfg(feature = "audio")]
mod moonshine;
pub mod nomic_bert;
mod parts;
pub mod phi3;
#[cfg(feature = "vision")]
mod pictures;
pub mod qwen2;
#[cfg(feature = "vision")]
mod qwen2_vl;
pub mod qwen3;
pub mod qwen3_5;
#[cfg(feature = "vision")]
mod qwen_vision;
#[cfg(feature = "vision")]
mod siglip;
#[cfg(feature = "vision")]
mod smolvlm;
#[cfg(any(feature = "vision", feature = "audio"))]
mod towers;
#[cfg(feature = "vision")]
mod vit;
#[cfg(feature = "audio")]
mod whisper;

use crate::cache::Cache;
use crate::checkpoint::Checkpoint;
use crate::encoder::Encoder;
use crate::loader::LoadProgress;
use crate::media::{MediaKind, Tower};
use crate::rope::Rope;
#[cfg(feature = "audio")]
use crate::speech::SpeechModel;
use crate::{Error, Result};
use firelight_kernels::{Array, Device, Recorder, Weight, embed};

/// What a layer keeps of a sequence: a kind of [`Cache`]'s arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerCache {
    /// Keys and values of each position.
    Attention {
        /// Key/value heads.
        kv_heads: usize,
        /// Elements of a head.
        head_dim: usize,
    },
    /// Keys and values of the last positions: a token sees `window` of them, itself included.
    Sliding {
        /// Key/value heads.
        kv_heads: usize,
        /// Elements of a head.
        head_dim: usize,
        /// Keys a token sees.
        window: usize,
    },
    /// A state of fixed size: the last inputs of a causal convolution, and a matrix per head of a linear attention.
    Recurrent {
        /// Inputs kept, `K`.
        taps: usize,
        /// Channels of the convolution, `C`.
        channels: usize,
        /// Value heads, `NV`.
        heads: usize,
        /// Rows of a matrix, `HK`.
        key_dim: usize,
        /// Columns of a matrix, `HV`.
        value_dim: usize,
    },
}

/// What the rest of the runtime needs to know of a model.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Tokens it knows.
    pub vocab: usize,
    /// Positions it was made for.
    pub context: usize,
    /// Per layer, what is cached.
    pub layers: Vec<LayerCache>,
    /// The rotary tables its layers use.
    pub ropes: Vec<Rope>,
    /// Soft tokens of the largest picture, if tokens of one picture see each other on sliding layers: it is then processed in one step.
    /// 0: they do not.
    pub mutual: usize,
}

impl LayerCache {
    /// Keys and values of which a token sees `window`; 0: all.
    pub fn attention(kv_heads: usize, head_dim: usize, window: usize) -> Self {
        match window {
            0 => LayerCache::Attention { kv_heads, head_dim },
            _ => LayerCache::Sliding {
                kv_heads,
                head_dim,
                window,
            },
        }
    }
}

impl Spec {
    /// True if a layer keeps a recurrent state.
    pub fn is_recurrent(&self) -> bool {
        let recurrent = |l: &LayerCache| matches!(l, LayerCache::Recurrent { .. });
        self.layers.iter().any(recurrent)
    }
}

/// Of which tokens logits are wanted.
#[derive(Clone, Copy, Debug)]
pub enum Logits<'a> {
    /// Of none: the step only fills the cache.
    None,
    /// Of all.
    All,
    /// Of these rows, u32 `[R]`.
    Rows(&'a Array),
}

/// The inputs of a step.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Token ids, u32 `[T]`.
    pub ids: &'a Array,
    /// `(sequence, position)` per token, u32 `[T, 2]`; tokens of a sequence stand next to each other.
    pub rows: &'a Array,
    /// Which logits are wanted.
    pub logits: Logits<'a>,
    /// What stands in the place of some tokens; `None`: nothing does.
    pub soft: Option<SoftTokens<'a>>,
}

/// Tokens that are rows of features, of a picture or a sound, and not of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct SoftTokens<'a> {
    /// `ids` with the model's padding token in the place of every soft one, u32 `[T]`.
    pub plain: &'a Array,
    /// The features: id `first + n` is row `n` of f32 `[N, D]`.
    pub tables: &'a [(u32, Weight)],
    /// One past the last position that each token sees, u32 `[T]`: a picture's tokens see its end. `None` unless the model's
    /// [`Spec::mutual`] is set.
    pub ends: Option<&'a Array>,
}

impl<'a> Inputs<'a> {
    /// Tokens of the vocabulary alone.
    pub fn text(ids: &'a Array, rows: &'a Array, logits: Logits<'a>) -> Self {
        Inputs {
            ids,
            rows,
            logits,
            soft: None,
        }
    }

    /// The ids as far as they are the vocabulary's: for tables that have no rows for soft tokens.
    pub fn plain(&self) -> &'a Array {
        self.soft.map_or(self.ids, |soft| soft.plain)
    }

    /// The tokens' embeddings, f32 `[T, D]`: rows of `table` times `scale`, and the features of soft tokens as they are.
    pub(crate) fn embed(&self, rec: &mut Recorder, table: &Weight, scale: f32) -> Result<Array> {
        let out = embed::embed(rec, self.plain(), table, scale)?;
        for (first, features) in self.soft.map_or(&[][..], |soft| soft.tables) {
            embed::embed_into(rec, self.ids, (features, *first), 1.0, &out)?;
        }
        Ok(out)
    }
}

/// A causal language model on a device.
pub trait CausalLm: Send + Sync {
    /// Sizes and tables.
    fn spec(&self) -> &Spec;

    /// What turns pictures or sounds into tokens of this model; `None`: it takes none of that kind.
    fn tower(&self, _kind: MediaKind) -> Option<&dyn Tower> {
        None
    }

    /// Records one step for `T` tokens; `cache` has room for every position. Gives f32 logits `[R, V]`, or `None` for
    /// [`Logits::None`].
    ///
    /// # Errors
    /// What the kernels refuse.
    fn forward(
        &self,
        rec: &mut Recorder,
        inputs: Inputs<'_>,
        cache: &Cache,
    ) -> Result<Option<Array>>;
}

type Load = fn(&Checkpoint, &Device, &mut LoadProgress<'_>) -> Result<Box<dyn CausalLm>>;

/// `model_type` (or GGUF architecture) and how to load it.
const REGISTRY: &[(&str, Load)] = &[
    ("gemma3", gemma3_text::load),
    ("gemma3_text", gemma3_text::load),
    ("gemma4", gemma4::load),
    ("gemma4_text", gemma4::load),
    ("gpt2", gpt2::load),
    ("llama", llama::load),
    ("phi3", phi3::load),
    ("qwen2", qwen2::load),
    ("qwen3", qwen3::load),
    ("qwen3_5", qwen3_5::load),
    ("qwen3_5_text", qwen3_5::load),
    #[cfg(feature = "vision")]
    ("idefics3", smolvlm::load),
    #[cfg(feature = "vision")]
    ("qwen2_vl", qwen2_vl::load),
    #[cfg(feature = "vision")]
    ("smolvlm", smolvlm::load),
    // What llama.cpp calls them.
    #[cfg(feature = "vision")]
    ("qwen2vl", qwen2_vl::load),
    ("qwen35", qwen3_5::load),
];

type LoadEncoder = fn(&Checkpoint, &Device, &mut LoadProgress<'_>) -> Result<Box<dyn Encoder>>;

/// The same for encoders; see [`crate::encoder`].
const ENCODERS: &[(&str, LoadEncoder)] = &[
    ("bert", bert::load),
    ("distilbert", distilbert::load),
    ("nomic_bert", nomic_bert::load),
    #[cfg(feature = "vision")]
    ("clip", clip::load),
    #[cfg(feature = "vision")]
    ("siglip", siglip::load),
];

#[cfg(feature = "audio")]
type LoadSpeech = fn(&Checkpoint, &Device, &mut LoadProgress<'_>) -> Result<Box<dyn SpeechModel>>;

/// The same for models that hear; see [`crate::speech`].
#[cfg(feature = "audio")]
const SPEECH: &[(&str, LoadSpeech)] = &[("moonshine", moonshine::load), ("whisper", whisper::load)];

/// The families of speech models this version runs.
#[cfg(feature = "audio")]
pub fn speech_families() -> impl Iterator<Item = &'static str> {
    SPEECH.iter().map(|(name, _)| *name)
}

/// Loads a checkpoint's speech model onto a device.
///
/// # Errors
/// `Unsupported` naming a family that does not hear and those that do, or what loading finds wrong.
#[cfg(feature = "audio")]
pub fn load_speech(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn SpeechModel>> {
    let family = checkpoint.model_type()?;
    let (_, load) = SPEECH
        .iter()
        .find(|(name, _)| *name == family)
        .ok_or_else(|| {
            let known: Vec<_> = speech_families().collect();
            Error::Unsupported(format!(
                "`{family}` as a speech model; this version transcribes with {}",
                known.join(", ")
            ))
        })?;
    load(checkpoint, device, progress)
}

/// The encoder families this version runs.
pub fn encoder_families() -> impl Iterator<Item = &'static str> {
    ENCODERS.iter().map(|(name, _)| *name)
}

/// Loads a checkpoint's encoder onto a device.
///
/// # Errors
/// `Unsupported` naming a family that is no encoder and those that are, or what loading finds wrong.
pub fn load_encoder(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn Encoder>> {
    let family = checkpoint.model_type()?;
    let (_, load) = ENCODERS
        .iter()
        .find(|(name, _)| *name == family)
        .ok_or_else(|| {
            let known: Vec<_> = encoder_families().collect();
            Error::Unsupported(format!(
                "`{family}` as an encoder; this version embeds and classifies with {}",
                known.join(", ")
            ))
        })?;
    load(checkpoint, device, progress)
}

/// The families of language models this version runs.
pub fn families() -> impl Iterator<Item = &'static str> {
    REGISTRY.iter().map(|(name, _)| *name)
}

/// GGUF's name of the tensor that `family`'s checkpoints call `name`.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn gguf_names(family: &str, name: &str) -> Option<String> {
    match family {
        "gemma3_text" => gemma3_text::gguf_name(name),
        "gpt2" => gpt2::gguf_name(name),
        _ => decoder::gguf_name(name),
    }
}

/// Loads a checkpoint's model onto a device.
///
/// # Errors
/// `Unsupported` naming an unknown family and the known ones, or what loading finds wrong.
pub fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn CausalLm>> {
    let family = checkpoint.model_type()?;
    let (_, load) = REGISTRY
        .iter()
        .find(|(name, _)| *name == family)
        .ok_or_else(|| {
            if encoder_families().any(|name| name == family) {
                return Error::Unsupported(format!(
                    "`{family}` is an encoder and writes no text; it is for embed, similar, classify, rerank and ner"
                ));
            }
            #[cfg(feature = "audio")]
            if speech_families().any(|name| name == family) {
                return Error::Unsupported(format!(
                    "`{family}` hears and does not chat; it is for transcribe and listen"
                ));
            }
            let known: Vec<_> = families().collect();
            Error::Unsupported(format!(
                "model family `{family}`; this version runs {}",
                known.join(", ")
            ))
        })?;
    let model = load(checkpoint, device, progress)?;
    #[cfg(all(feature = "vision", not(target_arch = "wasm32")))]
    if let Some(projector) = checkpoint.projector() {
        return towers::projected(model, projector, device);
    }
    Ok(model)
}
