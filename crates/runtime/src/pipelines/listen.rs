//! Speech to text while it is spoken.
//!
//! ```no_run
//! # async fn run(engine: &firelight_runtime::Engine, mut microphone: impl Iterator<Item = Vec<f32>>) -> firelight_runtime::Result<()> {
//! use firelight_runtime::CancelToken;
//! use firelight_runtime::pipelines::listen::{Event, Listener, Options};
//!
//! let model = engine.load_speech("whisper-tiny.en", &mut |_, _| ()).await?;
//! let mut listener = Listener::new(engine, model, Options::default())?;
//! let cancel = CancelToken::new();
//! while let Some(samples) = microphone.next() {
//!     // Mono, 16 kHz.
//!     let mut show = |event| if let Event::Final(said) = event { println!("{}", said.text) };
//!     listener.push(&samples, &cancel, &mut show).await?;
//! }
//! # Ok(()) }
//! ```
//!
//! A detector of speech opens an utterance and closes it after a pause. While it is open its text so far is told now and then; the
//! text after its end is final. It is made when half of the pause has gone by, of the sound until then, so that it is there when the
//! rest has, too; if somebody goes on speaking it was only one more text so far. Who knows from the text that nothing is missing
//! ([`Options::sooner`]) need not wait for all of the pause. What is held is one utterance of bounded length and a little before it, however long one listens.
//! Each piece of work is one utterance, so partial texts come as fast as the device allows and no faster: sound that arrives
//! meanwhile waits in the caller's queue, and is best pushed all at once.

use super::commands::Commands;
use super::transcribe::{self, Recognizer};
use crate::clock;
use crate::engine::Engine;
use crate::source::CancelToken;
use crate::speech::LoadedSpeech;
use crate::{Error, Result};
use firelight_audio::Vad;
use std::sync::Arc;
use std::time::Duration;

/// How one listens.
#[derive(Clone, Debug)]
pub struct Options {
    /// How an utterance is decoded; times of segments and words play no part.
    pub transcribe: transcribe::Options,
    /// A pause that ends an utterance, s.
    pub pause: f64,
    /// What ends an utterance after a shorter pause.
    pub sooner: Option<Sooner>,
    /// The longest utterance, s; a longer one is cut.
    pub longest: f64,
    /// The shortest sound that is an utterance, s.
    pub shortest: f64,
    /// New sound after which a partial text is made, s; 0: none are.
    pub partial: f64,
    /// Sound before an utterance that belongs to it, s.
    pub before: f64,
    /// Models of a fixed window hear an utterance with only so much silence after it, s, and remember what silence is in the rest of the
    /// window ([`crate::speech::Silence`]): faster, and nearly the same. What looks wrong then is heard once more in all of the window.
    /// `None`: the whole window at once.
    pub after: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            transcribe: transcribe::Options {
                timestamps: false,
                condition: false,
                temperatures: vec![0.0, 0.4],
                best_of: 1,
                ..transcribe::Options::default()
            },
            pause: 0.5,
            sooner: None,
            longest: 28.0,
            shortest: 0.2,
            partial: 1.0,
            before: 0.3,
            after: Some(1.0),
        }
    }
}

/// An utterance ends after a shorter pause if its text is a whole one. It is made after half of the shorter pause and, if it was none then,
/// again after half of the longer one.
#[derive(Clone)]
pub struct Sooner {
    /// The shorter pause, s. Within words there are pauses of up to 0.15 s.
    pub pause: f64,
    /// True of a whole text.
    pub whole: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Sooner {
    /// After a phrase that no more words would change: [`Commands::settled`].
    pub fn commands(pause: f64, commands: Arc<Commands>) -> Self {
        let whole = Arc::new(move |text: &str| commands.settled(text));
        Sooner { pause, whole }
    }

    /// After what ends in a full stop, a question mark or an exclamation mark, and not in dots.
    pub fn sentences(pause: f64) -> Self {
        let whole = Arc::new(|text: &str| {
            let text = text.trim_end_matches(['"', '\'', '”', '»', ')']);
            text.ends_with(['.', '?', '!', '。', '？', '！', '।']) && !text.ends_with("..")
        });
        Sooner { pause, whole }
    }
}

impl std::fmt::Debug for Sooner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sooner({} s)", self.pause)
    }
}

/// What was said.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Said {
    /// The text.
    pub text: String,
    /// Where it begins, s since the first sample.
    pub start: f64,
    /// Where it ends, s.
    pub end: f64,
    /// What the text took to make. For a final one all or a part of it falls into the pause that ends the utterance.
    pub work: Duration,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody begins to speak, at this second.
    Start(f64),
    /// What has been said so far.
    Partial(Said),
    /// What was said; nothing, if it was no speech.
    Final(Said),
}

/// See the module's head.
pub struct Listener {
    recognizer: Recognizer,
    options: Options,
    vad: Vad,
    /// Samples of less than a frame.
    rest: Vec<f32>,
    /// The utterance, or the last samples before one.
    held: Vec<f32>,
    open: bool,
    /// Loud samples of the utterance.
    loud: usize,
    /// Samples since the last loud frame.
    quiet: usize,
    /// Samples of the utterance at half of the pause that it is in, the shorter or the longer one.
    cut: Option<usize>,
    /// The text of them, if it is made already.
    early: Option<Said>,
    /// It is a whole one.
    whole: bool,
    /// Samples of the utterance that the last partial text had.
    shown: usize,
    /// Samples judged.
    seen: usize,
}

impl Listener {
    /// A listener with a loaded model.
    ///
    /// # Errors
    /// As [`transcribe::Transcriber::new`]; `InvalidInput` for times out of range.
    pub fn new(engine: &Engine, model: LoadedSpeech, options: Options) -> Result<Self> {
        let all = [
            options.pause,
            options.longest,
            options.shortest,
            options.partial,
            options.before,
            options.after.unwrap_or(0.0),
            options.sooner.as_ref().map_or(0.0, |s| s.pause),
        ];
        let longest = 0.5..=30.0;
        if all.iter().any(|t| !(0.0..=3600.0).contains(t)) || !longest.contains(&options.longest) {
            return Err(Error::invalid(
                "times are seconds from 0 on, the longest utterance 0.5 to 30",
            ));
        }
        let mut recognizer = Recognizer::new(engine, model, options.transcribe.clone())?;
        recognizer.after = options.after;
        let vad = options.transcribe.detector(RATE);
        let mut options = options;
        // An utterance ends with a frame, and has to fit into the model's window.
        let window = recognizer.longest().saturating_sub(vad.frame());
        options.longest = options.longest.min(seconds(window));
        Ok(Listener {
            vad,
            recognizer,
            options,
            rest: Vec::new(),
            held: Vec::new(),
            open: false,
            loud: 0,
            quiet: 0,
            cut: None,
            early: None,
            whole: false,
            shown: 0,
            seen: 0,
        })
    }

    /// The sample rate that samples must have, Hz.
    pub fn rate(&self) -> u32 {
        RATE
    }

    /// Samples held now.
    pub fn held(&self) -> usize {
        self.held.len() + self.rest.len()
    }

    /// Takes samples, of any number at a time.
    ///
    /// # Errors
    /// `InvalidInput` if a sample is no number, `Cancelled`, `BadLogits`, `Device` if there is no rung left.
    pub async fn push(
        &mut self,
        samples: &[f32],
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<()> {
        if let Some(at) = samples.iter().position(|v| !v.is_finite()) {
            return Err(Error::invalid(format!("sample {at} is {}", samples[at])));
        }
        if self.seen == 0 {
            self.recognizer.warm().await?;
        }
        let n = self.vad.frame();
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(samples);
        let mut frames = rest.chunks_exact(n);
        while let Some(frame) = frames.next() {
            let waiting = frames.len() * n;
            self.frame(frame, waiting, cancel, on_event).await?;
        }
        self.rest = frames.remainder().to_vec();
        Ok(())
    }

    /// Ends the utterance under way, if there is one.
    ///
    /// # Errors
    /// As [`Listener::push`].
    pub async fn finish(
        &mut self,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<()> {
        if self.open {
            let rest = std::mem::take(&mut self.rest);
            self.seen += rest.len();
            self.held.extend(rest);
            self.end(cancel, on_event).await?;
        }
        Ok(())
    }

    async fn frame(
        &mut self,
        frame: &[f32],
        waiting: usize,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let loud = self.vad.speech(frame);
        self.held.extend_from_slice(frame);
        self.seen += frame.len();
        self.quiet = if loud { 0 } else { self.quiet + frame.len() };
        if !self.open {
            if !loud {
                let extra = self.held.len().saturating_sub(samples(self.options.before));
                self.held.drain(..extra);
                return Ok(());
            }
            self.open = true;
            (self.loud, self.shown) = (0, 0);
            on_event(Event::Start(self.start()));
        }
        if loud {
            self.loud += frame.len();
            (self.cut, self.early, self.whole) = (None, None, false);
        }
        let o = &self.options;
        let (pause, partial) = (samples(o.pause), samples(o.partial));
        let sooner = o.sooner.as_ref().map_or(pause, |s| samples(s.pause));
        let enough = if self.whole { sooner.min(pause) } else { pause };
        if self.quiet >= enough || self.held.len() >= samples(o.longest) {
            return self.end(cancel, on_event).await;
        }
        let long = self.loud >= samples(o.shortest);
        // Samples of this pause that the last text of it had.
        let had = self.cut.map(|cut| cut + self.quiet - self.held.len());
        let after = |half: usize| self.quiet >= half && had.is_none_or(|had| had < half);
        if after(pause / 2) || after(sooner / 2) {
            self.cut = Some(self.held.len());
            // Where the rest of the pause is here already there is no time to gain, unless it need not go by.
            if long && (sooner < pause || self.quiet + waiting < pause) {
                self.early = self.recognize(false, cancel).await?;
                self.shown = self.held.len();
                let said = self.early.as_ref().filter(|s| !s.text.is_empty());
                let whole = |said: &Said| {
                    let sooner = self.options.sooner.as_ref();
                    sooner.is_some_and(|s| (s.whole)(&said.text))
                };
                self.whole = said.is_some_and(whole);
                if self.whole && self.quiet >= sooner {
                    return self.end(cancel, on_event).await;
                }
                if let Some(said) = said
                    && partial > 0
                {
                    on_event(Event::Partial(said.clone()));
                }
            }
        }
        let due = partial > 0 && self.held.len() - self.shown >= partial;
        // Where sound has piled up, only its end is told: a slow device catches up.
        let due = due && waiting < partial;
        // In a pause the end is near: no work is begun that would delay it.
        if due && loud && long {
            self.shown = self.held.len();
            // One that looks wrong is not told, and not worth more work.
            if let Some(said) = self.recognize(true, cancel).await?
                && !said.text.is_empty()
            {
                on_event(Event::Partial(said));
            }
        }
        Ok(())
    }

    async fn end(&mut self, cancel: &CancelToken, on_event: &mut dyn FnMut(Event)) -> Result<()> {
        let said = match self.early.take() {
            Some(said) => Some(said),
            None if self.loud >= samples(self.options.shortest) => {
                self.recognize(false, cancel).await?
            }
            None => None,
        };
        let said = said.unwrap_or_else(|| Said {
            text: String::new(),
            start: self.start(),
            end: seconds(self.seen),
            work: Duration::ZERO,
        });
        (self.open, self.cut, self.whole) = (false, None, false);
        // What the pause was is before the next utterance.
        let extra = self.held.len().saturating_sub(samples(self.options.before));
        self.held.drain(..extra);
        on_event(Event::Final(said));
        Ok(())
    }

    fn start(&self) -> f64 {
        seconds(self.seen - self.held.len())
    }

    async fn recognize(&mut self, quick: bool, cancel: &CancelToken) -> Result<Option<Said>> {
        let begun = clock::now();
        // One text for an utterance, whenever it is made.
        let heard = &self.held[..self.cut.unwrap_or(self.held.len())];
        let text = self.recognizer.hear(heard, quick, cancel).await?;
        Ok(text.map(|text| Said {
            text,
            start: self.start(),
            end: seconds(self.seen - self.quiet.min(self.held.len())),
            work: begun.elapsed(),
        }))
    }
}

/// What every speech model here hears, Hz.
const RATE: u32 = 16_000;

fn samples(seconds: f64) -> usize {
    (seconds * f64::from(RATE)) as usize
}

fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(RATE)
}

#[cfg(test)]
mod tests;
