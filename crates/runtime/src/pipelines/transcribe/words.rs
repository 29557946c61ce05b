//! Times of words, by aligning a window's tokens with where the decoder looked.
//!
//! Source: `whisper/timing.py` of OpenAI's whisper: the same words, the same joining of punctuation, the same bound on the length of
//! words at the ends of sentences.

use super::window::WindowDecoder;
use super::{Segment, Word};
use crate::Result;
use crate::speech::SpeechState;
use serde_json::Value;

/// The median along time, in states.
const WIDTH: usize = 7;
/// Joined to the word after them.
const BEFORE: &str = "\"'“¿([{-";
/// Joined to the word before them.
const AFTER: &str = "\"'.。,，!！?？:：”)]}、";
/// Ends of sentences.
const SENTENCES: &str = ".。!！?？";
/// Languages written without spaces.
const UNSPACED: [&str; 6] = ["zh", "ja", "th", "lo", "my", "yue"];

/// A word's text, tokens and place in states.
struct Found {
    text: String,
    tokens: usize,
    start: f64,
    end: f64,
    probability: f32,
}

/// What of a window is needed beside its segments.
pub(super) struct Heard<'a> {
    /// Which of the encoded clips it is.
    pub(super) clip: usize,
    pub(super) language: Option<u32>,
    /// The language's code.
    pub(super) code: &'a str,
    /// Samples of the window that are sound, and samples of a state.
    pub(super) length: (usize, usize),
    /// Probabilities of the segments' tokens, one segment after the other.
    pub(super) probabilities: &'a [f32],
    /// Where the window begins, s.
    pub(super) offset: f64,
    /// Where the last word before it ended, s.
    pub(super) before: f64,
}

/// Puts words into the segments of a window and gives the end of the last one, s.
pub(super) async fn add(
    decoder: &WindowDecoder<'_>,
    state: &mut SpeechState,
    heard: Heard<'_>,
    segments: &mut [Segment],
) -> Result<Option<f64>> {
    let end = decoder.words.end;
    let all = segments.iter().flat_map(|s| &s.tokens).copied();
    let probable = heard.probabilities.iter().copied();
    let (text, probable): (Vec<u32>, Vec<f32>) = all
        .zip(probable.chain(std::iter::repeat(0.0)))
        .filter(|(id, _)| *id < end)
        .unzip();
    let Some((starts, states)) = starts(decoder, state, &heard, &text).await? else {
        return Ok(None);
    };
    let seconds = |state: usize| state as f64 * f64::from(decoder.step);
    let mut words = Vec::new();
    let mut at = 0;
    for (word, n) in split(decoder, &text, UNSPACED.contains(&heard.code)) {
        let place = |i: usize| starts.get(i).copied().unwrap_or(states);
        let own = probable.get(at..at + n).unwrap_or_default();
        words.push(Found {
            text: word,
            tokens: n,
            start: seconds(place(at)),
            end: seconds(place(at + n)),
            probability: own.iter().sum::<f32>() / n.max(1) as f32,
        });
        at += n;
    }
    let median = bound(&mut words);
    join(&mut words);
    let mut words = words.into_iter().peekable();
    let (mut last, mut before) = (None, heard.before);
    for segment in segments {
        let mut left = segment.tokens.iter().filter(|&&id| id < end).count();
        while let Some(word) = words.next_if(|w| left > 0 || w.tokens == 0) {
            left = left.saturating_sub(word.tokens);
            if word.text.is_empty() {
                continue;
            }
            segment.words.push(Word {
                text: word.text,
                start: heard.offset + word.start,
                end: heard.offset + word.end,
                probability: word.probability,
            });
        }
        fit(segment, median, before);
        if let Some(word) = segment.words.last() {
            (last, before) = (Some(word.end), segment.end);
        }
    }
    Ok(last)
}

/// Where the text of some of a window's tokens ends, in samples.
pub(super) async fn end(
    decoder: &WindowDecoder<'_>,
    state: &mut SpeechState,
    heard: &Heard<'_>,
    tokens: &[u32],
) -> Result<usize> {
    let text = tokens.iter().copied();
    let text: Vec<u32> = text.filter(|&id| id < decoder.words.end).collect();
    let (length, step) = heard.length;
    let found = starts(decoder, state, heard, &text).await?;
    let last = found.and_then(|(starts, _)| starts.get(text.len()).copied());
    Ok(last.map_or(length, |state| state * step))
}

/// The states where the tokens of a text begin, where it ends, and how many there are; `None` without a text or sound.
async fn starts(
    decoder: &WindowDecoder<'_>,
    state: &mut SpeechState,
    heard: &Heard<'_>,
    text: &[u32],
) -> Result<Option<(Vec<usize>, usize)>> {
    let (length, step) = heard.length;
    let states = (length / step.max(1)).min(state.states());
    if text.is_empty() || states == 0 {
        return Ok(None);
    }
    let mut tokens = decoder.task(heard.language);
    let first = tokens.len();
    tokens.push(decoder.words.no_timestamps);
    tokens.extend(text);
    tokens.push(decoder.words.end);
    let heads = heads(decoder, state);
    let aligned = state.align(heard.clip, &tokens, first, states, &heads, WIDTH);
    Ok(Some((aligned.await?.starts, states)))
}

/// A segment is where its words are, unless the words disagree with its times by much. `median` is the usual length of a word,
/// `before` where the last one ended.
fn fit(segment: &mut Segment, median: f64, before: f64) {
    let most = 2.0 * median;
    let (start, end) = (segment.start, segment.end);
    // After a pause the first two words are not longer than twice the usual: what is longer is the pause.
    if let [first, rest @ ..] = segment.words.as_mut_slice() {
        let second = rest.first_mut();
        let long = first.end - first.start > most
            || second
                .as_ref()
                .is_some_and(|w| w.end - first.start > 2.0 * most);
        if first.end - before > 4.0 * median && long {
            if let Some(second) = second.filter(|w| w.end - w.start > most) {
                let cut = (second.end / 2.0).max(second.end - most);
                (first.end, second.start) = (cut, cut);
            }
            first.start = (first.end - most).max(0.0);
        }
        if start < first.end && start - 0.5 > first.start {
            first.start = (first.end - median).min(start).max(0.0);
        } else {
            segment.start = first.start;
        }
    }
    if let Some(last) = segment.words.last_mut() {
        if end > last.start && end + 0.5 < last.end {
            last.end = (last.start + median).max(end);
        } else {
            segment.end = last.end;
        }
    }
}

/// The heads that follow the sound: what the model's files say, else those of the upper half of the decoder.
fn heads(decoder: &WindowDecoder<'_>, state: &SpeechState) -> Vec<(usize, usize)> {
    let config = decoder.model.checkpoint.generation_config();
    let list = config
        .and_then(|g| g.get("alignment_heads"))
        .and_then(Value::as_array);
    let pair = |v: &Value| {
        let [layer, head] = v.as_array()?.as_slice() else {
            return None;
        };
        Some((layer.as_u64()? as usize, head.as_u64()? as usize))
    };
    let named: Vec<_> = list.into_iter().flatten().filter_map(pair).collect();
    if !named.is_empty() {
        return named;
    }
    let (layers, heads) = (state.spec().decoder.layers.len(), state.spec().cross_heads);
    (layers / 2..layers)
        .flat_map(|l| (0..heads).map(move |h| (l, h)))
        .collect()
}

/// The words of some text tokens, and of how many tokens each is.
fn split(decoder: &WindowDecoder<'_>, tokens: &[u32], unspaced: bool) -> Vec<(String, usize)> {
    let mut words: Vec<(String, usize)> = Vec::new();
    let mut stream = decoder.model.text.tokenizer.stream(true);
    let mut waiting = 0;
    for &id in tokens {
        waiting += 1;
        // A character may be spread over tokens.
        let Some(piece) = stream.push(id) else {
            continue;
        };
        let alone = piece.trim();
        let mark = !alone.is_empty() && alone.chars().all(|c| c.is_ascii_punctuation());
        let new = unspaced || piece.starts_with(' ') || mark || words.is_empty();
        match words.last_mut().filter(|_| !new) {
            Some((word, n)) => {
                word.push_str(&piece);
                *n += waiting;
            }
            None => words.push((piece, waiting)),
        }
        waiting = 0;
    }
    if let Some((word, n)) = words.last_mut() {
        word.push_str(&stream.finish());
        *n += waiting;
    }
    words
}

/// True for a word that is one of these marks and nothing else.
fn alone(set: &str, word: &str) -> bool {
    !word.is_empty() && set.contains(word)
}

fn has(set: &str, word: &str) -> bool {
    let word = word.trim();
    !word.is_empty() && set.contains(word)
}

/// Around the ends of sentences words are not longer than twice the usual: what is longer is the pause. Gives the usual length, s.
fn bound(words: &mut [Found]) -> f64 {
    let lengths = words.iter().map(|w| w.end - w.start);
    let mut lengths: Vec<f64> = lengths.filter(|d| *d > 0.0).collect();
    lengths.sort_unstable_by(f64::total_cmp);
    let at = |i: usize| lengths.get(i).copied().unwrap_or(0.0);
    let n = lengths.len();
    let median = ((at(n.saturating_sub(1) / 2) + at(n / 2)) / 2.0).min(0.7);
    let most = 2.0 * median;
    for i in 1..words.len() {
        let after = alone(SENTENCES, &words[i - 1].text);
        let word = &mut words[i];
        if word.end - word.start > most {
            if alone(SENTENCES, &word.text) {
                word.end = word.start + most;
            } else if after {
                word.start = word.end - most;
            }
        }
    }
    median
}

/// Joins punctuation to the words it belongs to; what is joined is left without text.
fn join(words: &mut [Found]) {
    for i in (0..words.len().saturating_sub(1)).rev() {
        if words[i].text.starts_with(' ') && has(BEFORE, &words[i].text) {
            let text = std::mem::take(&mut words[i].text);
            let next = words.iter_mut().skip(i + 1).find(|w| !w.text.is_empty());
            if let Some(next) = next {
                next.text.insert_str(0, &text);
            }
        }
    }
    for i in 1..words.len() {
        if !words[i].text.starts_with(' ') && has(AFTER, &words[i].text) {
            let text = std::mem::take(&mut words[i].text);
            let before = words[..i].iter_mut().rfind(|w| !w.text.is_empty());
            if let Some(before) = before {
                before.text.push_str(&text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, start: f64, end: f64) -> Found {
        Found {
            text: text.into(),
            tokens: 1,
            start,
            end,
            probability: 0.5,
        }
    }

    #[test]
    fn punctuation_joins_words() {
        let mut words: Vec<Found> = [" \"", " Go", "!", "\"", " she", " said", ".", "-", "x"]
            .iter()
            .map(|t| found(t, 0.0, 1.0))
            .collect();
        join(&mut words);
        let texts: Vec<&str> = words
            .iter()
            .map(|w| w.text.as_str())
            .filter(|t| !t.is_empty())
            .collect();
        assert_eq!(texts, [" \" Go!\"", " she", " said.", "-", "x"]);
    }

    #[test]
    fn pauses_are_no_part_of_words() {
        let mut words = vec![
            found(" a", 0.0, 0.2),
            found(" b", 0.2, 0.4),
            found(".", 0.4, 3.0),
            found(" c", 3.0, 6.0),
            found(" d", 6.0, 6.2),
        ];
        // The lengths are 0.2 four times less one, 2.6 and 3.
        assert!((bound(&mut words) - 0.2).abs() < 1e-9);
        assert!((words[2].end - 0.8).abs() < 1e-9);
        assert!((words[3].start - 5.6).abs() < 1e-9);
        assert_eq!(words[1].end, 0.4);
        assert_eq!(bound(&mut []), 0.0);
    }

    #[test]
    fn segments_are_where_their_words_are() {
        let word = |text: &str, start, end| Word {
            text: text.into(),
            start,
            end,
            probability: 0.5,
        };
        let segment = |start, end, words: Vec<Word>| Segment {
            start,
            end,
            text: String::new(),
            tokens: Vec::new(),
            temperature: 0.0,
            logprob: 0.0,
            no_speech: 0.0,
            compression: 1.0,
            words,
        };
        // After a pause of 5 s a first word of 3 s began later.
        let mut s = segment(
            10.0,
            14.2,
            vec![word(" a", 10.0, 13.0), word(" b", 13.0, 14.0)],
        );
        fit(&mut s, 0.5, 5.0);
        assert_eq!((s.start, s.end), (12.0, 14.0));
        // Without one it did not.
        let mut s = segment(
            10.0,
            14.2,
            vec![word(" a", 10.0, 11.5), word(" b", 11.5, 14.0)],
        );
        fit(&mut s, 0.5, 9.9);
        assert_eq!((s.start, s.end), (10.0, 14.0));
        // The model's own end counts where the last word's lies far behind it.
        let mut s = segment(1.0, 2.0, vec![word(" a", 1.0, 1.5), word(" b", 1.5, 5.0)]);
        fit(&mut s, 0.5, 1.0);
        assert_eq!((s.end, s.words[1].end), (2.0, 2.0));
        fit(&mut segment(0.0, 1.0, Vec::new()), 0.5, 0.0);
    }
}
