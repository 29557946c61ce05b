//! Token classification: names of people, places, things, and where in the text they stand.
//!
//! A text is cut into words (at white space, and around each punctuation mark, as BERT's tokenizer does); a word takes the
//! label of its first token, neighbouring words of one entity become a span. `B-` begins an entity, `I-` goes on with it; without
//! these prefixes neighbours with the same label belong together. Offsets are of the text as it was given, in bytes and in
//! characters. A long text is read in windows that overlap; each word is taken from the window in which it has the most around it.
//! Source: `TokenClassificationPipeline` in transformers with the aggregation `first`.

use crate::encoder::{EncoderRun, Head, LoadedEncoder, Tokens, Want};
use crate::engine::Engine;
use crate::pipelines::classify::{label_names, softmax};
use crate::source::CancelToken;
use crate::{Error, Result};
use std::ops::Range;

/// How entities are looked for.
#[derive(Clone, Debug, Default)]
pub struct NerOptions {
    /// Tokens of a window, special ones counted; `None`: the model's positions.
    pub max_tokens: Option<usize>,
    /// Tokens of a batch; `None`: what suits the device.
    pub batch_tokens: Option<usize>,
    /// Ends the work early.
    pub cancel: CancelToken,
}

/// One entity.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Entity {
    /// Its kind, without `B-` and `I-`.
    pub label: String,
    /// The mean probability of its words' labels.
    pub score: f32,
    /// Its words as they stand in the text.
    pub text: String,
    /// First byte and one past the last.
    pub bytes: Range<usize>,
    /// First character and one past the last.
    pub chars: Range<usize>,
}

/// A model with a head for tokens, on a device.
pub struct Ner {
    run: EncoderRun,
    labels: Vec<String>,
}

/// The tokens of a text, each with the number of its word.
struct Words {
    ranges: Vec<Range<usize>>,
    ids: Vec<u32>,
    /// Where each word's tokens begin; one more than there are words.
    starts: Vec<usize>,
}

impl Ner {
    /// Loads a model's folder onto the engine's device. `progress` gets bytes loaded and bytes in all.
    ///
    /// # Errors
    /// As [`Engine::load_encoder`], and `Unsupported` for a model without a head for tokens.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn load(
        engine: &Engine,
        path: impl AsRef<std::path::Path>,
        progress: &mut (dyn FnMut(u64, u64) + '_),
    ) -> Result<Self> {
        let model = engine.load_encoder(path, progress).await?;
        Ner::new(engine, model)
    }

    /// A tagger of a model that `engine` loaded.
    ///
    /// # Errors
    /// `Unsupported` for a model without a head for tokens.
    pub fn new(engine: &Engine, model: LoadedEncoder) -> Result<Self> {
        let Head::Tokens(n) = model.model.spec().head else {
            return Err(Error::Unsupported(format!(
                "{}: no head for tokens; `architectures` says …ForTokenClassification where there is one",
                model.checkpoint.root().display()
            )));
        };
        Ok(Ner {
            labels: label_names(&model, n),
            run: EncoderRun::new(engine, model),
        })
    }

    /// The names of the labels.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The entities of each text, in their order.
    ///
    /// # Errors
    /// `InvalidInput` for a window with no room, `Text` for text the tokenizer refuses, or what [`EncoderRun::run`] gives.
    pub async fn entities<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &NerOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Vec<Entity>>> {
        let model = self.run.model();
        let (before, after) = model.text.tokenizer.around();
        let context = model.model.spec().context;
        let max = options.max_tokens.unwrap_or(context).min(context);
        let room = max.saturating_sub(before + after);
        if room < 4 {
            return Err(Error::invalid(format!(
                "windows of {max} tokens, of which the tokenizer's own take {}; there has to be room for 4",
                before + after
            )));
        }
        let around = model.text.tokenizer.encode_plain("", true)?;
        let (head, tail) = around.split_at(before.min(around.len()));
        let mut all = Vec::with_capacity(texts.len());
        let (mut windows, mut inputs) = (Vec::new(), Vec::new());
        for (text, content) in texts.iter().enumerate() {
            let words = words(&model, content.as_ref())?;
            for window in cut(words.ids.len(), room) {
                let ids = [head, &words.ids[window.clone()], tail].concat();
                inputs.push(Tokens {
                    ids,
                    types: Vec::new(),
                });
                windows.push((text, window));
            }
            all.push(words);
        }
        let batch = options
            .batch_tokens
            .unwrap_or_else(|| self.run.batch_tokens());
        let logits = self
            .run
            .run(&inputs, Want::Logits, batch, &options.cancel, progress)
            .await?;
        // The logits of each text's tokens, from the window in which a token is farthest from an end.
        let n = self.labels.len();
        let mut best: Vec<Vec<Seen<'_>>> = all.iter().map(|w| vec![None; w.ids.len()]).collect();
        for ((text, window), logits) in windows.iter().zip(&logits) {
            let rows = logits.chunks_exact(n).skip(before);
            for (at, row) in window.clone().zip(rows) {
                let margin = (at - window.start).min(window.end - 1 - at);
                let place = &mut best[*text][at];
                if place.is_none_or(|(known, _)| margin > known) {
                    *place = Some((margin, row));
                }
            }
        }
        let results = texts.iter().zip(&all).zip(&best);
        Ok(results
            .map(|((text, words), best)| {
                let tagged = words.ranges.iter().enumerate().filter_map(|(i, range)| {
                    let (_, logits) = (*best.get(*words.starts.get(i)?)?)?;
                    let p = softmax(logits);
                    let top = p.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
                    Some((range.clone(), self.labels.get(top.0)?.as_str(), *top.1))
                });
                spans(text.as_ref(), tagged)
            })
            .collect())
    }
}

/// A token's distance to the nearer end of its window, and its logits there; `None`: not met yet.
type Seen<'a> = Option<(usize, &'a [f32])>;

/// Windows of `room` tokens over `n`, half overlapping.
fn cut(n: usize, room: usize) -> Vec<Range<usize>> {
    let (mut start, mut windows) = (0, Vec::new());
    while start < n {
        let end = (start + room).min(n);
        windows.push(start..end);
        if end == n {
            break;
        }
        start = end - room / 2;
    }
    windows
}

/// Words and their tokens; words the tokenizer makes nothing of (control characters) are left out.
fn words(model: &LoadedEncoder, text: &str) -> Result<Words> {
    let mut words = Words {
        ranges: Vec::new(),
        ids: Vec::new(),
        starts: Vec::new(),
    };
    for range in split(text) {
        let ids = model
            .text
            .tokenizer
            .encode_plain(&text[range.clone()], false)?;
        if !ids.is_empty() {
            words.starts.push(words.ids.len());
            words.ids.extend(ids);
            words.ranges.push(range);
        }
    }
    Ok(words)
}

/// Byte ranges of words: runs between white space; a punctuation mark or an ideograph is a word.
fn split(text: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices() {
        let alone = !c.is_alphanumeric() && !is_mark(c) || is_ideograph(c);
        if c.is_whitespace() || alone {
            if let Some(start) = start.take() {
                ranges.push(start..at);
            }
            if !c.is_whitespace() {
                ranges.push(at..at + c.len_utf8());
            }
        } else if start.is_none() {
            start = Some(at);
        }
    }
    if let Some(start) = start {
        ranges.push(start..text.len());
    }
    ranges
}

/// Combining marks and the joiners between letters.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}'
        | '\u{200c}' | '\u{200d}' | '\u{ad}')
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{2fa1f}')
}

/// Neighbouring words of one entity as spans.
fn spans<'a>(text: &str, words: impl Iterator<Item = (Range<usize>, &'a str, f32)>) -> Vec<Entity> {
    let mut open: Option<(String, Range<usize>, f32, usize)> = None;
    let mut found = Vec::new();
    for (range, tag, score) in words {
        let (begins, label) = match tag.split_once(['-', '_']) {
            Some(("B", label)) => (true, label),
            Some(("I" | "E" | "L" | "M", label)) => (false, label),
            Some(("S" | "U", label)) => (true, label),
            _ => (false, tag),
        };
        let outside = label == "O";
        match &mut open {
            Some((known, bytes, sum, n)) if !outside && !begins && known == label => {
                bytes.end = range.end;
                *sum += score;
                *n += 1;
            }
            _ => {
                found.extend(open.take());
                if !outside {
                    open = Some((label.to_owned(), range, score, 1));
                }
            }
        }
    }
    found.extend(open);
    let (mut byte, mut char) = (0, 0);
    let mut chars_to = |to: usize| {
        char += text.get(byte..to).map_or(0, |s| s.chars().count());
        byte = to;
        char
    };
    found
        .into_iter()
        .map(|(label, bytes, sum, n)| Entity {
            label,
            score: sum / n as f32,
            text: text.get(bytes.clone()).unwrap_or_default().to_owned(),
            chars: chars_to(bytes.start)..chars_to(bytes.end),
            bytes,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_where_they_stand() {
        let text = "Zoë's  café,\n東京 (1st)!";
        let words: Vec<&str> = split(text).into_iter().map(|r| &text[r]).collect();
        assert_eq!(
            words,
            [
                "Zoë", "'", "s", "café", ",", "東", "京", "(", "1st", ")", "!"
            ]
        );
        assert!(split(" \t").is_empty());
    }

    #[test]
    fn neighbours_become_spans_with_their_offsets() {
        let text = "Zoë Ba met Al in Ulm Rom";
        let tags = ["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC", "B-LOC"];
        let words = split(text);
        let found = spans(text, words.into_iter().zip(tags).map(|(r, t)| (r, t, 0.5)));
        let short: Vec<_> = found
            .iter()
            .map(|e| {
                (
                    e.label.as_str(),
                    e.text.as_str(),
                    e.chars.clone(),
                    e.bytes.start,
                )
            })
            .collect();
        assert_eq!(
            short,
            [
                ("PER", "Zoë Ba", 0..6, 0),
                ("PER", "Al", 11..13, 12),
                ("LOC", "Ulm", 17..20, 18),
                ("LOC", "Rom", 21..24, 22)
            ]
        );
        let plain = spans(
            "a b c",
            split("a b c")
                .into_iter()
                .zip(["X", "X", "O"])
                .map(|(r, t)| (r, t, 1.0)),
        );
        assert_eq!((plain.len(), plain[0].text.as_str()), (1, "a b"));
        // An `I-` of another kind is another entity.
        let other = spans(
            "a b",
            split("a b")
                .into_iter()
                .zip(["B-X", "I-Y"])
                .map(|(r, t)| (r, t, 1.0)),
        );
        assert_eq!(other.len(), 2);
    }

    #[test]
    fn windows_cover_everything() {
        assert_eq!(cut(5, 8).as_slice(), std::slice::from_ref(&(0..5)));
        assert_eq!(cut(20, 8), [0..8, 4..12, 8..16, 12..20]);
        assert!(cut(0, 8).is_empty());
    }
}
