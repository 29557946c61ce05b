//! The short-time Fourier transform of centred, Hann-windowed frames, as power.
//!
//! ```text
//! w[i]    = ½ − ½·cos(2πi / n)                              periodic Hann, i in 0…n−1
//! P[t, k] = |Σ_i w[i] · x(t·hop + i − n/2) · e^(−2πi·ik/n)|²   k in 0…n/2
//! ```
//! Samples before the first and after the last are mirrored without repeating the edge (`torch.stft` with `center=True`,
//! `pad_mode="reflect"`). The window and the windowed samples are rounded to f32, as torch has them; the transform itself is
//! in f64, because another f32 one would add its own rounding to the reference's instead of equalling it.

use crate::lanes::{self, LANES, Lane};
use crate::{Error, Result};
use firelight_tensor::Tensor;
use realfft::{RealFftPlanner, RealToComplex};
use std::ops::Range;
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
    /// The window in f32.
    narrow: Arc<[f32]>,
    plan: Plan,
}

/// Four frames at a time where the size allows it.
#[derive(Clone)]
enum Plan {
    Lanes(lanes::Plan),
    Single(Arc<dyn RealToComplex<f64>>),
}

/// Buffers of one transform of some frames, to be used again.
pub(crate) struct Scratch {
    /// The windowed samples, `[n_fft]`.
    frames: Vec<Lane>,
    other: Vec<Lane>,
    /// The powers, `[bins]`.
    pub(crate) power: Vec<Lane>,
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
            narrow: window.iter().map(|&w| w as f32).collect(),
            window: window.into(),
            plan: match lanes::Plan::new(n_fft) {
                Some(plan) => Plan::Lanes(plan),
                None => Plan::Single(RealFftPlanner::new().plan_fft_forward(n_fft)),
            },
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
        let mut values = Vec::with_capacity(frames * bins);
        for first in (0..frames).step_by(LANES) {
            let some = LANES.min(frames - first);
            self.frames_at(samples, samples.len(), first..first + some, &mut scratch);
            for lane in 0..some {
                values.extend(scratch.power.iter().map(|p| p[lane] as f32));
            }
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
            frames: vec![[0.0; LANES]; self.n_fft],
            other: vec![[0.0; LANES]; self.n_fft],
            power: vec![[0.0; LANES]; self.bins()],
        }
    }

    /// The powers of `frames`, at most [`LANES`], of a signal of `length` samples that starts with `samples` and goes on with zeros.
    pub(crate) fn frames_at(
        &self,
        samples: &[f32],
        length: usize,
        frames: Range<usize>,
        scratch: &mut Scratch,
    ) {
        let back = self.n_fft / 2;
        let inside = (frames.start * self.hop).checked_sub(back);
        let all = inside.and_then(|s| samples.get(s..s + 3 * self.hop + self.n_fft));
        if let (Some(all), LANES) = (all, frames.len()) {
            lanes::gather(all, self.hop, &self.narrow, &mut scratch.frames);
        } else {
            for (lane, t) in frames.enumerate() {
                self.edge(samples, length, t, lane, scratch);
            }
        }
        self.transform(scratch);
    }

    /// Puts frame `t`, which may begin or end outside, into a lane.
    fn edge(&self, samples: &[f32], length: usize, t: usize, lane: usize, scratch: &mut Scratch) {
        let start = (t * self.hop) as isize - (self.n_fft / 2) as isize;
        let last = length as isize - 1;
        for ((o, i), w) in scratch.frames.iter_mut().zip(start..).zip(&*self.narrow) {
            let i = if i < 0 { -i } else { i };
            let i = if i > last { 2 * last - i } else { i };
            let x = usize::try_from(i).ok().and_then(|i| samples.get(i));
            o[lane] = f64::from(x.copied().unwrap_or(0.0) * *w);
        }
    }

    /// Puts a frame of samples, which the window multiplies here, into a lane; `narrow`: in f32, which a quiet band beside a loud one
    /// shows in its fourth digit.
    pub(crate) fn put(&self, samples: &[f64], narrow: bool, lane: usize, scratch: &mut Scratch) {
        let own = samples
            .iter()
            .zip(&*self.window)
            .map(|(&x, &w)| match narrow {
                true => f64::from(x as f32 * w as f32),
                false => x * w,
            });
        let all = own.chain(std::iter::repeat(0.0));
        for (o, x) in scratch.frames.iter_mut().zip(all) {
            o[lane] = x;
        }
    }

    /// The powers of the frames in `scratch`, which are used up.
    pub(crate) fn transform(&self, scratch: &mut Scratch) {
        let Scratch {
            frames,
            other,
            power,
        } = scratch;
        match &self.plan {
            Plan::Lanes(plan) => plan.power(frames, other, power),
            Plan::Single(plan) => {
                let mut spectrum = plan.make_output_vec();
                for lane in 0..LANES {
                    let mut frame: Vec<f64> = frames.iter().map(|x| x[lane]).collect();
                    // The buffers are the plan's own sizes, and a real transform of real input cannot fail otherwise.
                    let done = plan.process(&mut frame, &mut spectrum);
                    debug_assert!(done.is_ok());
                    for (p, c) in power.iter_mut().zip(&spectrum) {
                        p[lane] = c.norm_sqr();
                    }
                }
            }
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

/// Samples that are checked at a time.
const BLOCK: usize = 256;

/// The first sample that is NaN, infinite or beyond [`MAX_SAMPLE`].
pub(crate) fn first_bad(samples: &[f32]) -> Option<usize> {
    // By blocks without a way out, which the compiler makes vectors of.
    let good = |block: &[f32]| {
        block
            .iter()
            .fold(true, |all, v| all & (v.abs() <= MAX_SAMPLE))
    };
    let block = samples.chunks(BLOCK).position(|block| !good(block))?;
    let from = block * BLOCK;
    let inside = samples[from..]
        .iter()
        .position(|v| v.is_nan() || v.abs() > MAX_SAMPLE)?;
    Some(from + inside)
}

/// Refuses such samples; `before` samples came earlier.
pub(crate) fn check_finite(samples: &[f32], before: usize) -> Result<()> {
    match first_bad(samples) {
        None => Ok(()),
        Some(at) => Err(refused(samples, at, before)),
    }
}

/// Names the bad sample `at`.
pub(crate) fn refused(samples: &[f32], at: usize, before: usize) -> Error {
    Error::invalid(format!(
        "samples are numbers of at most {MAX_SAMPLE:e} in size, but sample {} is {}",
        before + at,
        samples[at]
    ))
}
