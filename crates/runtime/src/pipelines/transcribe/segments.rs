//! Cutting a window's tokens into segments at the timestamps, and finding where the next window begins.
//!
//! Source: `transcribe.py` of OpenAI's whisper.

use super::tokens::Vocabulary;

/// A segment in samples from the window's beginning on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) tokens: Vec<u32>,
}

/// The segments of a window of `length` samples, and how many samples are done with them; a timestamp is `step` samples. With `all`
/// that is the whole window: a segment that has no end ends with it.
pub(super) fn cut(
    words: &Vocabulary,
    tokens: &[u32],
    length: usize,
    step: usize,
    all: bool,
) -> (Vec<Piece>, usize) {
    let place = |id: Option<&u32>| {
        let id = id.copied().unwrap_or(words.timestamps);
        (id.saturating_sub(words.timestamps) as usize * step).min(length)
    };
    let is_time = |i: usize| tokens.get(i).is_some_and(|&id| words.is_time(id));
    let n = tokens.len();
    // The text ends with one time and not with a pair: nothing is said after it.
    let single = n >= 2 && is_time(n - 1) && !is_time(n - 2);
    let mut ends: Vec<usize> = (1..n).filter(|&i| is_time(i - 1) && is_time(i)).collect();
    if ends.is_empty() {
        let last = tokens.iter().rev().find(|&&id| words.is_time(id));
        let end = match last {
            Some(&id) if id > words.timestamps => place(Some(&id)),
            _ => length,
        };
        let whole = Piece {
            start: 0,
            end,
            tokens: tokens.to_vec(),
        };
        return (vec![whole], length);
    }
    if single {
        ends.push(n);
    }
    let mut first = 0;
    let mut pieces = Vec::with_capacity(ends.len());
    for end in ends {
        let own = &tokens[first..end];
        pieces.push(Piece {
            start: place(own.first()),
            end: place(own.last()),
            tokens: own.to_vec(),
        });
        first = end;
    }
    let rest = tokens.get(first..).unwrap_or_default();
    if all && rest.iter().any(|&id| !words.is_time(id)) {
        pieces.push(Piece {
            start: place(rest.first()),
            end: length,
            tokens: rest.to_vec(),
        });
    }
    let done = match single || all {
        true => length,
        false => place(first.checked_sub(1).and_then(|i| tokens.get(i))),
    };
    (pieces, done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        Vocabulary {
            start: 11,
            end: 10,
            tasks: None,
            previous: None,
            no_speech: None,
            no_timestamps: 12,
            timestamps: 100,
            languages: Vec::new(),
            suppressed: Vec::new(),
            suppressed_first: Vec::new(),
            size: 1601,
        }
    }

    fn piece(start: usize, end: usize, tokens: &[u32]) -> Piece {
        Piece {
            start,
            end,
            tokens: tokens.to_vec(),
        }
    }

    #[test]
    fn pairs_of_times_cut() {
        let w = vocabulary();
        // Two segments, and the beginning of a third that is decoded again.
        let tokens = [100, 1, 2, 150, 150, 3, 200, 200, 4];
        let (pieces, done) = cut(&w, &tokens, 480_000, 320, false);
        assert_eq!(
            pieces,
            [
                piece(0, 16_000, &[100, 1, 2, 150]),
                piece(16_000, 32_000, &[150, 3, 200])
            ]
        );
        assert_eq!(done, 32_000);
        // Where nothing of the window is decoded again, the third is one, too.
        let (pieces, done) = cut(&w, &tokens, 480_000, 320, true);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[2], piece(32_000, 480_000, &[200, 4]));
        assert_eq!(done, 480_000);
        let (pieces, _) = cut(&w, &[100, 1, 150, 150, 4], 480_000, 320, true);
        assert_eq!(pieces[1], piece(16_000, 480_000, &[150, 4]));
        // One time at the end: the rest of the window is silent.
        let (pieces, done) = cut(&w, &tokens[..7], 480_000, 320, false);
        assert_eq!((pieces.len(), done), (2, 480_000));
        // No pair: one segment, to its time or to the end.
        assert_eq!(
            cut(&w, &[100, 1, 150], 480_000, 320, false),
            (vec![piece(0, 16_000, &[100, 1, 150])], 480_000)
        );
        assert_eq!(
            cut(&w, &[1, 2], 7000, 320, false),
            (vec![piece(0, 7000, &[1, 2])], 7000)
        );
        assert_eq!(cut(&w, &[], 7000, 320, false).1, 7000);
        // A time beyond the sound is its end.
        let (pieces, _) = cut(&w, &[100, 1, 1600], 16_000, 320, false);
        assert_eq!(pieces[0].end, 16_000);
    }
}
