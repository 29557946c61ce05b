//! Decoding one window: greedily, and with growing temperature while the result looks wrong.

use super::tokens::{Vocabulary, log_sum};
use super::{Options, Task};
use crate::source::CancelToken;
use crate::speech::{LoadedSpeech, SpeechState, Token};
use crate::{Error, Result};
use std::io::Write;

/// What a window was decoded to.
#[derive(Clone, Debug, Default)]
pub(super) struct Decoded {
    /// The tokens sampled, without the end.
    pub(super) tokens: Vec<u32>,
    /// Mean log-probability of a token, the end included.
    pub(super) logprob: f32,
    /// How sure the model is that nobody speaks, 0…1.
    pub(super) no_speech: f32,
    /// Bytes of the text over bytes of it compressed: text that repeats itself has a high one.
    pub(super) compression: f32,
    /// The temperature of the result.
    pub(super) temperature: f32,
    /// How probable each token is among the words, 0…1; nothing where nobody asks for the times of words.
    pub(super) probabilities: Vec<f32>,
}

/// One way to go on.
#[derive(Default)]
struct Draft {
    tokens: Vec<u32>,
    probabilities: Vec<f32>,
    /// The logarithms of the probabilities, the end's included.
    sum: f32,
    done: bool,
    draw: Draw,
}

/// Numbers in 0…1, the same for the same seed.
#[derive(Default)]
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// The decoder of a file's windows.
pub(super) struct WindowDecoder<'a> {
    pub(super) model: &'a LoadedSpeech,
    pub(super) words: &'a Vocabulary,
    pub(super) options: &'a Options,
    /// Seconds of an encoder state.
    pub(super) step: f32,
    /// The most tokens that are sampled.
    pub(super) limit: usize,
}

impl WindowDecoder<'_> {
    /// The tokens that say what is to be done, from the start token on.
    pub(super) fn task(&self, language: Option<u32>) -> Vec<u32> {
        let mut tokens = vec![self.words.start];
        if let (Some(language), Some((transcribe, translate))) = (language, self.words.tasks) {
            tokens.push(language);
            tokens.push(match self.options.task {
                Task::Transcribe => transcribe,
                Task::Translate => translate,
            });
        }
        tokens
    }

    /// The language of the clip in `state`, and how likely it is; `None` for a model of one language.
    pub(super) async fn language(&self, state: &mut SpeechState) -> Result<Option<(u32, f32)>> {
        if self.words.languages.is_empty() {
            return Ok(None);
        }
        let start = Token {
            clip: 0,
            position: 0,
            id: self.words.start,
        };
        let logits = state.step(&[start], &[0]).await?;
        let of = |id: u32| {
            logits
                .get(id as usize)
                .copied()
                .unwrap_or(f32::NEG_INFINITY)
        };
        let all: Vec<f32> = self.words.languages.iter().map(|(_, id)| of(*id)).collect();
        let total = log_sum(&all);
        let best = self.words.languages.iter().map(|(_, id)| *id);
        let best = best.max_by(|a, b| of(*a).total_cmp(&of(*b)));
        Ok(best.map(|id| (id, (of(id) - total).exp())))
    }

    /// Decodes the clip in `state`, after `previous` text tokens.
    pub(super) async fn decode(
        &self,
        state: &mut SpeechState,
        previous: &[u32],
        language: Option<u32>,
        cancel: &CancelToken,
    ) -> Result<Decoded> {
        let o = self.options;
        let mut last = Decoded::default();
        for (i, &temperature) in o.temperatures.iter().enumerate() {
            let found = self
                .once(state, previous, language, temperature, cancel)
                .await?;
            let repeats = found.compression > o.max_compression;
            let unsure = found.logprob < o.min_logprob;
            let silent = found.no_speech > o.max_no_speech && unsure;
            // The later, hotter result is not always the better one.
            last = match i > 0 && repeats && last.compression < found.compression {
                true => last,
                false => found,
            };
            if silent || !(repeats || unsure) {
                break;
            }
        }
        Ok(last)
    }

    /// Decodes the clip in `state` greedily, once; `None` if the result repeats itself or reaches the limit, or, unless `lenient`, if the
    /// model is not sure of it.
    pub(super) async fn try_once(
        &self,
        state: &mut SpeechState,
        previous: &[u32],
        language: Option<u32>,
        lenient: bool,
        cancel: &CancelToken,
    ) -> Result<Option<Decoded>> {
        let o = self.options;
        let found = self.once(state, previous, language, 0.0, cancel).await?;
        let unsure = found.logprob < o.min_logprob && found.no_speech <= o.max_no_speech;
        let repeats = found.compression > o.max_compression;
        let wrong = (unsure && !lenient) || repeats || found.tokens.len() >= self.limit;
        Ok((!wrong).then_some(found))
    }

    async fn once(
        &self,
        state: &mut SpeechState,
        previous: &[u32],
        language: Option<u32>,
        temperature: f32,
        cancel: &CancelToken,
    ) -> Result<Decoded> {
        let context = state.spec().decoder.context;
        let most = context / 2;
        let mut prompt = Vec::new();
        if let (Some(mark), false) = (self.words.previous, previous.is_empty()) {
            let room = most.saturating_sub(1);
            prompt.push(mark);
            prompt.extend(&previous[previous.len().saturating_sub(room)..]);
        }
        let start = prompt.len() as u32;
        prompt.extend(self.task(language));
        if !self.options.timestamps {
            prompt.push(self.words.no_timestamps);
        }
        let last = prompt.len() as u32 - 1;
        // What is drawn is drawn several times, and the likeliest is taken.
        let drawn = temperature > 0.0;
        let many = if drawn {
            self.options.best_of.max(1)
        } else {
            1
        };
        state.sequences(many)?;
        let sequences = 0..many as u32;
        let listed = sequences.clone().flat_map(|clip| {
            let own = (0..).zip(&prompt);
            own.map(move |(position, &id)| Token { clip, position, id })
        });
        let listed: Vec<Token> = listed.collect();
        let lasts = sequences.map(|s| s * (last + 1) + last);
        let wanted: Vec<u32> = Some(start).into_iter().chain(lasts).collect();
        let mut logits = state.step(&listed, &wanted).await?;
        let size = self.words.size;
        let at_start = &logits[..size.min(logits.len())];
        let no_speech = match self
            .words
            .no_speech
            .and_then(|id| at_start.get(id as usize))
        {
            Some(v) => (v - log_sum(at_start)).exp(),
            None => 0.0,
        };
        logits.drain(..size.min(logits.len()));
        let seed = self.options.seed ^ 0x9e37_79b9_7f4a_7c15 ^ u64::from(temperature.to_bits());
        let draft = |i: u64| Draft {
            draw: Draw(seed.wrapping_add(i << 32)),
            ..Draft::default()
        };
        let mut drafts: Vec<Draft> = (0..many as u64).map(draft).collect();
        let first_time = (self.options.max_first_time / self.step) as u32;
        for count in 1..=most.min(self.limit).min(context - prompt.len()) {
            if cancel.heard().await {
                return Err(Error::Cancelled);
            }
            for (draft, logits) in drafts.iter_mut().zip(logits.chunks_exact_mut(size)) {
                self.next(draft, logits, temperature, first_time);
            }
            let position = last + count as u32;
            if drafts.iter().all(|d| d.done) || position as usize >= context {
                break;
            }
            // Those that are done go on with what changes nothing, so that all steps have one shape.
            let next = drafts.iter().zip(0..).map(|(draft, clip)| Token {
                clip,
                position,
                id: draft.tokens.last().copied().unwrap_or(self.words.end),
            });
            let next: Vec<Token> = next.collect();
            let wanted: Vec<u32> = (0..many as u32).collect();
            logits = state.step(&next, &wanted).await?;
        }
        let likely = |d: &Draft| d.sum / d.tokens.len().max(1) as f32;
        let best = drafts
            .into_iter()
            .reduce(|a, b| if likely(&b) > likely(&a) { b } else { a });
        let Draft {
            tokens,
            probabilities,
            sum,
            ..
        } = best.unwrap_or_default();
        let text = self.text(&tokens);
        Ok(Decoded {
            logprob: sum / (tokens.len() + 1) as f32,
            no_speech,
            compression: compression(&text),
            temperature,
            probabilities,
            tokens,
        })
    }

    /// Chooses the next token of a draft.
    fn next(&self, draft: &mut Draft, logits: &mut [f32], temperature: f32, first_time: u32) {
        if draft.done {
            return;
        }
        let words = match self.options.word_timestamps {
            true => log_sum(&logits[..logits.len().min(self.words.end as usize)]),
            false => f32::INFINITY,
        };
        let timed = self.options.timestamps;
        self.words.rule(logits, &draft.tokens, timed, first_time);
        let total = log_sum(logits);
        let id = choose(logits, temperature, &mut draft.draw);
        let found = logits.get(id as usize).copied();
        draft.sum += found.map_or(0.0, |v| v - total);
        if id == self.words.end {
            draft.done = true;
            return;
        }
        draft.tokens.push(id);
        if self.options.word_timestamps {
            let probability = found.map_or(0.0, |v| (v - words).exp().min(1.0));
            draft.probabilities.push(probability);
        }
    }

    /// The words of some tokens.
    pub(super) fn text(&self, tokens: &[u32]) -> String {
        let words: Vec<u32> = tokens
            .iter()
            .copied()
            .filter(|&id| id < self.words.end)
            .collect();
        self.model.text.tokenizer.decode(&words, true)
    }
}

/// The likeliest id, or one drawn at a temperature.
fn choose(logits: &[f32], temperature: f32, draw: &mut Draw) -> u32 {
    let best = || {
        let listed = logits.iter().enumerate();
        let best = listed.max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
        best.map_or(0, |(i, _)| i)
    };
    if temperature <= 0.0 {
        return best() as u32;
    }
    let scaled: Vec<f32> = logits.iter().map(|v| v / temperature).collect();
    let total = log_sum(&scaled);
    let mut left = draw.next();
    for (i, v) in scaled.iter().enumerate() {
        left -= (v - total).exp();
        if left < 0.0 {
            return i as u32;
        }
    }
    best() as u32
}

/// Bytes of a text over bytes of it as zlib packs it; 0 for none.
fn compression(text: &str) -> f32 {
    let text = text.trim();
    if text.is_empty() {
        return 0.0;
    }
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    // Writing into memory does not fail.
    let packed = packed
        .write_all(text.as_bytes())
        .and_then(|()| packed.finish());
    text.len() as f32 / packed.map_or(text.len(), |p| p.len()).max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_compresses() {
        assert!(compression("And so my fellow Americans, ask not what your country can do.") < 1.5);
        assert!(compression(&"I don't know. ".repeat(20)) > 2.4);
        assert_eq!(compression("  "), 0.0);
    }

    #[test]
    fn drawing_follows_the_probabilities() {
        let logits = [f32::NEG_INFINITY, 0.0, 3f32.ln(), f32::NEG_INFINITY];
        let mut draw = Draw(99);
        let mut counts = [0; 4];
        for _ in 0..4000 {
            counts[choose(&logits, 1.0, &mut draw) as usize] += 1;
        }
        assert_eq!(counts[0] + counts[3], 0);
        assert!((900..1100).contains(&counts[1]), "{counts:?}");
        assert_eq!(choose(&logits, 0.0, &mut draw), 2);
    }
}
