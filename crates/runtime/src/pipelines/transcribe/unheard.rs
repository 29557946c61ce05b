//! Speech that a window's text says nothing of.
//!
//! Where a text ends with one time, or without one, OpenAI's rules go on after the window. Small models end a text after many a
//! pause between two sentences, and up to 29 s of speech are lost. Here one listens whether somebody speaks after the text's last
//! time, or after its last word (by where the decoder looked) if it has none; if so, the next window begins a little before that.

use super::{Padding, Transcriber};
use firelight_audio::Vad;

/// Speech that a text may leave out, s: the end of a word, a cough.
const LEAST: f64 = 0.5;

/// After the text's end its last word may still sound, s.
const TAIL: f64 = 0.2;

/// Sound before speech that goes with it, s.
const BEFORE: f64 = 0.3;

/// The shortest step, s: however often a model ends at once, the end comes.
const STEP: f64 = 0.5;

impl Transcriber {
    /// Where to go on in a window of `length` samples from sample `first` of the file on, whose text ends at its sample `end`; `None`:
    /// nobody speaks any more.
    pub(super) fn unheard(&self, first: usize, length: usize, end: usize) -> Option<usize> {
        if self.options.padding == Padding::Zeros {
            return None;
        }
        let at = first.checked_sub(self.run.first)?;
        let window = self.run.buffer.get(at..at + length)?;
        let rate = self.rate();
        speech_after(self.options.detector(rate), rate, window, end)
    }
}

fn speech_after(mut vad: Vad, rate: u32, window: &[f32], end: usize) -> Option<usize> {
    let samples = |seconds: f64| (seconds * f64::from(rate)) as usize;
    let (frame, from) = (vad.frame().max(1), end + samples(TAIL));
    let (mut loud, mut first) = (0, None);
    for (i, part) in window.chunks_exact(frame).enumerate() {
        if vad.speech(part) && i * frame >= from {
            loud += frame;
            first = first.or(Some(i * frame));
        }
    }
    let first = first.filter(|_| loud >= samples(LEAST))?;
    Some(
        first
            .saturating_sub(samples(BEFORE))
            .max(end)
            .max(samples(STEP)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use firelight_audio::EnergyVad;

    #[test]
    fn speech_after_the_text_is_found() {
        let rate = 16_000;
        // Speech from 0 to 2 s and from 5 to 6 s.
        let value = |i: usize| match i / 1600 {
            0..20 | 50..60 => ((i * i) % 251) as f32 / 251.0 - 0.5,
            _ => 0.0,
        };
        let window: Vec<f32> = (0..rate as usize * 9).map(value).collect();
        let after = |end: f64| {
            let vad = Vad::Energy(EnergyVad::new(rate));
            let found = speech_after(vad, rate, &window, (end * 16_000.0) as usize);
            found.map(|at| at as f64 / 16_000.0)
        };
        assert_eq!(after(2.0), Some(4.7));
        assert_eq!(after(4.9), Some(4.9), "not before the text's end");
        assert_eq!(after(1.9), Some(4.7), "the end of a word is none");
        assert_eq!(after(5.5), None, "nor is so little of one");
        assert_eq!(after(6.0), None);
        assert_eq!(after(0.0), Some(0.5), "there is always a step");
    }
}
