//! Windows that know nothing of each other, several of which are decoded together.
//!
//! Where a window ends hangs on the sound alone: at the quietest place of its last third. So the windows are the same however many go
//! together, and so is what each is decoded to. A step of the decoder reads the weights once for all of them.

use super::window::Decoded;
use super::{Event, Transcriber, decoder};
use crate::Result;
use crate::source::CancelToken;
use crate::speech::Clip;
use std::ops::Range;

impl Transcriber {
    /// Samples that hold as many windows as are decoded together.
    pub(super) fn room(&self) -> usize {
        self.options.batch * self.front.window()
    }

    /// Decodes the windows at the buffer's beginning, at most as many as go together, and drops them; `end`: nothing comes after it.
    pub(super) async fn windows(
        &mut self,
        end: bool,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let (mut todo, mut at): (Vec<Range<usize>>, usize) = (Vec::new(), 0);
        while todo.len() < self.options.batch && at < self.run.buffer.len() {
            let rest = &self.run.buffer[at..];
            let window = self.front.window();
            let length = match self.pause(at) {
                Some(pause) if pause <= window => pause,
                _ if rest.len() > window => pause(&rest[..window], self.block()),
                _ if end => rest.len(),
                _ => break,
            };
            if self.loud(&rest[..length]) {
                todo.push(at..at + length);
            }
            at += length;
        }
        while !todo.is_empty() {
            if let Err(e) = self.decode_all(&mut todo, cancel, on_event).await {
                self.step_down(e, on_event).await?;
            }
        }
        self.run.buffer.drain(..at);
        self.run.first += at;
        on_event(Event::Progress(self.place(self.run.first, true)));
        Ok(())
    }

    /// Decodes `todo` of the buffer together, and takes off it what is in the transcript.
    async fn decode_all(
        &mut self,
        todo: &mut Vec<Range<usize>>,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let windows = todo.clone();
        let mut values = Vec::with_capacity(windows.len());
        for window in &windows {
            let mut of = self.features(window.clone())?;
            if values.is_empty() && self.foreign() {
                self.state.encode(&[Clip { values: &of }]).await?;
                self.find_language(on_event).await?;
            }
            self.zeros(&mut of, window.len());
            values.push(of);
        }
        let clips: Vec<Clip<'_>> = values.iter().map(|values| Clip { values }).collect();
        let previous = [&self.hotwords()?[..], &self.run.previous].concat();
        let language = self.run.language.as_ref().map(|(id, _)| *id);
        self.state.encode(&clips).await?;
        let decoder = decoder(&self.model, &self.words, &self.options, &self.front);
        let state = &mut self.state;
        let found = decoder.together(state, clips.len(), &previous, language, cancel);
        let (mut done, mut again): (Vec<Decoded>, bool) = (Vec::new(), false);
        for ((found, wrong), clip) in found.await?.into_iter().zip(&clips) {
            let better = wrong && self.options.temperatures.len() > 1;
            done.push(match better {
                true => {
                    again = true;
                    state.encode(&[*clip]).await?;
                    let better = decoder.improve(state, found, &previous, language, cancel);
                    better.await?
                }
                false => found,
            });
        }
        for (i, (window, decoded)) in windows.into_iter().zip(done).enumerate() {
            // Times of words, and of a text's end, look at what is encoded.
            if again && (self.options.word_timestamps || decoded.open) {
                self.state.encode(&clips).await?;
                again = false;
            }
            let (first, mut at) = (self.run.first + window.start, window.start);
            at += self.keep(decoded, first, window.len(), i, on_event).await?;
            // What of it is not heard yet.
            while at < window.end {
                if let Some(own) = todo.first_mut() {
                    own.start = at;
                }
                at += self.decode(at..window.end, cancel, on_event).await?;
                again = true;
            }
            todo.remove(0);
        }
        Ok(())
    }
}

/// Where to cut a window: in the middle of the quietest 200 ms of its last third, of the latest if several are.
fn pause(window: &[f32], block: usize) -> usize {
    const BLOCKS: usize = 10;
    let from = window.len() / 3 * 2;
    let energy = |b: &[f32]| b.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    let blocks: Vec<f64> = window[from..].chunks_exact(block).map(energy).collect();
    let sums = blocks.windows(BLOCKS).map(|w| w.iter().sum::<f64>());
    let least = sums
        .enumerate()
        .min_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
    match least {
        Some((i, _)) => from + (i + BLOCKS / 2) * block,
        None => window.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipelines::transcribe::{Options, Padding, Transcript};
    use crate::speech::fixture;
    use pollster::block_on;

    fn heard(batch: usize, more: Options, pieces: &[&[f32]]) -> Transcript {
        let (engine, model) = fixture("whisper");
        let options = Options { batch, ..more };
        let mut transcriber = Transcriber::new(&engine, model, options).expect("a transcriber");
        let cancel = CancelToken::new();
        for piece in pieces {
            block_on(transcriber.push(piece, &cancel, &mut |_| ())).expect("heard");
        }
        block_on(transcriber.finish(&cancel, &mut |_| ())).expect("a transcript")
    }

    #[test]
    fn windows_say_the_same_together_as_alone() {
        // Seven seconds with pauses and a silent second; the model's window is one.
        let sound: Vec<f32> = (0..16_000 * 7 + 1234)
            .map(|i| match (i / 1600) % 9 {
                0 | 4 => 0.0,
                _ if i / 16_000 == 3 => 0.0,
                n => ((i * (i / 16_000 + n)) % 251) as f32 / 251.0 - 0.5,
            })
            .collect();
        let lenient = || Options {
            word_timestamps: true,
            temperatures: vec![0.0],
            min_logprob: -100.0,
            max_compression: 100.0,
            ..Options::default()
        };
        let alone = heard(1, lenient(), &[&sound]);
        assert!(alone.segments.len() > 3, "{alone:?}");
        assert!(alone.segments.iter().any(|s| !s.words.is_empty()));
        let texts: std::collections::HashSet<&str> =
            alone.segments.iter().map(|s| &*s.text).collect();
        assert!(texts.len() > 1, "windows of other sounds are told apart");
        for batch in [2, 3, 8] {
            let together = heard(batch, lenient(), &[&sound]);
            let (a, b) = (&alone.segments, &together.segments);
            assert_eq!(a.len(), b.len());
            for (a, b) in a.iter().zip(b) {
                assert_eq!((a.start, a.end), (b.start, b.end));
                assert_eq!((&a.tokens, &a.text), (&b.tokens, &b.text));
                assert!((a.logprob - b.logprob).abs() < 1e-4);
                let words = |s: &crate::pipelines::transcribe::Segment| -> Vec<(String, f64)> {
                    s.words.iter().map(|w| (w.text.clone(), w.start)).collect()
                };
                assert_eq!(words(a), words(b));
            }
            assert_eq!(alone.duration, together.duration);
        }
        // In other pieces, with windows that are drawn again one by one, through the gate, and with zeros at the end.
        let strict = || Options {
            temperatures: vec![0.0, 0.7],
            best_of: 3,
            padding: Padding::Zeros,
            vad: true,
            ..lenient()
        };
        let strict = || Options {
            min_logprob: 0.0,
            ..strict()
        };
        let pieces: Vec<&[f32]> = sound.chunks(5001).collect();
        let (alone, together) = (heard(1, strict(), &[&sound]), heard(3, strict(), &pieces));
        let tokens = |t: &Transcript| -> Vec<Vec<u32>> {
            t.segments.iter().map(|s| s.tokens.clone()).collect()
        };
        assert!(!alone.segments.is_empty());
        assert_eq!(tokens(&alone), tokens(&together));
    }

    #[test]
    fn windows_end_in_pauses() {
        let mut window: Vec<f32> = (0..30_000).map(|i| (i as f32 * 0.7).sin()).collect();
        window[1000..9000].fill(0.0);
        window[24_000..25_000].fill(0.0);
        let at = pause(&window, 20);
        assert!((24_100..=24_900).contains(&at), "{at}");
        // All the same: as late as can be; too short for a pause: all of it.
        assert!(pause(&[0.0; 30_000], 20) >= 29_800);
        assert_eq!(pause(&window[..300], 20), 300);
    }
}
