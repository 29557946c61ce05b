//! Whisper's front end: 16 kHz mono samples to log-mel features, whole or as they come.
//!
//! ```text
//! P     = power spectrogram of the clip padded with zeros to the window (30 s), n_fft 400, hop 160, last frame dropped
//! L     = log₁₀(max(mel · P, 10⁻¹⁰))
//! out   = (max(L, max over all of L − 8) + 4) / 4
//! ```
//! The floor hangs on the loudest value of the **whole** window, so a stream cannot know a feature for good before the
//! window is over: a louder sound to come lifts the floor under what has been. What a stream can do is to keep L, which
//! does not change, and apply the floor when asked: [`WhisperStream::features`] gives at every moment what
//! [`Whisper::features`] gives for the samples so far, to the bit.
//!
//! Source: `feature_extraction_whisper.py` of transformers 5 (torch path); OpenAI's `audio.py` computes the same.

use crate::lanes::{LANES, Log, logs};
use crate::stft::{check_finite, first_bad, refused};
use crate::threads::{lock, share};
use crate::{Error, MelFilters, Result, Stft};
use firelight_tensor::Tensor;
use serde_json::Value;
use std::ops::Range;
use std::sync::Mutex;

/// The front end of one Whisper model.
#[derive(Clone, Debug)]
pub struct Whisper {
    stft: Stft,
    filters: MelFilters,
    rate: u32,
    /// Samples of the window that the model looks at.
    window: usize,
    threads: usize,
}

impl Whisper {
    /// The front end with `mels` filters and a window of 30 s: 80 up to large-v2, 128 from large-v3 on.
    ///
    /// # Errors
    /// `InvalidInput` if `mels` is not in 1…1024.
    pub fn new(mels: usize) -> Result<Self> {
        Self::with(mels, 400, 160, 16_000, 30)
    }

    fn with(mels: usize, n_fft: usize, hop: usize, rate: u32, seconds: u64) -> Result<Self> {
        let window = seconds * u64::from(rate);
        // A window of ten minutes at 48 kHz is more than any model has.
        let max = 600 * 48_000;
        if window > max {
            return Err(Error::Limit {
                what: "samples in a Whisper window",
                max,
                got: window,
            });
        }
        let stft = Stft::new(n_fft, hop)?;
        stft.check_length(window as usize)?;
        Ok(Whisper {
            filters: MelFilters::slaney(mels, n_fft, rate, 0.0, 8000.0)?,
            stft,
            rate,
            window: window as usize,
            threads: 1,
        })
    }

    /// With up to `threads` threads for the frames of a window: the same bits. One unless this is called, and one in the browser.
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = match cfg!(target_arch = "wasm32") {
            true => 1,
            false => threads.max(1),
        };
        self
    }

    /// The front end of a `preprocessor_config.json` (or of the `feature_extractor` part of a `processor_config.json`).
    ///
    /// # Errors
    /// `Malformed` if the text is not JSON, `Unsupported` for another class or a setting that is not served (dither,
    /// normalisation of the samples, padding with anything but zeros), `InvalidInput` and `Limit` for values out of range.
    pub fn from_config(json: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(json)
            .map_err(|e| Error::malformed("preprocessor_config.json", 0, e.to_string()))?;
        let file = value.get("feature_extractor").unwrap_or(&value);
        if !file.is_object() {
            return Err(Error::invalid(
                "a preprocessor configuration is a JSON object",
            ));
        }
        let get = |key: &str| file.get(key).filter(|v| !v.is_null());
        let number = |key: &str, default: u64| {
            get(key).map_or(Ok(default), |v| {
                v.as_u64()
                    .filter(|&n| (1..=1 << 24).contains(&n))
                    .ok_or_else(|| {
                        Error::invalid(format!("{key} is a whole number of at least 1, got {v}"))
                    })
            })
        };
        if let Some(class) = get("feature_extractor_type")
            && class != "WhisperFeatureExtractor"
        {
            return Err(Error::unsupported(format!(
                "feature extractor {class}; WhisperFeatureExtractor is served"
            )));
        }
        for key in ["dither", "padding_value"] {
            if let Some(v) = get(key)
                && v.as_f64() != Some(0.0)
            {
                return Err(Error::unsupported(format!("{key} = {v}; 0 is served")));
            }
        }
        if let Some(v) = get("do_normalize")
            && v.as_bool() != Some(false)
        {
            return Err(Error::unsupported("do_normalize = true"));
        }
        Self::with(
            number("feature_size", 80)? as usize,
            number("n_fft", 400)? as usize,
            number("hop_length", 160)? as usize,
            number("sampling_rate", 16_000)? as u32,
            number("chunk_length", 30)?,
        )
    }

    /// The sample rate that the samples must have, Hz.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Filters, `M`.
    pub fn mels(&self) -> usize {
        self.filters.mels()
    }

    /// Samples in the window.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Frames of the window, `T`.
    pub fn frames(&self) -> usize {
        self.window / self.stft.hop()
    }

    /// The features `[M, T]` of a clip of at most the window, which zeros fill up. An empty clip is silence.
    ///
    /// # Errors
    /// `InvalidInput` if a sample is no number of at most 1e20, `Limit` if the clip is longer than the window (the reference would
    /// drop the rest without a word): cut it, or take [`Whisper::features_whole`].
    pub fn features(&self, samples: &[f32]) -> Result<Tensor> {
        let values = self.window_of(samples)?;
        Ok(Tensor::from_f32(&values, &[self.mels(), self.frames()])?)
    }

    /// The same as they lie: `[M, T]` row-major.
    ///
    /// # Errors
    /// As [`Whisper::features`].
    pub fn window_of(&self, samples: &[f32]) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.mels() * self.frames()];
        self.window_into(samples, &mut values)?;
        Ok(values)
    }

    /// The same into `out` `[M, T]`.
    ///
    /// # Errors
    /// As [`Whisper::features`]; `InvalidInput` if `out` has another size.
    pub fn window_into(&self, samples: &[f32], out: &mut [f32]) -> Result<()> {
        self.windows_into(&[samples], out)
    }

    /// The features of clips of at most the window into `out` `[B, M, T]`. The threads share the frames of all of them.
    ///
    /// # Errors
    /// As [`Whisper::features`]; `InvalidInput` if `out` has another size.
    pub fn windows_into(&self, clips: &[&[f32]], out: &mut [f32]) -> Result<()> {
        let size = self.mels() * self.frames();
        if out.len() != clips.len() * size {
            return Err(Error::invalid(format!(
                "room for {} features; {} windows have {size} each",
                out.len(),
                clips.len()
            )));
        }
        for clip in clips {
            self.check_room(clip.len())?;
        }
        let places = clips.iter().zip(out.chunks_exact_mut(size.max(1)));
        let all = 0..self.frames();
        let windows = places.map(|(clip, out)| self.piece(clip, self.window, all.clone(), out));
        self.fill(windows.collect(), true)
    }

    fn check_room(&self, samples: usize) -> Result<()> {
        match samples > self.window {
            true => Err(Error::Limit {
                what: "samples in a Whisper window",
                max: self.window as u64,
                got: samples as u64,
            }),
            false => Ok(()),
        }
    }

    /// The features `[B, M, T]` of clips of at most the window.
    ///
    /// # Errors
    /// As [`Whisper::features`]; `InvalidInput` if there is no clip.
    pub fn batch(&self, clips: &[&[f32]]) -> Result<Tensor> {
        if clips.is_empty() {
            return Err(Error::invalid("a batch has at least one clip"));
        }
        let size = self.mels() * self.frames();
        let mut values = vec![0.0; clips.len() * size];
        self.windows_into(clips, &mut values)?;
        Ok(Tensor::from_f32(
            &values,
            &[clips.len(), self.mels(), self.frames()],
        )?)
    }

    /// The features `[M, samples / hop]` of a clip of any length as it is, without padding: one floor for all of it
    /// (the reference with `truncation=False`).
    ///
    /// # Errors
    /// `InvalidInput` if there are no more than n_fft / 2 samples or one is no number of at most 1e20.
    pub fn features_whole(&self, samples: &[f32]) -> Result<Tensor> {
        self.stft.check_length(samples.len())?;
        let frames = samples.len() / self.stft.hop();
        let mut values = vec![0.0; frames * self.mels()];
        let piece = self.piece(samples, samples.len(), 0..frames, &mut values);
        self.fill(vec![piece], true)?;
        Ok(Tensor::from_f32(&values, &[self.mels(), frames])?)
    }

    /// A stream over one window.
    pub fn stream(&self) -> WhisperStream<'_> {
        WhisperStream {
            front: self,
            samples: Vec::new(),
            logs: Vec::new(),
            ready: 0,
        }
    }

    fn piece<'a>(
        &self,
        samples: &'a [f32],
        length: usize,
        frames: Range<usize>,
        out: &'a mut [f32],
    ) -> Piece<'a> {
        // A frame that begins after the last sample is silent, unless the end mirrors samples into it.
        let reach = self.stft.n_fft() / 2;
        let mirrors = length.saturating_sub(samples.len()) <= 2 * reach;
        let sound = match mirrors {
            true => frames.end,
            false => (samples.len() + reach).div_ceil(self.stft.hop()),
        };
        Piece {
            samples,
            length,
            sound: sound.clamp(frames.start, frames.end),
            frames,
            place: Mutex::new(Place {
                out,
                left: 0,
                bad: None,
            }),
        }
    }

    /// Writes L of the pieces' frames to their places, and makes features of it all if it is to be `floored`.
    fn fill(&self, pieces: Vec<Piece<'_>>, floored: bool) -> Result<()> {
        let count: usize = pieces.iter().map(|p| p.sound - p.frames.start).sum();
        let threads = self.threads.min(count / LEAST_FRAMES).max(1);
        // Several parts for each, so that nobody waits long for a thread that began late.
        let per = (count / (8 * threads)).clamp(LEAST_FRAMES / 8, MOST_FRAMES);
        let per = per.next_multiple_of(LANES);
        for piece in &pieces {
            let parts = (piece.sound - piece.frames.start).div_ceil(per).max(1);
            lock(&piece.place).left = parts;
        }
        let parts = pieces.iter().flat_map(|piece| {
            let first = piece.frames.start;
            let starts = (first..piece.sound.max(first + 1)).step_by(per);
            starts.map(move |start| (piece, start..piece.sound.min(start + per)))
        });
        share(threads, parts.collect(), |(piece, frames)| {
            self.part(piece, frames, floored);
        });
        for piece in pieces {
            if let Some(at) = lock(&piece.place).bad {
                return Err(refused(piece.samples, at, 0));
            }
        }
        Ok(())
    }

    /// Writes L of a part's frames to its place; who is last of a piece ends it.
    fn part(&self, piece: &Piece<'_>, frames: Range<usize>, floored: bool) {
        let (samples, n) = (piece.samples, frames.len());
        let (mut scratch, mut energies) = (self.stft.scratch(), vec![[0.0; LANES]; self.mels()]);
        // What is checked here is at hand right away.
        let own = |frame: usize| match frame == piece.sound {
            true => samples.len(),
            false => samples.len().min(frame * self.stft.hop()),
        };
        let range = own(frames.start)..own(frames.end);
        let bad = first_bad(&samples[range.clone()]).map(|at| range.start + at);
        let mut values = vec![0.0; self.mels() * n];
        for first in frames.clone().step_by(LANES) {
            let some = LANES.min(frames.end - first);
            self.stft
                .frames_at(samples, piece.length, first..first + some, &mut scratch);
            self.filters.apply(&scratch.power, &mut energies);
            logs(&mut energies, 0.0, FLOOR, Log::Ten);
            let at = first - frames.start;
            for (row, e) in values.chunks_exact_mut(n).zip(&energies) {
                let narrow = [e[0] as f32, e[1] as f32, e[2] as f32, e[3] as f32];
                match row[at..].first_chunk_mut::<LANES>() {
                    Some(place) => *place = narrow,
                    None => row[at..].copy_from_slice(&narrow[..some]),
                }
            }
        }
        let mut place = lock(&piece.place);
        let all = (place.out.len() / self.mels()).max(1);
        let rows = place.out.chunks_exact_mut(all);
        for (row, values) in rows.zip(values.chunks_exact(n.max(1))) {
            row[frames.clone()].copy_from_slice(values);
        }
        place.bad = [place.bad, bad].into_iter().flatten().min();
        place.left -= 1;
        if place.left == 0 {
            for row in place.out.chunks_exact_mut(all) {
                row[piece.sound..piece.frames.end].fill(FLOOR.log10() as f32);
            }
            if floored {
                floor(place.out);
            }
        }
    }
}

/// Frames of a signal of `length` samples that starts with `samples` and goes on with zeros.
struct Piece<'a> {
    samples: &'a [f32],
    length: usize,
    frames: Range<usize>,
    /// From this one on they are silent.
    sound: usize,
    place: Mutex<Place<'a>>,
}

/// Where they go.
struct Place<'a> {
    /// `[M, T]`
    out: &'a mut [f32],
    /// Parts that are not there yet.
    left: usize,
    /// The first sample that is no number.
    bad: Option<usize>,
}

/// The fewest frames that are worth a thread: 0.2 ms.
const LEAST_FRAMES: usize = 300;

/// The most frames of a part, whose features stay at hand until they go to their place.
const MOST_FRAMES: usize = 300;

/// Makes features of L.
fn floor(values: &mut [f32]) {
    // In parts, which go side by side.
    let mut tops = [f32::NEG_INFINITY; 16];
    let (parts, rest) = values.as_chunks::<16>();
    for part in parts {
        for (top, v) in tops.iter_mut().zip(part) {
            *top = if *v > *top { *v } else { *top };
        }
    }
    let top = tops
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |m, &v| m.max(v));
    let floor = top - 8.0;
    for v in values {
        *v = (if *v > floor { *v } else { floor } + 4.0) / 4.0;
    }
}

/// The least energy whose logarithm is taken.
const FLOOR: f64 = 1e-10;

/// One window of samples as they come.
#[derive(Clone, Debug)]
pub struct WhisperStream<'a> {
    front: &'a Whisper,
    samples: Vec<f32>,
    /// L `[M, T]`, of which the first `ready` frames are those that no later sample changes; nothing before the first of them.
    logs: Vec<f32>,
    ready: usize,
}

impl WhisperStream<'_> {
    /// Takes samples; the frames that they complete are computed now.
    ///
    /// # Errors
    /// `InvalidInput` if a sample is no number of at most 1e20, `Limit` if they exceed the window (see [`WhisperStream::room`]).
    /// Nothing is taken then.
    pub fn push(&mut self, samples: &[f32]) -> Result<()> {
        check_finite(samples, self.samples.len())?;
        let front = self.front;
        front.check_room(self.samples.len() + samples.len())?;
        self.samples.extend_from_slice(samples);
        let ready = self.complete();
        if ready > self.ready {
            self.logs.resize(front.mels() * front.frames(), 0.0);
            let new = front.piece(
                &self.samples,
                front.window,
                self.ready..ready,
                &mut self.logs,
            );
            front.fill(vec![new], false)?;
            self.ready = ready;
        }
        Ok(())
    }

    /// Samples that the window still takes.
    pub fn room(&self) -> usize {
        self.front.window - self.samples.len()
    }

    /// Frames computed for good (but for the floor).
    pub fn ready_frames(&self) -> usize {
        self.ready
    }

    /// The features `[M, T]` of the window: the samples so far, and silence after them.
    ///
    /// # Errors
    /// `Tensor` if the memory is not to be had.
    pub fn features(&self) -> Result<Tensor> {
        let (mels, frames) = (self.front.mels(), self.front.frames());
        let mut values = self.logs.clone();
        values.resize(mels * frames, 0.0);
        let (front, rest) = (self.front, self.ready..frames);
        let piece = front.piece(&self.samples, front.window, rest, &mut values);
        front.fill(vec![piece], true)?;
        Ok(Tensor::from_f32(&values, &[mels, frames])?)
    }

    /// Forgets the samples; the memory is kept for the next window.
    pub fn clear(&mut self) {
        self.samples.clear();
        self.ready = 0;
    }

    /// Frames whose samples are all there: the first one also mirrors n_fft / 2 + 1 samples.
    fn complete(&self) -> usize {
        let (have, reach) = (self.samples.len(), self.front.stft.n_fft() / 2);
        if have <= reach {
            return 0;
        }
        ((have - reach) / self.front.stft.hop() + 1).min(self.front.frames())
    }
}
