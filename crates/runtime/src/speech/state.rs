//! Clips on a device, and the steps of the decoder over them.
//!
//! The recordings of the encoder and of the usual steps are kept and replayed: a token costs one submit.

use super::{Hears, Keys, Silence, SpeechInputs, SpeechModel, SpeechSpec, check_id};
use crate::cache::Cache;
use crate::models::Logits;
use crate::{Error, Result};
use firelight_kernels::{Array, DType, Device, Dynamic, Holder, Recorder, Recording};
use std::sync::Arc;

/// Steps of different shapes that are kept.
const KEPT: usize = 8;

/// What a clip is given as.
#[derive(Clone, Copy, Debug)]
pub struct Clip<'a> {
    /// Features `[M, frames]` row-major, of at most the model's frames, or samples.
    pub values: &'a [f32],
}

/// A token to be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Which sequence it belongs to. Sequence `i` of `n` clips hears clip `i mod n`: there may be several for a clip.
    pub clip: u32,
    /// Its position among the sequence's tokens.
    pub position: u32,
    /// Its id.
    pub id: u32,
}

/// The encoder's recording for `clips` clips of `input` frames or samples.
struct Encoding {
    clips: usize,
    input: usize,
    /// Beside silence.
    part: bool,
    array: Array,
    recording: Recording,
    states: Array,
    cross: Vec<[Array; 2]>,
    /// The keys that the first clip's tokens see.
    span: [u32; 2],
}

/// The decoder's recording for some tokens and some of their logits.
struct Step {
    tokens: usize,
    logits: usize,
    recording: Recording,
    ids: Dynamic,
    rows: Dynamic,
    spans: Dynamic,
    wanted: Dynamic,
}

/// See the module's head.
pub struct SpeechState {
    device: Device,
    model: Arc<dyn SpeechModel>,
    cache: Cache,
    sequences: usize,
    silence: Option<Silence>,
    encoding: Option<Encoding>,
    steps: Vec<Step>,
}

impl SpeechState {
    /// A state for `sequences` sequences of tokens at once; [`SpeechState::sequences`] and [`SpeechState::encode`] make room for more.
    ///
    /// # Errors
    /// `Device` if memory runs out.
    pub fn new(device: &Device, model: &Arc<dyn SpeechModel>, sequences: usize) -> Result<Self> {
        let sequences = sequences.max(1);
        let mut cache = Cache::new(device, sequences);
        let spec = &model.spec().decoder;
        cache.reserve(spec, spec.context)?;
        Ok(SpeechState {
            device: device.clone(),
            model: Arc::clone(model),
            cache,
            sequences,
            silence: None,
            encoding: None,
            steps: Vec::new(),
        })
    }

    /// Makes room for this many sequences; where there is less, what was decoded so far is forgotten.
    ///
    /// # Errors
    /// `Device` if memory runs out.
    pub fn sequences(&mut self, sequences: usize) -> Result<()> {
        if sequences > self.sequences {
            // What was makes room first.
            self.steps.clear();
            self.cache = Cache::new(&self.device, sequences);
            let spec = &self.model.spec().decoder;
            self.cache.reserve(spec, spec.context)?;
            self.sequences = sequences;
        }
        Ok(())
    }

    /// Sizes of the model.
    pub fn spec(&self) -> &SpeechSpec {
        self.model.spec()
    }

    /// Encoder states of each clip, `S`; 0 before the first.
    pub fn states(&self) -> usize {
        let per = |e: &Encoding| self.model.states(e.input);
        self.encoding.as_ref().map_or(0, per)
    }

    /// Encodes clips of one length, replacing those before; decoding starts anew.
    ///
    /// # Errors
    /// `InvalidInput` if there is no clip, their lengths differ, or one is not what the model hears; `Device`.
    pub async fn encode(&mut self, clips: &[Clip<'_>]) -> Result<()> {
        self.encode_as(clips, false).await
    }

    /// The most frames of a clip that is encoded beside silence; 0 if the model has no window.
    pub fn most_beside(&self) -> usize {
        match self.model.spec().hears {
            Hears::Mel { frames, .. } => Silence::most(frames),
            Hears::Samples { .. } => 0,
        }
    }

    /// As [`SpeechState::encode`], one clip of at most [`SpeechState::most_beside`] frames with remembered [`Silence`] in the rest of
    /// the window: a part of the work, and nearly what the whole window gives. Words cannot be aligned with it.
    ///
    /// # Errors
    /// As [`SpeechState::encode`].
    pub async fn encode_beside(&mut self, clip: Clip<'_>) -> Result<()> {
        self.hush().await?;
        self.encode_as(&[clip], true).await
    }

    /// Hears the silence that [`SpeechState::encode_beside`] needs, which is otherwise done when it is first needed.
    ///
    /// # Errors
    /// `InvalidInput` if the model has no window, `Device`.
    pub async fn hush(&mut self) -> Result<()> {
        if self.silence.is_none() {
            self.silence = Some(Silence::of(&self.device, &*self.model).await?);
        }
        Ok(())
    }

    async fn encode_as(&mut self, clips: &[Clip<'_>], part: bool) -> Result<()> {
        let hears = self.model.spec().hears;
        let Some(len) = clips.first().map(|c| c.values.len()) else {
            return Err(Error::invalid("no clip to encode"));
        };
        if clips.iter().any(|c| c.values.len() != len) {
            return Err(Error::invalid("clips of a batch have one length"));
        }
        let (input, width) = match hears {
            // A shorter clip than the model's costs less; what it was trained on is the whole.
            Hears::Mel { mels, frames }
                if len.is_multiple_of(mels) && (2..=frames).contains(&(len / mels)) =>
            {
                (len / mels, mels)
            }
            Hears::Mel { mels, frames } => {
                return Err(Error::invalid(format!(
                    "{len} values of a clip; the model hears {mels} bands of at most {frames} frames"
                )));
            }
            Hears::Samples { least } if len >= least => (len, 1),
            Hears::Samples { least } => {
                return Err(Error::invalid(format!(
                    "{len} samples; the model hears {least} or more"
                )));
            }
        };
        self.sequences(clips.len())?;
        let same = |e: &Encoding| (e.clips, e.input, e.part) == (clips.len(), input, part);
        if !self.encoding.as_ref().is_some_and(same) {
            // What is not needed any more makes room first. Steps beside silence have one and the same array to look at.
            let beside = part && self.encoding.as_ref().is_some_and(|e| e.part);
            self.encoding = None;
            if !beside {
                self.steps.clear();
            }
            self.encoding = Some(self.record_encoding(clips.len(), input, width, part)?);
        }
        let Some(encoding) = &mut self.encoding else {
            return Err(Error::invalid("no clip to encode"));
        };
        let mut values: Vec<f32> = Vec::with_capacity(len * clips.len());
        for clip in clips {
            // Frame by frame, as convolutions want them.
            for t in 0..input {
                values.extend(clip.values.iter().skip(t).step_by(input).take(width));
            }
        }
        self.device
            .write(&encoding.array, bytemuck::cast_slice(&values))?;
        drop(encoding.recording.submit()?.wait().await?);
        Ok(())
    }

    fn record_encoding(
        &self,
        clips: usize,
        input: usize,
        width: usize,
        part: bool,
    ) -> Result<Encoding> {
        let shape: &[usize] = match width {
            1 => &[clips, input],
            _ => &[clips, input, width],
        };
        let array = self.device.array(DType::F32, shape, Holder::Activations)?;
        let mut rec = Recorder::new(&self.device);
        let silence = self.silence.as_ref().filter(|_| part);
        let keys = silence.map_or(Keys::Own, Keys::Beside);
        let states = self.model.encode(&mut rec, &array, keys)?;
        let mut cross = self.model.cross(&mut rec, &states)?;
        let n = self.model.states(input) as u32;
        let mut span = [0, n];
        if let Some(silence) = silence {
            (cross, span) = (silence.cross(&mut rec, &cross)?, silence.span(n));
        }
        Ok(Encoding {
            clips,
            input,
            part,
            span,
            array,
            recording: rec.finish()?,
            states,
            cross,
        })
    }

    /// The encoder states f32 `[B·S, D]`.
    ///
    /// # Errors
    /// `InvalidInput` before the first clip, `Device`.
    pub async fn encoder_states(&self) -> Result<Vec<f32>> {
        let encoding = self.encoding()?;
        Ok(self.device.read_f32(&encoding.states).await?)
    }

    fn encoding(&self) -> Result<&Encoding> {
        let none = || Error::invalid("no clip is encoded");
        self.encoding.as_ref().ok_or_else(none)
    }

    /// Decodes `tokens`, those of a clip next to each other and in order, and gives the logits of the tokens `wanted` (their
    /// indices), f32 `[R, V]`. What is at their positions in the cache and behind is replaced.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown id, clip or position, `BadLogits` if the model gives NaN, `Device`.
    pub async fn step(&mut self, tokens: &[Token], wanted: &[u32]) -> Result<Vec<f32>> {
        self.check(tokens, wanted)?;
        let shape = |s: &Step| s.tokens == tokens.len() && s.logits == wanted.len();
        let mut step = match self.steps.iter().position(shape) {
            Some(at) => self.steps.remove(at),
            None => self.record(tokens.len(), wanted.len())?,
        };
        let encoding = self.encoding()?;
        let (clips, [first, end]) = (encoding.clips as u32, encoding.span);
        let ids: Vec<u32> = tokens.iter().map(|t| t.id).collect();
        let rows = tokens.iter().map(|t| [t.clip, t.position]);
        let spans = tokens.iter().map(|t| {
            let after = t.clip % clips * (end - first);
            [first + after, end + after]
        });
        let recording = &mut step.recording;
        recording.set(&step.ids, &ids)?;
        recording.set(&step.rows, rows.collect::<Vec<_>>().as_flattened())?;
        recording.set(&step.spans, spans.collect::<Vec<_>>().as_flattened())?;
        recording.set(&step.wanted, wanted)?;
        let submission = recording.submit()?;
        self.steps.insert(0, step);
        self.steps.truncate(KEPT);
        let bytes = submission.wait().await?;
        let logits: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        if logits.iter().any(|v| v.is_nan()) {
            let position = tokens.first().map_or(0, |t| t.position as usize);
            return Err(Error::BadLogits { position });
        }
        Ok(logits)
    }

    fn check(&self, tokens: &[Token], wanted: &[u32]) -> Result<()> {
        self.encoding()?;
        let (sequences, spec) = (self.sequences, self.model.spec());
        for t in tokens {
            check_id(spec, t.id)?;
            if t.clip as usize >= sequences || t.position as usize >= spec.decoder.context {
                return Err(Error::invalid(format!(
                    "position {} of sequence {}; there are {sequences} sequences of {} positions",
                    t.position, t.clip, spec.decoder.context
                )));
            }
        }
        let inside = wanted.iter().all(|&w| (w as usize) < tokens.len());
        match tokens.is_empty() || wanted.is_empty() || !inside {
            true => Err(Error::invalid(format!(
                "logits of tokens {wanted:?} of {}",
                tokens.len()
            ))),
            false => Ok(()),
        }
    }

    fn record(&self, tokens: usize, logits: usize) -> Result<Step> {
        let encoding = self.encoding()?;
        let mut rec = Recorder::new(&self.device);
        let (ids, rows) = (rec.dynamic(tokens)?, rec.dynamic(2 * tokens)?);
        let (spans, wanted) = (rec.dynamic(2 * tokens)?, rec.dynamic(logits)?);
        let inputs = SpeechInputs {
            ids: ids.array(),
            rows: rows.array(),
            spans: spans.array(),
            logits: Logits::Rows(wanted.array()),
            cross: &encoding.cross,
        };
        let out = self.model.decode(&mut rec, inputs, &self.cache, None)?;
        let out = out.ok_or_else(|| Error::invalid("the model gave no logits"))?;
        rec.read_back(&out);
        Ok(Step {
            tokens,
            logits,
            recording: rec.finish()?,
            ids,
            rows,
            spans,
            wanted,
        })
    }

    /// Runs `tokens` from position 0 on, listening to `clip`, and gives, per layer, the queries `[T, D]` and keys `[S, D]` of its
    /// cross-attention, for the layers asked for.
    pub(super) async fn look(
        &mut self,
        clip: usize,
        tokens: &[u32],
        layers: &[usize],
    ) -> Result<Vec<(Vec<f32>, Vec<f32>)>> {
        let listed = tokens.iter().zip(0..).map(|(&id, position)| Token {
            clip: 0,
            position,
            id,
        });
        let listed: Vec<Token> = listed.collect();
        self.check(&listed, &[0])?;
        let encoding = self.encoding()?;
        if clip >= encoding.clips {
            return Err(Error::invalid(format!("clip {clip} of {}", encoding.clips)));
        }
        if encoding.part {
            return Err(Error::invalid(
                "words of a clip beside silence; encode it in its whole window",
            ));
        }
        let (n, states) = (tokens.len(), self.states());
        let own = [(clip * states) as u32, ((clip + 1) * states) as u32];
        let mut rec = Recorder::new(&self.device);
        let (ids, rows, spans) = (rec.dynamic(n)?, rec.dynamic(2 * n)?, rec.dynamic(2 * n)?);
        let inputs = SpeechInputs {
            ids: ids.array(),
            rows: rows.array(),
            spans: spans.array(),
            logits: Logits::None,
            cross: &encoding.cross,
        };
        let mut queries = Vec::new();
        self.model
            .decode(&mut rec, inputs, &self.cache, Some(&mut queries))?;
        let mut recording = rec.finish()?;
        let pairs =
            |f: &dyn Fn(u32) -> [u32; 2]| -> Vec<u32> { (0..n as u32).flat_map(f).collect() };
        recording.set(&ids, tokens)?;
        recording.set(&rows, &pairs(&|i| [0, i]))?;
        recording.set(&spans, &pairs(&|_| own))?;
        drop(recording.submit()?.wait().await?);
        let mut found = Vec::with_capacity(layers.len());
        for &layer in layers {
            let (Some(q), Some([k, _])) = (queries.get(layer), encoding.cross.get(layer)) else {
                return Err(Error::invalid(format!(
                    "layer {layer} of {}",
                    queries.len()
                )));
            };
            let q = self.device.read_f32(q).await?;
            let mut k = self.device.read_f32(k).await?;
            let part = states * self.model.spec().hidden;
            k.drain(..clip * part);
            k.truncate(part);
            found.push((q, k));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speech::fixture;
    use pollster::block_on;

    fn near(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4)
    }

    #[test]
    fn several_sequences_hear_one_clip() {
        let (_, loaded) = fixture("moonshine");
        let mut state = SpeechState::new(&loaded.device, &loaded.model, 1).expect("a state");
        let vocab = state.spec().decoder.vocab;
        let sound =
            |by: f32| -> Vec<f32> { (0..16_000).map(|i| (i as f32 * by).sin() * 0.3).collect() };
        let clips = [sound(0.05), sound(0.11)];
        let prompts = [[1, 5, 9], [1, 6, 7], [1, 9, 5], [1, 2, 3]];
        let listed = |sequence: u32, clip: u32| {
            let own = (0..).zip(&prompts[sequence as usize]);
            let token = move |(position, &id)| Token { clip, position, id };
            own.map(token).collect::<Vec<_>>()
        };
        let mut alone = Vec::new();
        for sequence in 0..4 {
            let clip = Clip {
                values: &clips[sequence as usize % 2],
            };
            block_on(state.encode(&[clip])).expect("encodes");
            alone.push(block_on(state.step(&listed(sequence, 0), &[2])).expect("logits"));
        }
        block_on(state.encode(&clips.each_ref().map(|c| Clip { values: c }))).expect("encodes");
        state.sequences(4).expect("room");
        let all: Vec<Token> = (0..4).flat_map(|s| listed(s, s)).collect();
        let found = block_on(state.step(&all, &[2, 5, 8, 11])).expect("logits");
        for (alone, found) in alone.iter().zip(found.chunks(vocab)) {
            assert!(near(alone, found));
        }
        assert!(!near(&found[..vocab], &found[vocab..2 * vocab]));
        let next = |clip: u32| Token {
            clip,
            position: 3,
            id: 4,
        };
        assert!(block_on(state.step(&[next(4)], &[0])).is_err());
    }

    /// What is put beside silence sees what it would see in a window that ends with it.
    #[test]
    fn silence_is_remembered() {
        let (_, loaded) = fixture("whisper");
        let mut state = SpeechState::new(&loaded.device, &loaded.model, 1).expect("a state");
        let (mels, frames) = (80, 100);
        assert_eq!(state.most_beside(), 50);
        let at = |n: usize| -> Vec<f32> {
            let value = |i: usize| match i % frames < n {
                true => ((i * i) % 97) as f32 / 97.0 - 0.5,
                false => -0.9,
            };
            let all: Vec<f32> = (0..mels * frames).map(value).collect();
            all
        };
        let part = |values: &[f32], n: usize| -> Vec<f32> {
            let rows = values.chunks(frames);
            rows.flat_map(|row| row[..n].to_vec()).collect()
        };
        let start = state.spec().start;
        let tokens: Vec<Token> = [start, 5, 9]
            .into_iter()
            .zip(0..)
            .map(|(id, position)| Token {
                clip: 0,
                position,
                id,
            })
            .collect();
        let logits = |state: &mut SpeechState| block_on(state.step(&tokens, &[2])).expect("logits");
        let far =
            |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        // Silence with remembered silence is nearly the whole window's; the convolutions see zeros after the part.
        for n in [50, 2, 16] {
            let (whole, part) = (at(0), part(&at(0), n));
            block_on(state.encode(&[Clip { values: &whole }])).expect("encodes");
            let whole = logits(&mut state);
            block_on(state.encode(&[Clip { values: &part }])).expect("encodes");
            let alone = far(&whole, &logits(&mut state));
            block_on(state.encode_beside(Clip { values: &part })).expect("encodes");
            let beside = far(&whole, &logits(&mut state));
            assert!(
                beside < 0.2 && beside < alone / 2.0,
                "{n}: {beside} {alone}"
            );
        }
        // A shorter clip after a longer one sees nothing of it.
        let (long, short) = (part(&at(40), 50), part(&at(20), 30));
        block_on(state.encode_beside(Clip { values: &long })).expect("encodes");
        let other = logits(&mut state);
        block_on(state.encode_beside(Clip { values: &short })).expect("encodes");
        let after = logits(&mut state);
        assert!(far(&other, &after) > 0.1);
        let mut state = SpeechState::new(&loaded.device, &loaded.model, 1).expect("a state");
        block_on(state.encode_beside(Clip { values: &short })).expect("encodes");
        assert_eq!(logits(&mut state), after);
        let words = block_on(state.align(0, &[start, 5, 9], 1, 3, &[(0, 0)], 3));
        assert!(words.is_err(), "half of the keys are not the clip's");
        let long = part(&at(0), 52);
        assert!(block_on(state.encode_beside(Clip { values: &long })).is_err());
    }
}
