//! Speech models: a clip in, encoded once; tokens out, one after the other, each looking at the whole clip.
//!
//! [`LoadedSpeech`] is what [`Engine::load_speech`] gives. [`SpeechState`] holds clips on the device: their encoder states, the keys
//! and values of the cross-attention, which are computed once for a clip, and the decoder's cache. What makes tokens a transcript is
//! in [`crate::pipelines::transcribe`].

mod align;
mod silence;
mod state;

pub use align::Alignment;
pub use silence::{Keys, Silence};
pub use state::{Clip, SpeechState, Token};

use crate::cache::Cache;
use crate::checkpoint::Checkpoint;
use crate::engine::Engine;
use crate::models::{self, Logits, Spec};
use crate::text_side::TextSide;
use crate::{Error, Result};
use firelight_audio::Whisper;
use firelight_kernels::{Array, Device, Recorder};
use std::sync::Arc;

/// What a speech model hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hears {
    /// Log-mel features: `frames` frames of `mels` bands.
    Mel {
        /// Bands, `M`.
        mels: usize,
        /// Frames of a clip.
        frames: usize,
    },
    /// Samples at 16 kHz, as many as there are, from `least` on.
    Samples {
        /// The shortest clip that gives a state, in samples.
        least: usize,
    },
}

/// What the rest of the runtime needs to know of a speech model.
#[derive(Clone, Debug)]
pub struct SpeechSpec {
    /// Its input.
    pub hears: Hears,
    /// Elements of an encoder state, `D`.
    pub hidden: usize,
    /// Heads of the decoder's cross-attention.
    pub cross_heads: usize,
    /// The token that decoding starts with.
    pub start: u32,
    /// The token that ends a transcript.
    pub end: u32,
    /// Vocabulary, context and cache of the decoder.
    pub decoder: Spec,
}

/// A step of the decoder: `T` tokens of one or more clips.
#[derive(Clone, Copy, Debug)]
pub struct SpeechInputs<'a> {
    /// Token ids, u32 `[T]`.
    pub ids: &'a Array,
    /// `(clip, position)` per token, u32 `[T, 2]`; tokens of a clip stand next to each other.
    pub rows: &'a Array,
    /// Each token's clip among the encoder states: first state and one past the last, u32 `[T, 2]`.
    pub spans: &'a Array,
    /// Which logits are wanted.
    pub logits: Logits<'a>,
    /// Keys and values of the cross-attention per layer, f32 `[S, D]`.
    pub cross: &'a [[Array; 2]],
}

/// A speech model on a device.
pub trait SpeechModel: Send + Sync {
    /// Sizes and ids.
    fn spec(&self) -> &SpeechSpec;

    /// Encoder states that a clip of `input` frames or samples gives.
    fn states(&self, input: usize) -> usize;

    /// Records the encoder on clips of one length: f32 `[B, frames, M]` or `[B, samples]` in, encoder states `[B·S, D]` out.
    ///
    /// # Errors
    /// What the kernels refuse; `Unsupported` for other keys than its own, where the model has no window.
    fn encode(&self, rec: &mut Recorder, input: &Array, keys: Keys<'_>) -> Result<Array>;

    /// Records the cross-attention's keys and values per decoder layer, from encoder states f32 `[S, D]`.
    ///
    /// # Errors
    /// What the kernels refuse.
    fn cross(&self, rec: &mut Recorder, states: &Array) -> Result<Vec<[Array; 2]>>;

    /// Records a step of the decoder: f32 logits `[R, V]`. If `queries` is given, those of the cross-attention are put there, f32
    /// `[T, D]` per layer.
    ///
    /// # Errors
    /// What the kernels refuse.
    fn decode(
        &self,
        rec: &mut Recorder,
        inputs: SpeechInputs<'_>,
        cache: &Cache,
        queries: Option<&mut Vec<Array>>,
    ) -> Result<Option<Array>>;
}

/// A speech model on a device, with its tokenizer. Cloning shares it.
#[derive(Clone)]
pub struct LoadedSpeech {
    /// Its files.
    pub checkpoint: Arc<Checkpoint>,
    /// Its tokenizer.
    pub text: Arc<TextSide>,
    /// Where it is.
    pub device: Device,
    /// The model.
    pub model: Arc<dyn SpeechModel>,
}

impl LoadedSpeech {
    /// The front end that the model hears through: of its `preprocessor_config.json` or `processor_config.json`, else the usual one
    /// for its number of bands.
    ///
    /// # Errors
    /// `InvalidInput` for a model that hears samples or a front end of other sizes than the model's, `Audio` for a configuration that
    /// is not served.
    pub fn front_end(&self) -> Result<Whisper> {
        let Hears::Mel { mels, frames } = self.model.spec().hears else {
            return Err(Error::invalid("this model hears samples, not features"));
        };
        let mut config = self.checkpoint.side_file("preprocessor_config.json")?;
        if config.is_none() {
            config = self.checkpoint.side_file("processor_config.json")?;
        }
        let front = match config {
            Some(bytes) => Whisper::from_config(&String::from_utf8_lossy(&bytes))?,
            None => Whisper::new(mels)?,
        };
        if (front.mels(), front.frames()) != (mels, frames) {
            return Err(Error::invalid(format!(
                "a front end of {} bands and {} frames for a model of {mels} and {frames}",
                front.mels(),
                front.frames()
            )));
        }
        let threads = match self.device.as_cpu() {
            Some(cpu) => cpu.pool.threads(),
            // A GPU's processor has nothing else to do meanwhile.
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        Ok(front.with_threads(threads))
    }
}

impl Engine {
    /// Loads a speech model's files onto the device. `progress` gets bytes loaded and bytes in all.
    ///
    /// # Errors
    /// What is wrong with the files, `Unsupported` for a family that does not hear, or `Device` if they do not fit.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn load_speech(
        &self,
        path: impl AsRef<std::path::Path>,
        progress: &mut (dyn FnMut(u64, u64) + '_),
    ) -> Result<LoadedSpeech> {
        let checkpoint = Checkpoint::open(path)?.with_dtypes(self.options().dtypes)?;
        self.load_speech_checkpoint(Arc::new(checkpoint), progress)
            .await
    }

    /// Loads an opened checkpoint.
    ///
    /// # Errors
    /// As [`Engine::load_speech`].
    pub async fn load_speech_checkpoint(
        &self,
        checkpoint: Arc<Checkpoint>,
        progress: &mut (dyn FnMut(u64, u64) + '_),
    ) -> Result<LoadedSpeech> {
        let text = Arc::new(TextSide::open(&checkpoint)?);
        let load = |device: &Device| models::load_speech(&checkpoint, device, progress);
        let (device, model) = self.on_a_rung(load).await?;
        Ok(LoadedSpeech {
            checkpoint,
            text,
            device,
            model: Arc::from(model),
        })
    }
}

impl Engine {
    /// Goes on with the next rung, if it was the device that failed: the model and its state are made anew there.
    ///
    /// # Errors
    /// `fault`, if it was not the device or there is no rung left; as [`Engine::load_speech`].
    pub(crate) async fn speech_below(
        &self,
        fault: Error,
        model: &mut LoadedSpeech,
        state: &mut SpeechState,
    ) -> Result<()> {
        if !fault.is_device_fault() {
            return Err(fault);
        }
        self.step_down(&fault).await?;
        let files = Arc::clone(&model.checkpoint);
        *model = self.load_speech_checkpoint(files, &mut |_, _| ()).await?;
        *state = SpeechState::new(&model.device, &model.model, 1)?;
        Ok(())
    }
}

/// An engine on the CPU and one of the tests' models.
#[cfg(test)]
pub(crate) fn fixture(model: &str) -> (Engine, LoadedSpeech) {
    let options = crate::EngineOptions {
        device: crate::DeviceChoice::Cpu,
        self_test: false,
        ..crate::EngineOptions::default()
    };
    let engine = pollster::block_on(Engine::new(options)).expect("an engine");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let path = format!("{folder}/{model}");
    let loaded = pollster::block_on(engine.load_speech(path, &mut |_, _| ()));
    (engine, loaded.expect("a model"))
}

/// An id that a model has no row for.
pub(crate) fn check_id(spec: &SpeechSpec, id: u32) -> Result<()> {
    if (id as usize) < spec.decoder.vocab {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "token id {id}; the model knows 0..{}",
        spec.decoder.vocab
    )))
}
