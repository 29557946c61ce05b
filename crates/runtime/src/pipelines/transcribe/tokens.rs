//! What the special tokens of a Whisper vocabulary are, and which ones may come next.

use crate::speech::LoadedSpeech;
use crate::{Error, Result};
use firelight_text::Tokenizer;
use serde_json::Value;

/// Ids of one model's vocabulary.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// `<|startoftranscript|>`.
    pub start: u32,
    /// `<|endoftext|>`; ids below it are text.
    pub end: u32,
    /// `<|transcribe|>` and `<|translate|>`; `None`: the model knows one language and one task.
    pub tasks: Option<(u32, u32)>,
    /// `<|startofprev|>`, before what was said earlier.
    pub previous: Option<u32>,
    /// `<|nospeech|>`.
    pub no_speech: Option<u32>,
    /// `<|notimestamps|>`.
    pub no_timestamps: u32,
    /// The first timestamp, 0 s.
    pub timestamps: u32,
    /// Languages by their codes.
    pub languages: Vec<(String, u32)>,
    /// Ids that never come.
    pub suppressed: Vec<u32>,
    /// Ids that do not come first.
    pub suppressed_first: Vec<u32>,
    /// All ids.
    pub size: usize,
}

impl Vocabulary {
    /// The vocabulary of a model.
    ///
    /// # Errors
    /// `Malformed` if its tokenizer has not the tokens that Whisper's have.
    pub fn of(model: &LoadedSpeech) -> Result<Self> {
        let tokenizer = &model.text.tokenizer;
        let find = |piece: &str| tokenizer.token_to_id(piece);
        let need = |piece: &str| {
            find(piece).ok_or_else(|| {
                Error::malformed(
                    "tokenizer.json",
                    format!("no token `{piece}`; is it Whisper's?"),
                )
            })
        };
        let spec = model.model.spec();
        let (start, end) = (need("<|startoftranscript|>")?, need("<|endoftext|>")?);
        let no_timestamps = need("<|notimestamps|>")?;
        // Vocabularies of English models have the tokens of the languages, too, which these models never saw.
        let multilingual = match model
            .checkpoint
            .generation_config()
            .and_then(|g| g.get("is_multilingual"))
        {
            Some(Value::Bool(yes)) => *yes,
            _ => start >= 50_258 || spec.decoder.vocab < 50_000,
        };
        let (transcribe, translate) = (find("<|transcribe|>"), find("<|translate|>"));
        let languages = |id: u32| {
            let code = tokenizer
                .id_to_piece(id)?
                .strip_prefix("<|")?
                .strip_suffix("|>")?;
            ((2..=3).contains(&code.len())).then(|| (code.to_owned(), id))
        };
        let list = |key: &str| -> Vec<u32> {
            let found = model
                .checkpoint
                .generation_config()
                .and_then(|g| g.get(key));
            let ids = found.and_then(Value::as_array).into_iter().flatten();
            ids.filter_map(|v| u32::try_from(v.as_u64()?).ok())
                .collect()
        };
        let previous = find("<|startofprev|>");
        let no_speech = find("<|nospeech|>").or_else(|| find("<|nocaptions|>"));
        let named = model.checkpoint.generation_config();
        let mut suppressed = match named.and_then(|g| g.get("suppress_tokens")) {
            Some(Value::Array(_)) => list("suppress_tokens"),
            _ => not_spoken(tokenizer)?,
        };
        suppressed.push(start);
        suppressed.extend(
            [
                transcribe,
                translate,
                previous,
                no_speech,
                find("<|startoflm|>"),
            ]
            .into_iter()
            .flatten(),
        );
        let mut suppressed_first = list("begin_suppress_tokens");
        if suppressed_first.is_empty() {
            suppressed_first.extend(tokenizer.encode(" ", false)?.first());
            suppressed_first.push(end);
        }
        Ok(Vocabulary {
            start,
            end,
            tasks: transcribe.zip(translate).filter(|_| multilingual),
            previous,
            no_speech,
            no_timestamps,
            timestamps: no_timestamps + 1,
            languages: match multilingual {
                true => (start + 1..no_timestamps).map_while(languages).collect(),
                false => Vec::new(),
            },
            suppressed,
            suppressed_first,
            size: spec.decoder.vocab,
        })
    }

    /// True for a timestamp.
    pub fn is_time(&self, id: u32) -> bool {
        id >= self.timestamps
    }

    /// Makes impossible in `logits` `[V]` what may not follow `sampled`, the tokens sampled so far; `timed`: there are timestamps,
    /// the first of which is at most `first_time` steps.
    ///
    /// Source: `SuppressBlank`, `SuppressTokens` and `ApplyTimestampRules` in OpenAI's `decoding.py`.
    pub fn rule(&self, logits: &mut [f32], sampled: &[u32], timed: bool, first_time: u32) {
        let none = f32::NEG_INFINITY;
        let mut never = |ids: &[u32]| {
            for &id in ids {
                if let Some(v) = logits.get_mut(id as usize) {
                    *v = none;
                }
            }
        };
        never(&self.suppressed);
        never(&[self.no_timestamps]);
        if sampled.is_empty() {
            never(&self.suppressed_first);
        }
        let times = (self.timestamps as usize).min(logits.len());
        let (text, time) = logits.split_at_mut(times);
        if !timed {
            time.fill(none);
            return;
        }
        let is_time = |back: usize| {
            let at = sampled.len().checked_sub(back);
            at.and_then(|at| sampled.get(at))
                .map(|&id| self.is_time(id))
        };
        let last = is_time(1) == Some(true);
        // Two in a row, or one at the very beginning.
        let pair = is_time(2) != Some(false);
        if last && pair {
            time.fill(none);
        } else if last {
            let end = (self.end as usize).min(text.len());
            text[..end].fill(none);
        }
        // Time does not go back; a segment has a length.
        if let Some(&id) = sampled.iter().rev().find(|&&id| self.is_time(id)) {
            let open = last && !pair;
            let from = (id - self.timestamps) as usize + usize::from(!open);
            let from = from.min(time.len());
            time[..from].fill(none);
        }
        if sampled.is_empty() {
            text.fill(none);
            let after = (first_time as usize + 1).min(time.len());
            time[after..].fill(none);
        }
        // If a timestamp is likelier than any word, it is one.
        let top = |list: &[f32]| list.iter().fold(none, |m, &v| m.max(v));
        let (best, high) = (top(text), top(time));
        if high == none {
            return;
        }
        let sum: f32 = time.iter().map(|v| (v - high).exp()).sum();
        if high + sum.ln() > best {
            text.fill(none);
        }
    }
}

/// Symbols that nobody says and that transcripts have around what is no speech: `non_speech_tokens` in OpenAI's `tokenizer.py`.
fn not_spoken(tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let single = "\"#()*+/:;<=>@[\\]^_`{|}~「」『』";
    let several = "<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
    // Their first tokens, even where they are several.
    let notes = "♩♪♫♬♭♮♯";
    let mut found = Vec::new();
    let mut add = |text: &str, always: bool| -> Result<()> {
        let ids = tokenizer.encode(text, false)?;
        if always || ids.len() == 1 {
            found.extend(ids.first());
        }
        Ok(())
    };
    add(" -", true)?;
    add(" '", true)?;
    let symbols = single.chars().map(String::from);
    let symbols = symbols.chain(several.split(' ').map(str::to_owned));
    let symbols = symbols.map(|s| (s, false));
    for (symbol, always) in symbols.chain(notes.chars().map(|c| (c.into(), true))) {
        add(&symbol, always)?;
        add(&format!(" {symbol}"), always)?;
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The logarithm of the sum of the exponentials of `logits`.
pub(super) fn log_sum(logits: &[f32]) -> f32 {
    let top = logits.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
    if top == f32::NEG_INFINITY {
        return top;
    }
    let sum: f64 = logits.iter().map(|v| f64::from((v - top).exp())).sum();
    top + sum.ln() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text 0…9, end 10, start 11, no_timestamps 12, times 13…32.
    fn vocabulary() -> Vocabulary {
        Vocabulary {
            start: 11,
            end: 10,
            tasks: None,
            previous: None,
            no_speech: None,
            no_timestamps: 12,
            timestamps: 13,
            languages: Vec::new(),
            suppressed: vec![3, 11],
            suppressed_first: vec![0, 10],
            size: 33,
        }
    }

    fn allowed(sampled: &[u32], timed: bool, logits: impl Fn(usize) -> f32) -> Vec<usize> {
        let mut all: Vec<f32> = (0..33).map(logits).collect();
        vocabulary().rule(&mut all, sampled, timed, 5);
        (0..33).filter(|&i| all[i] > f32::NEG_INFINITY).collect()
    }

    /// Words are likelier than all times together.
    fn words(i: usize) -> f32 {
        if i < 13 { 9.0 } else { 0.0 }
    }

    #[test]
    fn a_transcript_begins_with_an_early_time() {
        assert_eq!(allowed(&[], true, words), (13..=18).collect::<Vec<_>>());
        assert_eq!(allowed(&[], false, words), [1, 2, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn times_come_in_pairs_and_go_forward() {
        let text: Vec<usize> = vec![0, 1, 2, 4, 5, 6, 7, 8, 9, 10];
        // After the opening time: text, or the end.
        assert_eq!(allowed(&[14], true, words), text);
        // In the text: text, the end, or a later time.
        let later: Vec<usize> = text.iter().copied().chain(15..33).collect();
        assert_eq!(allowed(&[14, 5], true, words), later);
        // After the closing time: the same again, a later one, or the end; no text.
        let next: Vec<usize> = std::iter::once(10).chain(20..33).collect();
        assert_eq!(allowed(&[14, 5, 20], true, words), next);
        // After both: text.
        assert_eq!(allowed(&[14, 5, 20, 20], true, words), text);
    }

    #[test]
    fn a_likely_time_excludes_words() {
        let times = |i: usize| if i < 13 { 1.0 } else { 0.5 };
        assert_eq!(allowed(&[14, 5], true, times), (15..33).collect::<Vec<_>>());
    }

    #[test]
    fn sums_of_exponentials() {
        assert!((log_sum(&[0.0; 8]) - 8f32.ln()).abs() < 1e-6);
        assert!((log_sum(&[1000.0, f32::NEG_INFINITY]) - 1000.0).abs() < 1e-6);
        assert_eq!(log_sum(&[f32::NEG_INFINITY; 2]), f32::NEG_INFINITY);
    }
}
