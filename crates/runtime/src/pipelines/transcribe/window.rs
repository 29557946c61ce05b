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
    /// The text ended without a time, where others are asked for.
    pub(super) open: bool,
    /// Mean log-probability of a token, the end included.
    pub(super) logprob: f32,
    /// How sure the model is that nobody speaks, 0…1.
    pub(super) no_speech: f32,
    /// Bytes of the text over bytes of it compressed: text that repeats itself has a high one.
    pub(super) compression: f32,
    /// The temperature of the result.
    pub(super) temperature: f32,
    /// Whether there is a letter or a digit.
    pub(super) worded: bool,
    /// How probable each token is among the words, 0…1; nothing where nobody asks for the times of words.
    pub(super) probabilities: Vec<f32>,
}

impl Decoded {
    /// Whether the text is worth nothing as it is: it repeats itself, or the model is not sure of it and not of silence either.
    fn wrong(&self, o: &Options) -> bool {
        let silent = self.no_speech > o.max_no_speech && self.logprob < o.min_logprob;
        !silent && (self.compression > o.max_compression || self.logprob < o.min_logprob)
    }

    /// Whether somebody spoke. OpenAI's rule is the first one; by it alone a steady tone, which no temperature makes likelier, ends in
    /// words of the hottest one, and beeps in a full stop.
    pub(super) fn speech(&self, o: &Options) -> bool {
        let silent = self.no_speech > o.max_no_speech;
        let half = self.no_speech > o.max_no_speech / 2.0;
        let invented = silent && self.logprob < o.min_logprob
            || half && self.logprob < 2.0 * o.min_logprob
            || silent && !self.worded;
        !invented
    }
}

/// How a text made once looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    Fine,
    /// The model is not sure of it.
    Unsure,
    /// It repeats itself or does not end.
    Looped,
}

/// One way to go on.
#[derive(Default)]
struct Draft {
    tokens: Vec<u32>,
    open: bool,
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
#[derive(Clone, Copy)]
pub(super) struct WindowDecoder<'a> {
    pub(super) model: &'a LoadedSpeech,
    pub(super) words: &'a Vocabulary,
    pub(super) options: &'a Options,
    /// Seconds of an encoder state.
    pub(super) step: f32,
    /// The most tokens that are sampled.
    pub(super) limit: usize,
    /// A text ends where it has said a thing twice in a row.
    pub(super) hasty: bool,
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
        let first = self.options.temperatures.first().copied().unwrap_or(0.0);
        let found = self.once(state, previous, language, first, cancel).await?;
        self.improve(state, found, previous, language, cancel).await
    }

    /// As [`WindowDecoder::decode`] after `shown`, which begins with `hot` and goes on with what was said before; where the text looks
    /// wrong or says that again, after `hot` alone. Whether what was said before did no harm comes with it.
    ///
    /// A model that is shown a thing likes to say it: loops that no temperature leaves come of it, and sentences that nobody said.
    pub(super) async fn freely(
        &self,
        state: &mut SpeechState,
        hot: &[u32],
        shown: &[u32],
        language: Option<u32>,
        cancel: &CancelToken,
    ) -> Result<(Decoded, bool)> {
        let first = self.options.temperatures.first().copied().unwrap_or(0.0);
        let found = self.once(state, shown, language, first, cancel).await?;
        let text = |tokens: &[u32]| -> Vec<u32> {
            let words = tokens.iter().copied();
            words.filter(|&id| id < self.words.end).collect()
        };
        let said = text(&found.tokens);
        if !found.wrong(self.options) && !echoes(&said, &text(shown)) {
            return Ok((found, true));
        }
        let alone = self.once(state, hot, language, first, cancel).await?;
        let same = text(&alone.tokens) == said;
        if !found.wrong(self.options) && (same || alone.wrong(self.options)) {
            return Ok((found, true));
        }
        let alone = self.improve(state, alone, hot, language, cancel);
        Ok((alone.await?, false))
    }

    /// Decodes the clip in `state` again with the next temperatures, as long as `found`, what the first one gave, looks wrong.
    pub(super) async fn improve(
        &self,
        state: &mut SpeechState,
        found: Decoded,
        previous: &[u32],
        language: Option<u32>,
        cancel: &CancelToken,
    ) -> Result<Decoded> {
        let o = self.options;
        let mut last = found;
        let mut better = last.wrong(o);
        for &temperature in o.temperatures.iter().skip(1) {
            if !better {
                break;
            }
            let found = self
                .once(state, previous, language, temperature, cancel)
                .await?;
            better = found.wrong(o);
            // The later, hotter result is not always the better one.
            let repeats = found.compression > o.max_compression;
            if !(repeats && last.compression < found.compression) {
                last = found;
            }
        }
        Ok(last)
    }

    /// Decodes the `clips` clips in `state` side by side with the first temperature; which of them have to be improved on.
    pub(super) async fn together(
        &self,
        state: &mut SpeechState,
        clips: usize,
        previous: &[u32],
        language: Option<u32>,
        cancel: &CancelToken,
    ) -> Result<Vec<(Decoded, bool)>> {
        let first = self.options.temperatures.first().copied().unwrap_or(0.0);
        let all = self
            .all(state, clips, previous, language, first, cancel)
            .await?;
        let wrong = |d: Decoded| {
            let wrong = d.wrong(self.options);
            (d, wrong)
        };
        Ok(all.into_iter().map(wrong).collect())
    }

    /// Decodes the clip in `state` greedily, once, and says how the result looks. Where it says a thing twice in a row it is given up.
    pub(super) async fn try_once(
        &self,
        state: &mut SpeechState,
        previous: &[u32],
        language: Option<u32>,
        cancel: &CancelToken,
    ) -> Result<(Decoded, Looks)> {
        let o = self.options;
        let hasty = WindowDecoder {
            hasty: true,
            ..*self
        };
        let found = hasty.once(state, previous, language, 0.0, cancel).await?;
        // A sentence said twice compresses well enough to pass for a text.
        let repeats = found.compression > o.max_compression || twice(&found.tokens);
        let looks = match repeats || found.tokens.len() >= self.limit {
            true => Looks::Looped,
            false if found.wrong(o) => Looks::Unsure,
            false => Looks::Fine,
        };
        Ok((found, looks))
    }

    async fn once(
        &self,
        state: &mut SpeechState,
        previous: &[u32],
        language: Option<u32>,
        temperature: f32,
        cancel: &CancelToken,
    ) -> Result<Decoded> {
        let all = self.all(state, 1, previous, language, temperature, cancel);
        Ok(all.await?.pop().unwrap_or_default())
    }

    /// Decodes the `clips` clips in `state`.
    async fn all(
        &self,
        state: &mut SpeechState,
        clips: usize,
        previous: &[u32],
        language: Option<u32>,
        temperature: f32,
        cancel: &CancelToken,
    ) -> Result<Vec<Decoded>> {
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
        let each = if drawn {
            self.options.best_of.max(1)
        } else {
            1
        };
        // Sequence i hears clip i modulo their number.
        let many = clips * each;
        state.sequences(many)?;
        let sequences = 0..many as u32;
        let listed = sequences.clone().flat_map(|clip| {
            let own = (0..).zip(&prompt);
            own.map(move |(position, &id)| Token { clip, position, id })
        });
        let listed: Vec<Token> = listed.collect();
        let at = |s: u32, place: u32| s * (last + 1) + place;
        let starts = (0..clips as u32).map(|s| at(s, start));
        let wanted: Vec<u32> = starts.chain(sequences.map(|s| at(s, last))).collect();
        let mut logits = state.step(&listed, &wanted).await?;
        let size = self.words.size.max(1);
        let no_speech = |at_start: &[f32]| match self.words.no_speech {
            Some(id) => (at_start.get(id as usize)).map_or(0.0, |v| (v - log_sum(at_start)).exp()),
            None => 0.0,
        };
        let silence: Vec<f32> = logits
            .chunks_exact(size)
            .take(clips)
            .map(no_speech)
            .collect();
        logits.drain(..(clips * size).min(logits.len()));
        let seed = self.options.seed ^ 0x9e37_79b9_7f4a_7c15 ^ u64::from(temperature.to_bits());
        let draft = |i: u64| Draft {
            draw: Draw(seed.wrapping_add(i << 32)),
            ..Draft::default()
        };
        let mut drafts: Vec<Draft> = (0..many as u64).map(draft).collect();
        let first_time = (self.options.max_first_time / self.step) as u32;
        // The drafts whose logits the rows are.
        let mut rows: Vec<usize> = (0..many).collect();
        for count in 1..=most.min(self.limit).min(context - prompt.len()) {
            if cancel.heard().await {
                return Err(Error::Cancelled);
            }
            for (&row, logits) in rows.iter().zip(logits.chunks_exact_mut(size)) {
                self.next(&mut drafts[row], logits, temperature, first_time);
            }
            let position = last + count as u32;
            if drafts.iter().all(|d| d.done) || position as usize >= context {
                break;
            }
            rows = going_on(&drafts, rows.len());
            let next = rows.iter().map(|&row| Token {
                clip: row as u32,
                position,
                id: drafts[row].tokens.last().copied().unwrap_or(self.words.end),
            });
            let next: Vec<Token> = next.collect();
            let wanted: Vec<u32> = (0..rows.len() as u32).collect();
            logits = state.step(&next, &wanted).await?;
        }
        let likely = |d: &Draft| d.sum / d.tokens.len().max(1) as f32;
        let mut best: Vec<Option<Draft>> = (0..clips).map(|_| None).collect();
        for (i, draft) in drafts.into_iter().enumerate() {
            let slot = &mut best[i % clips];
            if slot.as_ref().is_none_or(|b| likely(&draft) > likely(b)) {
                *slot = Some(draft);
            }
        }
        let decoded = best.into_iter().zip(silence).map(|(draft, no_speech)| {
            let draft = draft.unwrap_or_default();
            let text = self.text(&draft.tokens);
            Decoded {
                logprob: draft.sum / (draft.tokens.len() + 1) as f32,
                no_speech,
                compression: compression(&text),
                temperature,
                worded: text.chars().any(char::is_alphanumeric),
                probabilities: draft.probabilities,
                open: draft.open,
                tokens: draft.tokens,
            }
        });
        Ok(decoded.collect())
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
            let last = draft.tokens.last();
            draft.open = timed && last.is_some_and(|&id| !self.words.is_time(id));
            return;
        }
        draft.tokens.push(id);
        if self.options.word_timestamps {
            let probability = found.map_or(0.0, |v| (v - words).exp().min(1.0));
            draft.probabilities.push(probability);
        }
        draft.done = self.hasty && twice(&draft.tokens);
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

/// Whether the last four tokens or more were said just before them, too.
fn twice(tokens: &[u32]) -> bool {
    let n = tokens.len();
    (4..=n / 2).any(|period| tokens[n - 2 * period..n - period] == tokens[n - period..])
}

/// Whether [`ECHO`] tokens of `said` stand in `before`, too.
fn echoes(said: &[u32], before: &[u32]) -> bool {
    let mut runs = said.windows(ECHO);
    runs.any(|run| before.windows(ECHO).any(|b| b == run))
}

/// Tokens in a row that are said again by chance now and then, and more of them hardly ever.
const ECHO: usize = 6;

/// The drafts of the next step, at most `rows`: those that are not done, and so many others, which go on with what changes nothing, that
/// there are only a few shapes of steps: powers of two.
fn going_on(drafts: &[Draft], rows: usize) -> Vec<usize> {
    let live = drafts.iter().filter(|d| !d.done).count();
    let room = live.next_power_of_two().min(rows);
    let mut spare = room.saturating_sub(live);
    let mut kept = Vec::with_capacity(room);
    for (i, draft) in drafts.iter().enumerate() {
        if !draft.done {
            kept.push(i);
        } else if spare > 0 {
            spare -= 1;
            kept.push(i);
        }
    }
    kept
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
    fn a_thing_said_twice_in_a_row_is_noticed() {
        assert!(twice(&[9, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5]));
        assert!(twice(&[1, 2, 3, 4, 1, 2, 3, 4]));
        assert!(!twice(&[1, 2, 3, 4, 7, 1, 2, 3, 4]), "not in a row");
        assert!(!twice(&[1, 2, 3, 1, 2, 3]), "very, very");
        assert!(!twice(&[]) && !twice(&[1]));
        // One token over and over.
        assert!(twice(&[1; 8]) && !twice(&[1; 7]));
    }

    #[test]
    fn what_was_said_before_is_recognised() {
        let before = [9, 1, 2, 3, 4, 5, 6, 7, 8];
        assert!(echoes(&[0, 2, 3, 4, 5, 6, 7, 0], &before));
        assert!(!echoes(&[0, 2, 3, 4, 5, 6, 0, 7, 8], &before));
        assert!(!echoes(&[1, 2, 3, 4, 5], &before) && !echoes(&before, &[]));
    }

    #[test]
    fn steps_have_a_few_shapes() {
        let drafts = |done: &str| -> Vec<Draft> {
            let draft = |c| Draft {
                done: c == 'x',
                ..Draft::default()
            };
            done.chars().map(draft).collect()
        };
        assert_eq!(going_on(&drafts("....."), 5), [0, 1, 2, 3, 4]);
        assert_eq!(going_on(&drafts("x.x.."), 5), [0, 1, 3, 4]);
        assert_eq!(going_on(&drafts("xx.xx"), 4), [2]);
        assert_eq!(going_on(&drafts(".xx.x"), 2), [0, 3]);
    }

    #[test]
    fn tones_are_no_speech_and_noisy_speech_is() {
        let o = Options::default();
        let of = |no_speech, logprob, worded| Decoded {
            no_speech,
            logprob,
            worded,
            ..Decoded::default()
        };
        // What whisper-tiny.en makes of a sweep, a tone of 440 Hz, and beeps.
        assert!(!of(0.53, -2.41, true).speech(&o));
        assert!(!of(0.41, -2.87, true).speech(&o));
        assert!(!of(0.86, -0.94, false).speech(&o));
        // OpenAI's own rule.
        assert!(!of(0.7, -1.1, true).speech(&o));
        assert!(of(0.7, -0.9, true).speech(&o));
        assert!(of(0.5, -1.5, true).speech(&o));
        assert!(of(0.1, -3.0, true).speech(&o));
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
