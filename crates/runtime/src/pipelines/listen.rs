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
//! rest has, too; if somebody goes on speaking it was only one more text so far. What is held is one utterance of bounded length and a little before it, however long one listens.
//! Each piece of work is one utterance, so partial texts come as fast as the device allows and no faster: sound that arrives
//! meanwhile waits in the caller's queue, and is best pushed all at once.

use super::transcribe::{self, Recognizer};
use crate::clock;
use crate::engine::Engine;
use crate::source::CancelToken;
use crate::speech::LoadedSpeech;
use crate::{Error, Result};
use firelight_audio::Vad;
use std::time::Duration;

/// How one listens.
#[derive(Clone, Debug)]
pub struct Options {
    /// How an utterance is decoded; times of segments and words play no part.
    pub transcribe: transcribe::Options,
    /// A pause that ends an utterance, s.
    pub pause: f64,
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
            longest: 28.0,
            shortest: 0.2,
            partial: 1.0,
            before: 0.3,
            after: Some(1.0),
        }
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
    /// Samples of the utterance at half of the pause that it is in.
    cut: Option<usize>,
    /// The text of them, if it is made already.
    early: Option<Said>,
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
            (self.cut, self.early) = (None, None);
        }
        let o = &self.options;
        let (pause, partial) = (samples(o.pause), samples(o.partial));
        if self.quiet >= pause || self.held.len() >= samples(o.longest) {
            return self.end(cancel, on_event).await;
        }
        let long = self.loud >= samples(o.shortest);
        if self.cut.is_none() && self.quiet >= pause / 2 {
            self.cut = Some(self.held.len());
            // Where the rest of the pause is here already there is no time to gain.
            if long && self.quiet + waiting < pause {
                self.early = self.recognize(false, cancel).await?;
                self.shown = self.held.len();
                if let Some(said) = self.early.as_ref().filter(|s| !s.text.is_empty())
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
        (self.open, self.cut) = (false, None);
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
mod tests {
    use super::*;

    fn heard(model: &str, pieces: &[usize], loud: usize) -> Vec<Event> {
        heard_around(model, pieces, loud, 0..0)
    }

    /// Half a second of silence, so many loud samples but for those in the gap, a second of silence.
    fn heard_around(
        model: &str,
        pieces: &[usize],
        loud: usize,
        gap: std::ops::Range<usize>,
    ) -> Vec<Event> {
        let sound: Vec<f32> = (0..8000 + loud + 16_000)
            .map(
                |i| match (8000..8000 + loud).contains(&i) && !gap.contains(&i) {
                    true => ((i * i) % 251) as f32 / 251.0 - 0.5,
                    false => 0.0,
                },
            )
            .collect();
        let mut told = Vec::new();
        pollster::block_on(async {
            let (engine, model) = crate::speech::fixture(model);
            let mut listener =
                Listener::new(&engine, model, Options::default()).expect("a listener");
            let cancel = CancelToken::new();
            let mut tell = |e| told.push(e);
            let mut rest = &sound[..];
            for &n in pieces.iter().cycle() {
                let (now, later) = rest.split_at(n.min(rest.len()));
                let push = listener.push(now, &cancel, &mut tell);
                push.await.expect("heard");
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let end = listener.finish(&cancel, &mut tell);
            end.await.expect("heard");
        });
        told
    }

    fn finals(told: &[Event]) -> Vec<&Said> {
        let all = told.iter().filter_map(|e| match e {
            Event::Final(said) => Some(said),
            _ => None,
        });
        all.collect()
    }

    #[test]
    fn an_utterance_longer_than_the_window_is_cut() {
        // The tiny Whisper's window is 1 s.
        let told = heard("whisper", &[700], 24_000);
        let all = finals(&told);
        assert!(all.len() > 1, "{told:?}");
        assert!(all.iter().all(|s| s.end - s.start <= 1.0), "{told:?}");
    }

    #[test]
    fn sound_that_piled_up_gets_one_partial_text() {
        let partial = |e: &&Event| matches!(e, Event::Partial(_));
        let little = heard("moonshine", &[700, 1, 333], 64_000);
        let much = heard("moonshine", &[8000 + 60_000, 100_000], 64_000);
        assert!(little.iter().filter(partial).count() >= 3, "{little:?}");
        assert!(much.iter().filter(partial).count() <= 1, "{much:?}");
        let text = |told: &[Event]| finals(told)[0].text.clone();
        assert!(!text(&little).is_empty());
        assert_eq!(
            text(&little),
            text(&much),
            "what is final hangs on no pieces"
        );
    }

    #[test]
    fn the_final_text_is_there_before_the_pause_ends() {
        // A gap of 0.4 s is no end, but more than half of one.
        for gap in [0..0, 24_000..30_400] {
            let told = heard_around("moonshine", &[320], 64_000, gap);
            let [.., Event::Partial(before), Event::Final(last)] = &told[..] else {
                panic!("{told:?}");
            };
            assert_eq!(before, last, "made once");
            assert!(!last.text.is_empty() && last.work > Duration::ZERO);
            assert!((last.end - 4.5).abs() < 0.03, "{last:?}");
            assert_eq!(finals(&told).len(), 1);
        }
        let texts = |pieces: &[usize]| -> Vec<String> {
            let told = heard_around("whisper", pieces, 4000, 0..0);
            finals(&told).iter().map(|s| s.text.clone()).collect()
        };
        assert_eq!(texts(&[320]), texts(&[100_000]), "the same one made late");
    }
}
