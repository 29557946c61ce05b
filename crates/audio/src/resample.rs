//! From any sample rate to any other, band-limited, in one go or as a stream.
//!
//! The work is done in blocks of a fixed size whatever the caller's chunks are, so any chunking gives the same samples.
//! The filter's delay is taken off the front and made up at the end: n samples in, ⌈n · to / from⌉ out, in step with
//! the input.

use crate::decode::check_rate;
use crate::stft::check_finite;
use crate::{Error, Result};
use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Resampler as _};

/// Frames per block at the lower of the two rates, at least; the exact number is a multiple of what the ratio asks for.
/// Longer blocks have a steeper filter and more delay: half a block, 24 ms between 48 and 16 kHz.
const BLOCK: u64 = 768;

/// A stream of mono samples changing its rate.
pub struct Resampler {
    /// `None` where both rates are one. In f64 as the spectrograms are: one instance of the transforms, and no rounding to speak of.
    fft: Option<Fft<f64>>,
    from: u64,
    to: u64,
    /// Input that does not fill a block yet.
    waiting: Vec<f64>,
    block: Vec<f64>,
    /// Output samples of the filter's delay still to be dropped.
    delay: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// A resampler from `from` to `to` Hz.
    ///
    /// # Errors
    /// `Unsupported` if a rate lies outside 1…768 kHz.
    pub fn new(from: u32, to: u32) -> Result<Self> {
        check_rate(from)?;
        check_rate(to)?;
        // Both sides of a block are even, or the filter's delay would be half a sample off the grid.
        let step = 2 * u64::from(from / gcd(from, to));
        let least = BLOCK * u64::from(from) / u64::from(from.min(to));
        let block = (least.div_ceil(step) * step) as usize;
        let fft = match from == to {
            true => None,
            false => Some(
                Fft::new_custom(
                    from as usize,
                    to as usize,
                    block,
                    1,
                    1,
                    rubato::WindowFunction::BlackmanHarris2,
                    FixedSync::Both,
                )
                .map_err(|e| Error::invalid(format!("resampling {from} to {to} Hz: {e}")))?,
            ),
        };
        let delay = fft.as_ref().map_or(0, |f| f.output_delay());
        let size = fft.as_ref().map_or(0, |f| f.output_frames_max());
        Ok(Resampler {
            fft,
            from: from.into(),
            to: to.into(),
            waiting: Vec::new(),
            block: vec![0.0; size],
            delay,
            taken: 0,
            given: 0,
        })
    }

    /// Takes samples and appends what they complete to `out`.
    ///
    /// # Errors
    /// `InvalidInput` if a sample is no number of at most 1e20 (it would spoil a whole block); nothing is taken then.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<()> {
        check_finite(samples, self.taken as usize)?;
        self.taken += samples.len() as u64;
        let Some(size) = self.fft.as_ref().map(|f| f.input_frames_next()) else {
            out.extend_from_slice(samples);
            return Ok(());
        };
        let mut rest = samples;
        while self.waiting.len() + rest.len() >= size {
            let (now, later) = rest.split_at(size - self.waiting.len());
            self.waiting.extend(now.iter().map(|&v| f64::from(v)));
            rest = later;
            self.run(out, usize::MAX);
            self.waiting.clear();
        }
        self.waiting.extend(rest.iter().map(|&v| f64::from(v)));
        Ok(())
    }

    /// Appends what is left and makes the resampler ready for another stream.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        if let Some(size) = self.fft.as_ref().map(|f| f.input_frames_next()) {
            let total = (self.taken * self.to).div_ceil(self.from);
            // Silence pushes the last samples through the filter.
            while self.given < total {
                self.waiting.resize(size, 0.0);
                self.run(
                    out,
                    usize::try_from(total - self.given).unwrap_or(usize::MAX),
                );
                self.waiting.clear();
            }
        }
        self.waiting.clear();
        (self.taken, self.given) = (0, 0);
        if let Some(fft) = &mut self.fft {
            fft.reset();
            self.delay = fft.output_delay();
        }
    }

    /// Runs the full block in `waiting` and appends at most `most` of its samples.
    fn run(&mut self, out: &mut Vec<f32>, most: usize) {
        let Some(fft) = &mut self.fft else { return };
        let size = self.block.len();
        let input = SequentialSlice::new(&self.waiting[..], 1, self.waiting.len());
        let output = SequentialSlice::new_mut(&mut self.block[..], 1, size);
        // Sizes were asked of the resampler itself, so neither step fails.
        let (Ok(input), Ok(mut output)) = (input, output) else {
            return;
        };
        let made = fft
            .process_into_buffer(&input, &mut output, None)
            .map_or(0, |(_, made)| made);
        let dropped = self.delay.min(made);
        self.delay -= dropped;
        let end = made.min(dropped.saturating_add(most));
        out.extend(self.block[dropped..end].iter().map(|&v| v as f32));
        self.given += (end - dropped) as u64;
    }
}

impl std::fmt::Debug for Resampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Resampler({} to {} Hz, {} samples in)",
            self.from, self.to, self.taken
        )
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// `samples` at `from` Hz as ⌈n · to / from⌉ samples at `to` Hz.
///
/// # Errors
/// As [`Resampler::new`] and [`Resampler::push`].
pub fn resample(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>> {
    let mut resampler = Resampler::new(from, to)?;
    let mut out = Vec::new();
    resampler.push(samples, &mut out)?;
    resampler.finish(&mut out);
    Ok(out)
}
