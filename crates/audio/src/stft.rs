//! The short-time Fourier transform of centred, Hann-windowed frames, as power.
//!
//! ```text
//! w[i]    = ½ − ½·cos(2πi / n)                              periodic Hann, i in 0…n−1
//! P[t, k] = |Σ_i w[i] · x(t·hop + i − n/2) · e^(−2πi·ik/n)|²   k in 0…n/2
//! ```
//! Samples before the first and after the last are mirrored without repeating the edge (`torch.stft` with `center=True`,
//! `pad_mode="reflect"`). The window and the windowed samples are rounded to f32, as torch has them; the transform itself is
//! in f64, because another f32 one would add its own rounding to the reference's instead of equalling it.

use crate::{Error, Result};
use firelight_tensor::Tensor;
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// The weights of a frame's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// `½ − ½·cos(2πi / n)`, for frames that overlap to a constant (`periodic=True`).
    Hann,
    /// `½ − ½·cos(2πi / (n − 1))`, both ends zero.
    HannSymmetric,
    /// `0.54 − 0.46·cos(2πi / (n − 1))`.
    Hamming,
    /// Kaldi's: the symmetric Hann window to the power 0.85.
    Povey,
}

impl Window {
    /// The `n` weights; Hann's are rounded to f32, as the references that use it have them.
    pub fn weights(self, n: usize) -> Vec<f64> {
        let turn =
            |i: usize, n: usize| (2.0 * std::f64::consts::PI * i as f64 / n.max(1) as f64).cos();
        let last = n.saturating_sub(1);
        let weight = |i: usize| match self {
            Window::Hann => f64::from((0.5 - 0.5 * turn(i, n)) as f32),
            Window::HannSymmetric => 0.5 - 0.5 * turn(i, last),
            Window::Hamming => 0.54 - 0.46 * turn(i, last),
            Window::Povey => (0.5 - 0.5 * turn(i, last)).powf(0.85),
        };
        (0..n).map(weight).collect()
    }
}

/// A planned transform.
#[derive(Clone)]
pub struct Stft {
    n_fft: usize,
    hop: usize,
    window: Arc<[f64]>,
    plan: Arc<dyn RealToComplex<f64>>,
}

/// Buffers of one transform, to be used again.
pub(crate) struct Scratch {
    frame: Vec<f64>,
    spectrum: Vec<Complex<f64>>,
    work: Vec<Complex<f64>>,
}

impl Stft {
    /// Frames of `n_fft` samples every `hop`.
    ///
    /// # Errors
    /// `InvalidInput` unless `n_fft` is even and in 2…65536 and `hop` is in 1…`n_fft`.
    pub fn new(n_fft: usize, hop: usize) -> Result<Self> {
        if !n_fft.is_multiple_of(2) || !(2..=65536).contains(&n_fft) || !(1..=n_fft).contains(&hop)
        {
            return Err(Error::invalid(format!(
                "n_fft is even and in 2…65536 and the hop in 1…n_fft, got {n_fft} and {hop}"
            )));
        }
        // `torch.hann_window`: the angle in f32, which is what its last digits hang on.
        let step = (2.0 * std::f64::consts::PI / n_fft as f64) as f32;
        let hann = |i: usize| f64::from(0.5 - 0.5 * f64::from(i as f32 * step).cos() as f32);
        Ok(Self::with_window(
            n_fft,
            hop,
            (0..n_fft).map(hann).collect(),
        ))
    }

    /// With weights of a frame, at most `n_fft`; the rest of the transform is fed zeros. Arguments are checked by the caller.
    pub(crate) fn with_window(n_fft: usize, hop: usize, window: Vec<f64>) -> Self {
        Stft {
            n_fft,
            hop,
            window: window.into(),
            plan: RealFftPlanner::new().plan_fft_forward(n_fft),
        }
    }

    /// Frequencies per frame: n_fft / 2 + 1.
    pub fn bins(&self) -> usize {
        self.n_fft / 2 + 1
    }

    /// Samples from one frame to the next.
    pub fn hop(&self) -> usize {
        self.hop
    }

    /// Samples in a frame.
    pub fn n_fft(&self) -> usize {
        self.n_fft
    }

    /// Frames of a signal of `samples` samples: 1 + samples / hop.
    pub fn frames(&self, samples: usize) -> usize {
        1 + samples / self.hop
    }

    /// The power spectrogram `[T, n_fft / 2 + 1]` f32 of mono samples.
    ///
    /// # Errors
    /// `InvalidInput` if there are no more than n_fft / 2 samples (nothing to mirror) or one is no number of at most 1e20.
    pub fn power(&self, samples: &[f32]) -> Result<Tensor> {
        check_finite(samples, 0)?;
        self.check_length(samples.len())?;
        let (frames, bins) = (self.frames(samples.len()), self.bins());
        let mut scratch = self.scratch();
        let mut power = vec![0.0; bins];
        let mut values = Vec::with_capacity(frames * bins);
        for t in 0..frames {
            self.frame(samples, samples.len(), t, &mut scratch, &mut power);
            values.extend(power.iter().map(|&p| p as f32));
        }
        Ok(Tensor::from_f32(&values, &[frames, bins])?)
    }

    pub(crate) fn check_length(&self, samples: usize) -> Result<()> {
        if samples <= self.n_fft / 2 {
            return Err(Error::invalid(format!(
                "mirroring the ends takes more than n_fft / 2 = {} samples, got {samples}; pad the clip with zeros",
                self.n_fft / 2
            )));
        }
        Ok(())
    }

    pub(crate) fn scratch(&self) -> Scratch {
        Scratch {
            frame: self.plan.make_input_vec(),
            spectrum: self.plan.make_output_vec(),
            work: self.plan.make_scratch_vec(),
        }
    }

    /// The power of frame `t` of a signal of `length` samples that starts with `samples` and goes on with zeros.
    pub(crate) fn frame(
        &self,
        samples: &[f32],
        length: usize,
        t: usize,
        scratch: &mut Scratch,
        power: &mut [f64],
    ) {
        let start = (t * self.hop) as isize - (self.n_fft / 2) as isize;
        let end = start + self.n_fft as isize;
        let last = length as isize - 1;
        let inside = usize::try_from(start)
            .ok()
            .filter(|_| end <= samples.len() as isize);
        match inside.and_then(|s| samples.get(s..s + self.n_fft)) {
            Some(frame) => {
                for ((o, &x), w) in scratch.frame.iter_mut().zip(frame).zip(&*self.window) {
                    *o = f64::from(x * *w as f32);
                }
            }
            None => {
                for ((o, i), w) in scratch.frame.iter_mut().zip(start..).zip(&*self.window) {
                    let i = if i < 0 { -i } else { i };
                    let i = if i > last { 2 * last - i } else { i };
                    let x = usize::try_from(i).ok().and_then(|i| samples.get(i));
                    *o = f64::from(x.copied().unwrap_or(0.0) * *w as f32);
                }
            }
        }
        self.transform(scratch, power);
    }

    /// The power of one frame of samples, which the window multiplies here.
    pub(crate) fn windowed(&self, samples: &[f64], scratch: &mut Scratch, power: &mut [f64]) {
        scratch.frame.fill(0.0);
        for ((o, &x), &w) in scratch.frame.iter_mut().zip(samples).zip(&*self.window) {
            *o = x * w;
        }
        self.transform(scratch, power);
    }

    /// The power of the windowed samples in `scratch`.
    fn transform(&self, scratch: &mut Scratch, power: &mut [f64]) {
        let Scratch {
            frame,
            spectrum,
            work,
        } = scratch;
        // The buffers are the plan's own sizes, and a real transform of real input cannot fail otherwise.
        let done = self.plan.process_with_scratch(frame, spectrum, work);
        debug_assert!(done.is_ok());
        for (p, c) in power.iter_mut().zip(spectrum.iter()) {
            *p = c.norm_sqr();
        }
    }
}

impl std::fmt::Debug for Stft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stft({} samples every {})", self.n_fft, self.hop)
    }
}

/// The greatest size of a sample. Nothing audible comes near; what lies beyond would overflow f32 in a filter.
pub(crate) const MAX_SAMPLE: f32 = 1e20;

/// The first sample that is NaN, infinite or beyond [`MAX_SAMPLE`].
pub(crate) fn first_bad(samples: &[f32]) -> Option<usize> {
    samples
        .iter()
        .position(|v| v.is_nan() || v.abs() > MAX_SAMPLE)
}

/// Refuses such samples; `before` samples came earlier.
pub(crate) fn check_finite(samples: &[f32], before: usize) -> Result<()> {
    match first_bad(samples) {
        None => Ok(()),
        Some(at) => Err(Error::invalid(format!(
            "samples are numbers of at most {MAX_SAMPLE:e} in size, but sample {} is {}",
            before + at,
            samples[at]
        ))),
    }
}
