//! Speech to text, of any length.
//!
//! ```no_run
//! # async fn run(engine: &firelight_runtime::Engine, samples: &[f32]) -> firelight_runtime::Result<()> {
//! use firelight_runtime::pipelines::transcribe::{Options, Transcriber};
//! use firelight_runtime::CancelToken;
//!
//! let model = engine.load_speech("whisper-base", &mut |_, _| ()).await?;
//! let mut transcriber = Transcriber::new(engine, model, Options::default())?;
//! // Mono, 16 kHz; `push` as they come, or all at once.
//! let transcript = transcriber.transcribe(samples, &CancelToken::new(), &mut |_| ()).await?;
//! println!("{}", transcript.text());
//! # Ok(()) }
//! ```
//!
//! A window of 30 s is decoded; where its last whole segment ends by the model's own timestamps the next window begins, so that no
//! word is cut in two and none is heard twice. A window that the model takes for silence is left out, one whose text repeats itself
//! or is improbable is decoded again with a higher temperature. Where [`Options::vad`] leaves out a long pause, a window ends. Only a window's samples are held, however long the file is.
//! With [`Options::batch`] windows are cut at pauses instead, and several are decoded together.
//!
//! Whisper's rules are those of OpenAI's `transcribe.py` and `decoding.py`, with five differences: the front end's floor is that of the
//! window, as in training, and not that of the whole file; after the end of the sound there is silence, as in training, where
//! OpenAI's program has features of zero ([`Padding`]); where the model ends its text before the window's speech ends, the next window
//! begins there, and what is left is not lost; a text that goes wrong where what was said before is shown, or says it again, is first
//! made without that; and a very improbable text, or one of marks alone, is left out where the model
//! half believes in silence, so that tones become no words. Samples without any sound ([`Options::silence_db`]) are never decoded.

mod batch;
mod format;
mod gate;
mod language;
mod recognize;
mod segments;
mod tokens;
mod types;
mod unheard;
mod window;
mod words;

pub use format::{Format, write};
pub use recognize::Recognizer;
pub use tokens::Vocabulary;
pub use types::{Event, Options, Padding, Segment, Task, Transcript, Word};

use crate::engine::Engine;
use crate::source::CancelToken;
use crate::speech::{Clip, Hears, LoadedSpeech, SpeechState};
use crate::{Error, Result};
use firelight_audio::{Level, Whisper};
use gate::Gate;
use language::language;
use std::ops::Range;
use window::{Decoded, WindowDecoder};

/// See the module's head.
pub struct Transcriber {
    engine: Engine,
    model: LoadedSpeech,
    state: SpeechState,
    front: Whisper,
    words: Vocabulary,
    options: Options,
    run: Run,
}

/// One file under way.
#[derive(Default)]
struct Run {
    /// Samples from `first` on.
    buffer: Vec<f32>,
    /// Where in the file the buffer begins, in samples.
    first: usize,
    /// What lets speech through; `None`: everything goes through.
    gate: Option<Gate>,
    language: Option<(u32, String)>,
    /// Tokens of what was said so far, times among them, that the model is shown.
    previous: Vec<u32>,
    /// Where the last word ended, s.
    spoken: f64,
    transcript: Transcript,
}

impl Transcriber {
    /// A transcriber with a loaded model.
    ///
    /// # Errors
    /// `InvalidInput` for options that the model cannot follow, `Unsupported` for one that is no Whisper, `Device` if memory runs out.
    pub fn new(engine: &Engine, model: LoadedSpeech, options: Options) -> Result<Self> {
        if let Hears::Samples { .. } = model.model.spec().hears {
            return Err(Error::Unsupported(
                "long transcripts with this model; it has no timestamps: use it live (`listen`)"
                    .into(),
            ));
        }
        let words = Vocabulary::of(&model)?;
        language(&words, &options)?;
        if options.temperatures.is_empty() {
            return Err(Error::invalid("a list of temperatures has at least one"));
        }
        if options.best_of > MOST_TEXTS {
            return Err(Error::Limit {
                what: "texts drawn at a temperature",
                max: MOST_TEXTS as u64,
                got: options.best_of as u64,
            });
        }
        if options.batch > MOST_WINDOWS {
            return Err(Error::Limit {
                what: "windows decoded together",
                max: MOST_WINDOWS as u64,
                got: options.batch as u64,
            });
        }
        let mut this = Transcriber {
            engine: engine.clone(),
            state: SpeechState::new(&model.device, &model.model, 1)?,
            front: model.front_end()?,
            words,
            model,
            options,
            run: Run::default(),
        };
        this.reset()?;
        Ok(this)
    }

    /// The model, where it is now.
    pub fn model(&self) -> &LoadedSpeech {
        &self.model
    }

    /// The sample rate that samples must have, Hz.
    pub fn rate(&self) -> u32 {
        self.front.rate()
    }

    /// Forgets the file under way.
    ///
    /// # Errors
    /// `Text` if the prompt cannot be encoded.
    pub fn reset(&mut self) -> Result<()> {
        let tokenizer = &self.model.text.tokenizer;
        let previous = match &self.options.prompt {
            Some(text) => tokenizer.encode(&format!(" {}", text.trim()), false)?,
            None => Vec::new(),
        };
        self.run = Run {
            gate: self
                .options
                .vad
                .then(|| Gate::new(self.front.rate(), self.options.detector(self.front.rate()))),
            language: language(&self.words, &self.options)?,
            previous,
            ..Run::default()
        };
        Ok(())
    }

    /// Transcribes one recording: mono samples at [`Transcriber::rate`].
    ///
    /// # Errors
    /// As [`Transcriber::push`].
    pub async fn transcribe(
        &mut self,
        samples: &[f32],
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Transcript> {
        self.reset()?;
        // Piece by piece: the buffer stays small.
        for piece in samples.chunks(self.front.window().max(1)) {
            self.push(piece, cancel, on_event).await?;
        }
        self.finish(cancel, on_event).await
    }

    /// Takes samples; windows that they complete are decoded now.
    ///
    /// # Errors
    /// `Audio` if a sample is no number, `Cancelled`, `BadLogits`, `Device` if there is no rung left.
    pub async fn push(
        &mut self,
        samples: &[f32],
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<()> {
        if let Some(at) = samples.iter().position(|v| !v.is_finite()) {
            return Err(Error::invalid(format!("sample {at} is {}", samples[at])));
        }
        let Run { gate, buffer, .. } = &mut self.run;
        match gate {
            Some(gate) => gate.push(samples, buffer),
            None => buffer.extend_from_slice(samples),
        }
        while self.options.batch == 0
            && (self.run.buffer.len() >= self.front.window() || self.pause(0).is_some())
        {
            self.window(cancel, on_event).await?;
        }
        while self.options.batch > 0 && self.run.buffer.len() > self.room() {
            self.windows(false, cancel, on_event).await?;
        }
        Ok(())
    }

    /// Decodes what is left and gives the transcript.
    ///
    /// # Errors
    /// As [`Transcriber::push`].
    pub async fn finish(
        &mut self,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Transcript> {
        // Less than a frame more than once is no sound.
        while self.run.buffer.len() >= MIN_SAMPLES {
            match self.options.batch {
                0 => self.window(cancel, on_event).await?,
                _ => self.windows(true, cancel, on_event).await?,
            }
        }
        let total = self.place(self.run.first + self.run.buffer.len(), true);
        let mut transcript = std::mem::take(&mut self.run.transcript);
        transcript.duration = match &self.run.gate {
            Some(gate) => gate.taken() as f64 / f64::from(self.rate()),
            None => total,
        };
        transcript.language = self.run.language.take().map(|(_, code)| code);
        if self.words.languages.is_empty() && !transcript.segments.is_empty() {
            transcript.language = Some("en".to_owned());
        }
        self.reset()?;
        Ok(transcript)
    }

    /// Decodes one window from the buffer's beginning on, and drops what is done of it.
    async fn window(
        &mut self,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let length = self.run.buffer.len().min(self.front.window());
        let length = self.pause(0).map_or(length, |pause| pause.min(length));
        let done = if self.loud(&self.run.buffer[..length]) {
            loop {
                match self.decode(0..length, cancel, on_event).await {
                    Ok(done) => break done,
                    Err(e) => self.step_down(e, on_event).await?,
                }
            }
        } else {
            length
        };
        // Whatever the model says, time goes on.
        let done = done.clamp(self.block().min(length), length);
        self.run.buffer.drain(..done);
        self.run.first += done;
        on_event(Event::Progress(self.place(self.run.first, true)));
        Ok(())
    }

    /// Samples from `at` of the buffer on to where a long pause was left out.
    fn pause(&self, at: usize) -> Option<usize> {
        let at = self.run.first + at;
        let pause = self.run.gate.as_ref()?.pause_after(at)?;
        Some(pause - at)
    }

    /// Samples of 20 ms.
    fn block(&self) -> usize {
        (self.rate() / 50).max(1) as usize
    }

    /// Whether there is any sound.
    fn loud(&self, samples: &[f32]) -> bool {
        let loud = |b: &[f32]| Level::of(b).rms_db > self.options.silence_db;
        samples.chunks(self.block()).any(loud)
    }

    /// Goes on with the next rung, if it was the device that failed.
    async fn step_down(&mut self, fault: Error, on_event: &mut dyn FnMut(Event)) -> Result<()> {
        let (model, state) = (&mut self.model, &mut self.state);
        self.engine.speech_below(fault, model, state).await?;
        on_event(Event::Moved(self.engine.report().device));
        Ok(())
    }

    /// Where in the file, in seconds, sample `at` of what went through the gate is; `end`: as the end of something.
    fn place(&self, at: usize, end: bool) -> f64 {
        let gate = self.run.gate.as_ref();
        gate.map_or(at, |gate| gate.place(at, end)) as f64 / f64::from(self.rate())
    }

    /// The language of the window that is encoded, if it is not known yet.
    async fn find_language(&mut self, on_event: &mut dyn FnMut(Event)) -> Result<()> {
        if self.run.language.is_some() {
            return Ok(());
        }
        let decoder = decoder(&self.model, &self.words, &self.options, &self.front);
        if let Some((id, probability)) = decoder.language(&mut self.state).await? {
            let listed = self.words.languages.iter().find(|(_, l)| *l == id);
            let code = listed.map_or_else(String::new, |(code, _)| code.clone());
            self.run.transcript.language_probability = Some(probability);
            self.run.language = Some((id, code.clone()));
            on_event(Event::Language(code, probability));
        }
        Ok(())
    }

    /// The features of some samples of the buffer, with silence after them.
    fn features(&self, samples: Range<usize>) -> Result<Vec<f32>> {
        Ok(self.front.window_of(&self.run.buffer[samples])?)
    }

    /// Whether the end of a window of `length` samples is to be zeros; if so, its features are made so.
    fn zeros(&self, values: &mut [f32], length: usize) -> bool {
        let frames = self.front.frames().max(1);
        let sound = (length / (self.front.window() / frames).max(1)).min(frames);
        let zeros = self.options.padding == Padding::Zeros && sound < frames;
        if zeros {
            for row in values.chunks_exact_mut(frames) {
                row[sound..].fill(0.0);
            }
        }
        zeros
    }

    /// Whether the language is still to be heard.
    fn foreign(&self) -> bool {
        self.run.language.is_none() && !self.words.languages.is_empty()
    }

    /// The tokens of the words to be expected.
    fn hotwords(&self) -> Result<Vec<u32>> {
        self.options
            .hotwords
            .as_ref()
            .map_or(Ok(Vec::new()), |text| {
                let tokenizer = &self.model.text.tokenizer;
                Ok(tokenizer.encode(&format!(" {}", text.trim()), false)?)
            })
    }

    /// Decodes a window of the buffer; how many of its samples are done.
    async fn decode(
        &mut self,
        window: Range<usize>,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<usize> {
        let (first, length) = (self.run.first + window.start, window.len());
        let mut values = self.features(window)?;
        let mut closed = values.clone();
        let zeros = self.zeros(&mut closed, length);
        // OpenAI's program hears the language with silence after it.
        if !zeros || self.foreign() {
            self.state.encode(&[Clip { values: &values }]).await?;
            self.find_language(on_event).await?;
        }
        if zeros {
            values = closed;
            self.state.encode(&[Clip { values: &values }]).await?;
        }
        let hot = self.hotwords()?;
        let shown = [&hot[..], &self.run.previous].concat();
        let language = self.run.language.as_ref().map(|(id, _)| *id);
        let decoder = decoder(&self.model, &self.words, &self.options, &self.front);
        let state = &mut self.state;
        let said = !self.run.previous.is_empty() && self.options.padding != Padding::Zeros;
        let decoded = match said {
            true => {
                decoder
                    .freely(state, &hot, &shown, language, cancel)
                    .await?
            }
            false => (decoder.decode(state, &shown, language, cancel).await?, true),
        };
        let (decoded, helped) = decoded;
        if !helped {
            self.run.previous.clear();
        }
        self.keep(decoded, first, length, 0, on_event).await
    }

    /// Puts what a window of `length` samples from sample `first` on was decoded to into the transcript; how many samples are done.
    /// `clip`: which of the encoded ones it is.
    async fn keep(
        &mut self,
        decoded: Decoded,
        first: usize,
        length: usize,
        clip: usize,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<usize> {
        if !decoded.speech(&self.options) {
            return Ok(length);
        }
        let decoder = decoder(&self.model, &self.words, &self.options, &self.front);
        let rate = f64::from(self.front.rate());
        let per_step = self.front.window() / self.state.states().max(1);
        let alone = self.options.batch > 0;
        let (mut pieces, mut done) =
            segments::cut(&self.words, &decoded.tokens, length, per_step, alone);
        let language = self.run.language.as_ref();
        let mut heard = words::Heard {
            clip,
            language: language.map(|(id, _)| *id),
            code: language.map_or("en", |(_, code)| code),
            length: (length, per_step),
            probabilities: &decoded.probabilities,
            offset: 0.0,
            before: self.run.spoken,
        };
        let mut unheard = None;
        if let Some(last) = pieces.last_mut().filter(|_| done == length) {
            let mut end = last.end;
            if decoded.open && self.unheard(first, length, last.start).is_some() {
                let found = words::end(&decoder, &mut self.state, &heard, &decoded.tokens);
                end = found.await?.clamp(last.start, end);
            }
            unheard = self.unheard(first, length, end);
            if let Some(on) = unheard {
                (last.end, done) = (end, on);
            }
        }
        let offset = first as f64 / rate;
        let mut segments: Vec<Segment> = Vec::new();
        for piece in pieces {
            segments.push(Segment {
                start: offset + piece.start as f64 / rate,
                end: offset + piece.end as f64 / rate,
                text: decoder.text(&piece.tokens).trim().to_owned(),
                tokens: piece.tokens,
                temperature: decoded.temperature,
                logprob: decoded.logprob,
                no_speech: decoded.no_speech,
                compression: decoded.compression,
                words: Vec::new(),
            });
        }
        if self.options.word_timestamps {
            heard.offset = offset;
            let last = words::add(&decoder, &mut self.state, heard, &mut segments).await?;
            self.run.spoken = last.unwrap_or(self.run.spoken);
            // The next window begins after the last word, not after the silence that the model may have put behind it.
            if let (Some(last), true) = (last, done < length) {
                let end = ((last - offset) * rate) as usize;
                if end > 0 {
                    let least = unheard.unwrap_or(0);
                    done = end.max(least).min(length);
                }
            }
        }
        segments.retain(|s| !s.text.is_empty() && s.end > s.start);
        if !alone {
            self.remember(&segments, decoded.temperature);
        }
        if self.run.gate.is_some() {
            let at = |seconds: f64| (seconds * rate).round() as usize;
            for s in &mut segments {
                (s.start, s.end) = (self.place(at(s.start), false), self.place(at(s.end), true));
                for w in &mut s.words {
                    (w.start, w.end) =
                        (self.place(at(w.start), false), self.place(at(w.end), true));
                }
            }
        }
        for segment in segments {
            on_event(Event::Segment(segment.clone()));
            self.run.transcript.segments.push(segment);
        }
        Ok(done)
    }

    /// Keeps what the next window is shown.
    fn remember(&mut self, segments: &[Segment], temperature: f32) {
        if self.options.condition && temperature <= 0.5 {
            // With their times: a model that is shown a text without them goes on without them.
            let said = segments.iter().flat_map(|s| &s.tokens);
            self.run.previous.extend(said);
        } else {
            self.run.previous.clear();
        }
        let keep = self.state.spec().decoder.context / 2;
        let extra = self.run.previous.len().saturating_sub(keep);
        self.run.previous.drain(..extra);
    }
}

/// The decoder of whole windows.
fn decoder<'a>(
    model: &'a LoadedSpeech,
    words: &'a Vocabulary,
    options: &'a Options,
    front: &Whisper,
) -> WindowDecoder<'a> {
    let states = model.model.states(front.frames()).max(1);
    WindowDecoder {
        model,
        words,
        options,
        step: front.window() as f32 / front.rate() as f32 / states as f32,
        limit: usize::MAX,
        hasty: false,
    }
}

/// The shortest rest of a file that is decoded: 10 ms, a frame.
const MIN_SAMPLES: usize = 160;

/// The most windows decoded at once: each has its own states and cache.
const MOST_WINDOWS: usize = 64;

/// The most texts drawn at once: each has its own cache.
const MOST_TEXTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_shown_with_its_times() {
        let (engine, model) = crate::speech::fixture("whisper");
        let made = Transcriber::new(&engine, model, Options::default());
        let mut transcriber = made.expect("a transcriber");
        let time = transcriber.words.timestamps;
        let said = |tokens: &[u32]| Segment {
            start: 0.0,
            end: 1.0,
            text: "said".into(),
            tokens: tokens.to_vec(),
            temperature: 0.0,
            logprob: 0.0,
            no_speech: 0.0,
            compression: 1.0,
            words: Vec::new(),
        };
        let mut shown = |segments: &[Segment], temperature| {
            transcriber.remember(segments, temperature);
            transcriber.run.previous.clone()
        };
        let first = [
            said(&[time, 5, 6, time + 9]),
            said(&[time + 9, 7, time + 20]),
        ];
        let all = [time, 5, 6, time + 9, time + 9, 7, time + 20];
        assert_eq!(shown(&first, 0.4), all);
        assert_eq!(shown(&[said(&[8])], 0.0), [&all[..], &[8]].concat());
        // Half of the context of 64.
        assert_eq!(shown(&[said(&[9; 40])], 0.0), [9; 32]);
        assert_eq!(shown(&[said(&[1])], 0.6), [0; 0], "guessed text is no text");
    }
}
