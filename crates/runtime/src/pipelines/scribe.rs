//! Speech to a structured note: a transcript, and what a language model makes of it under a schema.
//!
//! The note is valid under the schema or there is none; both are kept, and for each of its texts and numbers is said which segments
//! of the transcript it comes from: those that share its words. Nothing that a model says is taken for the source of anything.
//!
//! Transcribing and writing are two models; a caller may drop the first before it loads the second.

use super::transcribe::Transcript;
use crate::session::{Event, GenerateOptions, Session};
use crate::source::CancelToken;
use crate::{Error, Result};
use firelight_text::{Grammar, Message};
use serde::Serialize;
use serde_json::{Value, json};

/// The note if the caller has no schema of its own.
pub fn default_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "title": { "type": "string", "maxLength": 80 },
            "summary": { "type": "string", "maxLength": 400 },
            "points": { "type": "array", "maxItems": 8, "items": { "type": "string", "maxLength": 160 } }
        },
        "required": ["title", "summary", "points"],
        "additionalProperties": false
    })
}

/// Where a field of a note comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceSpan {
    /// The field, as a JSON pointer: `/points/0`.
    pub field: String,
    /// Number of the transcript's segment.
    pub segment: usize,
    /// Where it begins, s.
    pub start: f64,
    /// Where it ends, s.
    pub end: f64,
    /// The part of the field's words that are said there, 0…1.
    pub share: f32,
}

/// A note with what it was made from.
#[derive(Clone, Debug, Serialize)]
pub struct Note {
    /// Valid under the schema.
    pub note: Value,
    /// Where its fields come from; a field of which no word was said has none.
    pub sources: Vec<SourceSpan>,
    /// What was said.
    pub transcript: Transcript,
}

/// Writes a note of `transcript` under `schema`. `instruction` says what the note is for; empty: a plain one is given.
///
/// # Errors
/// `Unfinished` if the model could not end the note in `options.max_tokens`, `Text` for a schema that is not served, and as
/// [`Session::chat`].
pub async fn write(
    session: &mut Session,
    transcript: Transcript,
    schema: &Value,
    instruction: &str,
    options: &GenerateOptions,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(Event),
) -> Result<Note> {
    let instruction = match instruction.trim() {
        "" => "Write a note of the following dictation as JSON. Use only what is said in it.",
        own => own,
    };
    let text = transcript.text();
    if text.trim().is_empty() {
        return Err(Error::invalid(
            "nothing was said in the recording: there is nothing to make a note of",
        ));
    }
    let fields = schema.get("properties").and_then(Value::as_object);
    let fields: Vec<&str> = fields
        .into_iter()
        .flatten()
        .map(|(k, _)| k.as_str())
        .collect();
    let asked = match fields.is_empty() {
        true => String::new(),
        false => format!(" Its fields: {}.", fields.join(", ")),
    };
    let messages = [Message::user(format!(
        "{instruction}{asked}\n\nDictation:\n{text}"
    ))];
    let options = GenerateOptions {
        grammar: Some(Grammar::JsonSchema(schema.clone())),
        ..options.clone()
    };
    let answer = session.chat(&messages, &options, cancel, on_event).await?;
    let note: Value = serde_json::from_str(&answer.text)
        .map_err(|e| Error::malformed("the note", format!("{e}: {}", answer.text)))?;
    Ok(Note {
        sources: sources(&note, &transcript),
        note,
        transcript,
    })
}

/// Where the fields of `note` come from: for each text or number the segments that hold its words, best first, at most three.
pub fn sources(note: &Value, transcript: &Transcript) -> Vec<SourceSpan> {
    let said: Vec<Vec<String>> = transcript.segments.iter().map(|s| words(&s.text)).collect();
    let mut found = Vec::new();
    leaves(note, String::new(), &mut |field, text| {
        let wanted = words(text);
        if wanted.is_empty() {
            return;
        }
        let mut best: Vec<(f32, usize)> = said
            .iter()
            .enumerate()
            .map(|(i, said)| {
                let hits = wanted.iter().filter(|w| said.contains(w)).count();
                (hits as f32 / wanted.len() as f32, i)
            })
            .filter(|(share, _)| *share >= 0.25)
            .collect();
        best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (share, i) in best.into_iter().take(3) {
            let segment = &transcript.segments[i];
            found.push(SourceSpan {
                field: field.to_owned(),
                segment: i,
                start: segment.start,
                end: segment.end,
                share,
            });
        }
    });
    found
}

/// Calls `each` with the pointer and text of every text and number.
fn leaves(value: &Value, at: String, each: &mut dyn FnMut(&str, &str)) {
    match value {
        Value::String(text) => each(&at, text),
        Value::Number(n) => each(&at, &n.to_string()),
        Value::Array(list) => {
            for (i, v) in list.iter().enumerate() {
                leaves(v, format!("{at}/{i}"), each);
            }
        }
        Value::Object(map) => {
            for (key, v) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                leaves(v, format!("{at}/{key}"), each);
            }
        }
        Value::Bool(_) | Value::Null => {}
    }
}

/// Lower-case words that say something: of four letters and more, and numbers.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let split = lower.split(|c: char| !c.is_alphanumeric());
    let mut all: Vec<String> = split
        .filter(|w| w.chars().count() >= 4 || w.chars().any(|c| c.is_numeric()))
        .map(str::to_owned)
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipelines::transcribe::Segment;

    fn transcript(texts: &[&str]) -> Transcript {
        let segment = |(i, text): (usize, &&str)| Segment {
            start: i as f64,
            end: i as f64 + 1.0,
            text: (*text).to_owned(),
            tokens: Vec::new(),
            temperature: 0.0,
            logprob: 0.0,
            no_speech: 0.0,
            compression: 1.0,
            words: Vec::new(),
        };
        Transcript {
            segments: texts.iter().enumerate().map(segment).collect(),
            ..Transcript::default()
        }
    }

    #[test]
    fn fields_are_linked_to_where_they_were_said() {
        let t = transcript(&[
            "The patient is Maria Keller.",
            "She takes 40 milligrams of aspirin.",
            "We meet on Friday.",
        ]);
        let note = json!({ "who": "Maria Keller", "dose": 40, "plan": ["meet Friday"], "new": "nothing of it", "ok": true });
        let found = sources(&note, &t);
        let of = |field: &str| {
            found
                .iter()
                .filter(|s| s.field == field)
                .map(|s| s.segment)
                .collect::<Vec<_>>()
        };
        assert_eq!(of("/who"), [0]);
        assert_eq!(of("/dose"), [1]);
        assert_eq!(of("/plan/0"), [2]);
        assert!(of("/new").is_empty() && of("/ok").is_empty());
        assert!(found.iter().all(|s| s.end > s.start && s.share > 0.2));
    }
}
