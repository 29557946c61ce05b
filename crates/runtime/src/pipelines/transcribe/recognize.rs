//! The words of one utterance, with a model of either kind.

use super::window::WindowDecoder;
use super::{Options, Vocabulary};
use crate::engine::Engine;
use crate::source::CancelToken;
use crate::speech::{Clip, Hears, LoadedSpeech, SpeechState, Token};
use crate::{Error, Result};
use firelight_audio::{Level, Whisper};

/// What reads a model's output.
enum Kind {
    /// Features of a window, a vocabulary with tasks and times.
    Windows(Whisper, Box<Vocabulary>),
    /// Samples as they are; text and nothing else.
    Samples { least: usize },
}

/// Tokens per second of speech, at most: a model that says more repeats itself. As upstream bounds it.
const TOKENS_PER_SECOND: f64 = 6.5;

/// Recognises utterances of at most 30 s, one after the other.
pub struct Recognizer {
    engine: Engine,
    model: LoadedSpeech,
    state: SpeechState,
    kind: Kind,
    options: Options,
    language: Option<u32>,
    /// See [`crate::pipelines::listen::Options::after`].
    pub(crate) after: Option<f64>,
}

impl Recognizer {
    /// A recogniser with a loaded model.
    ///
    /// # Errors
    /// `InvalidInput` for a language that the model does not know, `Device` if memory runs out.
    pub fn new(engine: &Engine, model: LoadedSpeech, options: Options) -> Result<Self> {
        let (kind, language) = match model.model.spec().hears {
            Hears::Samples { least } => (Kind::Samples { least }, None),
            Hears::Mel { .. } => {
                let words = Vocabulary::of(&model)?;
                let language = super::language(&words, &options)?.map(|(id, _)| id);
                (Kind::Windows(model.front_end()?, Box::new(words)), language)
            }
        };
        Ok(Recognizer {
            engine: engine.clone(),
            state: SpeechState::new(&model.device, &model.model, 1)?,
            model,
            kind,
            options,
            language,
            after: None,
        })
    }

    /// Samples that an utterance may have.
    pub(crate) fn longest(&self) -> usize {
        match &self.kind {
            Kind::Windows(front, _) => front.window(),
            Kind::Samples { .. } => 30 * 16_000,
        }
    }

    /// The text of an utterance: mono samples at 16 kHz. Empty if nothing is said.
    ///
    /// # Errors
    /// `Audio` if a sample is no number or there are more than 30 s, `Cancelled`, `BadLogits`, `Device` if there is no rung left.
    pub async fn recognize(&mut self, samples: &[f32], cancel: &CancelToken) -> Result<String> {
        let loud = |b: &[f32]| Level::of(b).rms_db > self.options.silence_db;
        if !samples.chunks(320).any(loud) {
            return Ok(String::new());
        }
        loop {
            match self.once(samples, cancel).await {
                Err(e) if e.is_device_fault() => {
                    self.engine.step_down(&e).await?;
                    let files = std::sync::Arc::clone(&self.model.checkpoint);
                    self.model = self
                        .engine
                        .load_speech_checkpoint(files, &mut |_, _| ())
                        .await?;
                    self.state = SpeechState::new(&self.model.device, &self.model.model, 1)?;
                }
                done => return done,
            }
        }
    }

    async fn once(&mut self, samples: &[f32], cancel: &CancelToken) -> Result<String> {
        match &self.kind {
            Kind::Windows(front, words) => {
                let mut values = front.window_of(samples)?;
                let (mels, frames) = (front.mels(), front.frames());
                let hop = front.window() / frames.max(1);
                if let Some(after) = self.after {
                    let rest = (after * f64::from(front.rate())) as usize;
                    // A second at a time, so that a few recordings serve all lengths.
                    let second = (front.rate() as usize / hop.max(1)).max(2) / 2 * 2;
                    let short = ((samples.len() + rest) / hop.max(1))
                        .next_multiple_of(second)
                        .min(frames);
                    let rows = values.chunks_exact(frames).take(mels);
                    values = rows.flat_map(|row| row[..short].to_vec()).collect();
                }
                self.state.encode(&[Clip { values: &values }]).await?;
                let decoder = WindowDecoder {
                    model: &self.model,
                    words,
                    options: &self.options,
                    step: 0.02,
                };
                let language = match self.language {
                    Some(language) => Some(language),
                    None => decoder.language(&mut self.state).await?.map(|(id, _)| id),
                };
                let hot = match &self.options.hotwords {
                    Some(text) => {
                        let tokenizer = &self.model.text.tokenizer;
                        tokenizer.encode(&format!(" {}", text.trim()), false)?
                    }
                    None => Vec::new(),
                };
                let found = decoder
                    .decode(&mut self.state, &hot, language, cancel)
                    .await?;
                let o = &self.options;
                if found.no_speech > o.max_no_speech && found.logprob < o.min_logprob {
                    return Ok(String::new());
                }
                Ok(decoder.text(&found.tokens).trim().to_owned())
            }
            Kind::Samples { least } if samples.len() < *least => Ok(String::new()),
            Kind::Samples { .. } => {
                self.state.encode(&[Clip { values: samples }]).await?;
                let spec = self.state.spec();
                let (start, end, context) = (spec.start, spec.end, spec.decoder.context);
                let most = (samples.len() as f64 / 16_000.0 * TOKENS_PER_SECOND).ceil() as usize;
                let (mut ids, mut id) = (Vec::new(), start);
                for position in 0..most.min(context) {
                    if cancel.heard().await {
                        return Err(Error::Cancelled);
                    }
                    let token = Token {
                        clip: 0,
                        position: position as u32,
                        id,
                    };
                    let logits = self.state.step(&[token], &[0]).await?;
                    let best = logits.iter().enumerate();
                    let best = best.max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
                    id = best.map_or(end, |(i, _)| i as u32);
                    if id == end {
                        break;
                    }
                    ids.push(id);
                }
                Ok(self
                    .model
                    .text
                    .tokenizer
                    .decode(&ids, true)
                    .trim()
                    .to_owned())
            }
        }
    }
}
