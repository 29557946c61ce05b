//! The words of one utterance, with a model of either kind.

use super::language::{language, one_only};
use super::window::{Looks, WindowDecoder};
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

/// The same for Whisper, in the densest of its languages; beside some tokens for little sound.
const WINDOW_TOKENS_PER_SECOND: f64 = 16.0;

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
    /// `InvalidInput` for a language or a task that the model does not know, `Device` if memory runs out.
    pub fn new(engine: &Engine, model: LoadedSpeech, options: Options) -> Result<Self> {
        let (kind, language) = match model.model.spec().hears {
            Hears::Samples { least } => {
                one_only(&options)?;
                (Kind::Samples { least }, None)
            }
            Hears::Mel { .. } => {
                let words = Vocabulary::of(&model)?;
                let language = language(&words, &options)?.map(|(id, _)| id);
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
        let text = self.hear(samples, false, cancel).await?;
        Ok(text.unwrap_or_default())
    }

    /// As [`Recognizer::recognize`]; `quick`: `None` where the text looks wrong, instead of doing it again more thoroughly.
    pub(crate) async fn hear(
        &mut self,
        samples: &[f32],
        quick: bool,
        cancel: &CancelToken,
    ) -> Result<Option<String>> {
        let loud = |b: &[f32]| Level::of(b).rms_db > self.options.silence_db;
        if !samples.chunks(320).any(loud) {
            return Ok(Some(String::new()));
        }
        loop {
            match self.once(samples, quick, cancel).await {
                Err(e) => self.step_down(e).await?,
                done => return done,
            }
        }
    }

    async fn step_down(&mut self, fault: Error) -> Result<()> {
        let (model, state) = (&mut self.model, &mut self.state);
        self.engine.speech_below(fault, model, state).await
    }

    /// Does what the first utterance would have to wait for.
    pub(crate) async fn warm(&mut self) -> Result<()> {
        while self.after.is_some() && self.state.most_beside() > 0 {
            match self.state.hush().await {
                Err(e) => self.step_down(e).await?,
                Ok(()) => break,
            }
        }
        Ok(())
    }

    async fn once(
        &mut self,
        samples: &[f32],
        quick: bool,
        cancel: &CancelToken,
    ) -> Result<Option<String>> {
        match &self.kind {
            Kind::Windows(front, words) => {
                let values = front.window_of(samples)?;
                let (mels, frames) = (front.mels(), front.frames());
                let hop = front.window() / frames.max(1);
                // Half a second at a time, so that a few recordings serve all lengths; frames go in pairs.
                let grain = (front.rate() as usize / hop.max(1) / 2).min(frames / 4);
                let grain = grain.max(2) / 2 * 2;
                let rest = self.after.unwrap_or(0.0) * f64::from(front.rate());
                let part = (samples.len() + rest as usize) / hop.max(1);
                let part = part.next_multiple_of(grain);
                let beside = self.after.is_some() && part <= self.state.most_beside();
                let o = &self.options;
                let hot = match &o.hotwords {
                    Some(text) => {
                        let tokenizer = &self.model.text.tokenizer;
                        tokenizer.encode(&format!(" {}", text.trim()), false)?
                    }
                    None => Vec::new(),
                };
                let seconds = samples.len() as f64 / f64::from(front.rate());
                let decoder = WindowDecoder {
                    model: &self.model,
                    words,
                    options: o,
                    step: 0.02,
                    limit: 16 + (seconds * WINDOW_TOKENS_PER_SECOND) as usize,
                    hasty: false,
                };
                let mut found = None;
                if quick || beside {
                    match beside {
                        true => {
                            let rows = values.chunks_exact(frames).take(mels);
                            let short: Vec<f32> =
                                rows.flat_map(|row| row[..part].to_vec()).collect();
                            let clip = Clip { values: &short };
                            self.state.encode_beside(clip).await?;
                        }
                        false => self.state.encode(&[Clip { values: &values }]).await?,
                    }
                    let language = match self.language {
                        Some(language) => Some(language),
                        None => decoder.language(&mut self.state).await?.map(|(id, _)| id),
                    };
                    let state = &mut self.state;
                    let tried = decoder.try_once(state, &hot, language, cancel);
                    let (text, looks) = tried.await?;
                    found = match looks {
                        Looks::Looped if quick => return Ok(None),
                        Looks::Looped => None,
                        // The whole window would not make it surer.
                        Looks::Unsure if !quick => {
                            let drawn = decoder.improve(state, text, &hot, language, cancel);
                            Some(drawn.await?)
                        }
                        _ => Some(text),
                    };
                }
                // What goes wrong is heard again as the model was trained, and drawn if it still does.
                let found = match found {
                    Some(found) => found,
                    None => {
                        self.state.encode(&[Clip { values: &values }]).await?;
                        let language = match self.language {
                            Some(language) => Some(language),
                            None => decoder.language(&mut self.state).await?.map(|(id, _)| id),
                        };
                        let state = &mut self.state;
                        decoder.decode(state, &hot, language, cancel).await?
                    }
                };
                if !found.speech(o) {
                    return Ok(Some(String::new()));
                }
                Ok(Some(decoder.text(&found.tokens).trim().to_owned()))
            }
            Kind::Samples { least } if samples.len() < *least => Ok(Some(String::new())),
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
                let text = self.model.text.tokenizer.decode(&ids, true);
                Ok(Some(text.trim().to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speech::fixture;
    use pollster::block_on;

    fn recognizer(after: Option<f64>, max_compression: f32, min_logprob: f32) -> Recognizer {
        let (engine, model) = fixture("whisper");
        let options = Options {
            timestamps: false,
            temperatures: vec![0.0],
            max_compression,
            min_logprob,
            ..Options::default()
        };
        let mut recognizer = Recognizer::new(&engine, model, options).expect("a recogniser");
        recognizer.after = after;
        recognizer
    }

    /// What looks wrong in a part of the window is not told while one speaks, and heard in all of the window in the end.
    #[test]
    fn text_that_repeats_itself_is_heard_again() {
        let cancel = CancelToken::new();
        let sound: Vec<f32> = (0..3000).map(|i| (i as f32 * 0.31).sin() * 0.4).collect();
        // The text, and of how many states of the window's 50 it is.
        let told = |r: &mut Recognizer, quick| {
            let text = block_on(r.hear(&sound, quick, &cancel)).expect("heard");
            (text, r.state.states())
        };
        // Every text passes for good, or for one that repeats itself; the tiny model, which never ends by itself, ends at once.
        let (good, bad) = (1e9, -1.0);
        let brief = |after, max_compression, min_logprob| {
            let mut r = recognizer(after, max_compression, min_logprob);
            if let Kind::Windows(_, words) = &mut r.kind {
                words.suppressed = (0..words.end).collect();
            }
            r
        };
        let some = Some(0.02);
        let (text, states) = told(&mut brief(some, good, -1e9), false);
        assert!(text.is_some() && states < 50);
        assert_eq!(told(&mut brief(None, good, -1e9), false).1, 50);
        let mut repeats = brief(some, bad, -1e9);
        let (text, states) = told(&mut repeats, false);
        assert!(text.is_some() && states == 50);
        let (text, states) = told(&mut repeats, true);
        assert!(text.is_none() && states < 50, "no work for a partial text");
        // A text that the model is not sure of is no surer in the whole window: it is drawn where it was heard.
        let mut unsure = brief(some, good, 1.0);
        assert!(told(&mut unsure, true).0.is_some());
        let (text, states) = told(&mut unsure, false);
        assert!(text.is_some() && states < 50);
        // One that goes on to the most tokens that so little sound has.
        let mut endless = recognizer(some, good, -1e9);
        assert_eq!(told(&mut endless, true).0, None);
        let (text, states) = told(&mut endless, false);
        assert!(text.is_some_and(|t| !t.is_empty()) && states == 50);
    }
}
