//! How a transcript is made, and what it is.

use firelight_audio::{EnergyVad, SileroVad, Vad};
use serde::Serialize;

/// What is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// What is said, in its language.
    #[default]
    Transcribe,
    /// It in English.
    Translate,
}

/// What comes after the last sample of a window that is not full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Silence, as in training and in transformers.
    #[default]
    Silence,
    /// Features that are zero, as in OpenAI's `transcribe.py`; as there, speech after a window's last text is passed over, and what was
    /// said before is shown whatever comes of it.
    Zeros,
}

/// How a transcript is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is written down.
    pub task: Task,
    /// Code of the language (`en`, `de`, …); `None`: the model decides by the first window.
    pub language: Option<String>,
    /// Times of segments. Without them every window is a segment.
    pub timestamps: bool,
    /// Times of words.
    pub word_timestamps: bool,
    /// Temperatures tried, in order.
    pub temperatures: Vec<f32>,
    /// Texts drawn at a temperature above 0, of which the likeliest is taken.
    pub best_of: usize,
    /// Text whose bytes are more than this many times those of it compressed repeats itself: the next temperature is tried.
    pub max_compression: f32,
    /// Mean log-probability of a token below which the next temperature is tried.
    pub min_logprob: f32,
    /// Probability of silence above which an improbable window is left out.
    pub max_no_speech: f32,
    /// The first segment of a window begins at most so many seconds after it.
    pub max_first_time: f32,
    /// What was said before is shown to the model.
    pub condition: bool,
    /// Above 0, the file is cut at pauses into windows that know nothing of each other ([`Options::condition`] plays no part, the prompt
    /// comes before each), and so many of them are decoded together; at 0 a window begins where the one before it found its last
    /// whole segment.
    pub batch: usize,
    /// Text that comes before the first window: names, spelling, style.
    pub prompt: Option<String>,
    /// Words to be expected in every window.
    pub hotwords: Option<String>,
    /// What is no speech is left out before the model hears it.
    pub vad: bool,
    /// What tells speech from other sound, here and in [`crate::pipelines::listen`]; `None`: loudness alone.
    pub detector: Option<SileroVad>,
    /// A window is silent if it is nowhere louder than this, RMS of 20 ms in dB below full scale.
    pub silence_db: f32,
    /// What comes after the end.
    pub padding: Padding,
    /// Of what is drawn at a temperature.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            task: Task::Transcribe,
            language: None,
            timestamps: true,
            word_timestamps: false,
            temperatures: vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            best_of: 5,
            max_compression: 2.4,
            min_logprob: -1.0,
            max_no_speech: 0.6,
            max_first_time: 1.0,
            condition: true,
            batch: 0,
            prompt: None,
            hotwords: None,
            vad: false,
            detector: None,
            silence_db: -60.0,
            padding: Padding::Silence,
            seed: 0,
        }
    }
}

impl Options {
    /// The detector of speech for samples at `rate` Hz.
    pub(in crate::pipelines) fn detector(&self, rate: u32) -> Vad {
        match &self.detector {
            Some(model) => Vad::Silero(model.clone()),
            None => Vad::Energy(EnergyVad::new(rate)),
        }
    }
}

/// A word and when it was said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Word {
    /// The word, with the space before it and the punctuation around it.
    pub text: String,
    /// Where it begins, s.
    pub start: f64,
    /// Where it ends, s.
    pub end: f64,
    /// How probable the model found it, 0…1.
    pub probability: f32,
}

/// A piece of a transcript.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Segment {
    /// Where it begins, s.
    pub start: f64,
    /// Where it ends, s.
    pub end: f64,
    /// What was said, without space around it.
    pub text: String,
    /// The tokens, timestamps included.
    pub tokens: Vec<u32>,
    /// The temperature it was decoded with.
    pub temperature: f32,
    /// Mean log-probability of a token of its window.
    pub logprob: f32,
    /// Probability that nobody spoke in its window.
    pub no_speech: f32,
    /// How often its window's text repeats itself; see [`Options::max_compression`].
    pub compression: f32,
    /// Its words, if they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
}

/// A whole transcript.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Transcript {
    /// Code of the language; `None`: the model knows one only, or nothing was said.
    pub language: Option<String>,
    /// How likely the model found that language, if it was asked.
    pub language_probability: Option<f32>,
    /// Length of the sound, s.
    pub duration: f64,
    /// The pieces in order.
    pub segments: Vec<Segment>,
}

impl Transcript {
    /// All of the text.
    pub fn text(&self) -> String {
        let pieces: Vec<&str> = self.segments.iter().map(|s| s.text.as_str()).collect();
        pieces.join(" ")
    }
}

/// What happens while a transcript is made.
#[derive(Clone, Debug)]
pub enum Event {
    /// The language was recognised.
    Language(String, f32),
    /// One more segment is final.
    Segment(Segment),
    /// So many seconds are done.
    Progress(f64),
    /// The device failed and the work goes on further down the ladder.
    Moved(String),
}
