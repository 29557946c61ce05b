//! Transcripts as text, subtitles and tables.

use super::{Segment, Transcript, Word};
use crate::{Error, Result};
use std::fmt::Write as _;

/// How a transcript is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A line for each segment.
    #[default]
    Txt,
    /// SubRip.
    Srt,
    /// WebVTT.
    Vtt,
    /// Everything there is.
    Json,
    /// Start and end in milliseconds and the text, by tabs.
    Tsv,
}

impl Format {
    /// All of them, with the endings of their files.
    pub const ALL: [(Format, &'static str); 5] = [
        (Format::Txt, "txt"),
        (Format::Srt, "srt"),
        (Format::Vtt, "vtt"),
        (Format::Json, "json"),
        (Format::Tsv, "tsv"),
    ];

    /// The ending of its files.
    pub fn ending(self) -> &'static str {
        let found = Format::ALL.iter().find(|(f, _)| *f == self);
        found.map_or("txt", |(_, ending)| ending)
    }
}

/// A transcript as a file of `format`. In subtitles each word is a cue where there are words.
///
/// # Errors
/// `InvalidInput` if it cannot be written as JSON.
pub fn write(transcript: &Transcript, format: Format) -> Result<String> {
    let mut out = String::new();
    match format {
        Format::Txt => {
            for segment in &transcript.segments {
                out.push_str(&segment.text);
                out.push('\n');
            }
        }
        Format::Srt => {
            for (i, (start, end, text)) in cues(transcript).enumerate() {
                let text = text.replace("-->", "->");
                let (start, end) = (clock(start, ',', true), clock(end, ',', true));
                let _ = write!(out, "{}\n{start} --> {end}\n{text}\n\n", i + 1);
            }
        }
        Format::Vtt => {
            out.push_str("WEBVTT\n\n");
            for (start, end, text) in cues(transcript) {
                // A cue's text is markup, and an arrow would begin another cue.
                let text = text
                    .replace('&', "&amp;")
                    .replace('<', "&lt;")
                    .replace("-->", "--&gt;");
                let (start, end) = (clock(start, '.', false), clock(end, '.', false));
                let _ = write!(out, "{start} --> {end}\n{text}\n\n");
            }
        }
        Format::Json => {
            out = serde_json::to_string_pretty(transcript)
                .map_err(|e| Error::invalid(format!("a transcript as JSON: {e}")))?;
            out.push('\n');
        }
        Format::Tsv => {
            out.push_str("start\tend\ttext\n");
            for (start, end, text) in cues(transcript) {
                let _ = writeln!(
                    out,
                    "{}\t{}\t{}",
                    ms(start),
                    ms(end),
                    text.replace('\t', " ")
                );
            }
        }
    }
    Ok(out)
}

/// Words where there are words, else segments.
fn cues(transcript: &Transcript) -> impl Iterator<Item = (f64, f64, &str)> {
    let word = |w: &'_ Word| (w.start, w.end);
    transcript.segments.iter().flat_map(move |s: &Segment| {
        let words = s.words.iter().map(move |w| {
            let (start, end) = word(w);
            (start, end, w.text.trim())
        });
        let whole = s
            .words
            .is_empty()
            .then_some((s.start, s.end, s.text.as_str()));
        words.chain(whole)
    })
}

fn ms(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1000.0).round() as u64
}

/// `hh:mm:ss,mmm`; hours only if there are some, unless `always`.
fn clock(seconds: f64, point: char, always: bool) -> String {
    let t = ms(seconds);
    let (h, m, s, ms) = (t / 3_600_000, t / 60_000 % 60, t / 1000 % 60, t % 1000);
    match h > 0 || always {
        true => format!("{h:02}:{m:02}:{s:02}{point}{ms:03}"),
        false => format!("{m:02}:{s:02}{point}{ms:03}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript() -> Transcript {
        let segment = |start, end, text: &str| Segment {
            start,
            end,
            text: text.into(),
            tokens: vec![1],
            temperature: 0.0,
            logprob: -0.25,
            no_speech: 0.0,
            compression: 1.0,
            words: Vec::new(),
        };
        Transcript {
            language: Some("en".into()),
            language_probability: None,
            duration: 3700.0,
            segments: vec![
                segment(0.0, 1.5, "A --> <b> & c"),
                segment(3661.0004, 3662.9996, "d\te"),
            ],
        }
    }

    #[test]
    fn every_format() {
        let t = transcript();
        let of = |f| write(&t, f).expect("written");
        assert_eq!(of(Format::Txt), "A --> <b> & c\nd\te\n");
        assert_eq!(
            of(Format::Srt),
            "1\n00:00:00,000 --> 00:00:01,500\nA -> <b> & c\n\n2\n01:01:01,000 --> 01:01:03,000\nd\te\n\n"
        );
        assert_eq!(
            of(Format::Vtt),
            "WEBVTT\n\n00:00.000 --> 00:01.500\nA --&gt; &lt;b> &amp; c\n\n01:01:01.000 --> 01:01:03.000\nd\te\n\n"
        );
        assert_eq!(
            of(Format::Tsv),
            "start\tend\ttext\n0\t1500\tA --> <b> & c\n3661000\t3663000\td e\n"
        );
        let json: serde_json::Value = serde_json::from_str(&of(Format::Json)).expect("JSON");
        assert_eq!(json["segments"][1]["text"], "d\te");
        assert!(json["segments"][0].get("words").is_none());
    }

    #[test]
    fn words_are_cues() {
        let mut t = transcript();
        t.segments[0].words = vec![Word {
            text: " A".into(),
            start: 0.25,
            end: 0.5,
            probability: 0.9,
        }];
        let srt = write(&t, Format::Srt).expect("written");
        assert!(
            srt.starts_with("1\n00:00:00,250 --> 00:00:00,500\nA\n\n2\n01:01:01"),
            "{srt}"
        );
    }
}
