//! Triangular filters on the mel scale.
//!
//! Slaney's scale (Auditory Toolbox) is linear below 1 kHz and logarithmic above:
//! ```text
//! mel(f) = 3f / 200                         f < 1000 Hz
//!          15 + 27·ln(f / 1000) / ln 6.4    otherwise
//! ```
//! HTK's is `2595·log₁₀(1 + f / 700)`, Kaldi's `1127·ln(1 + f / 700)`. The M + 2 corners lie evenly between mel(f_min) and
//! mel(f_max); filter m rises from corner m to m + 1 and falls to m + 2, linearly in hertz (in Kaldi: in mel). With `norm` it is
//! scaled by 2 / (f[m + 2] − f[m]), which makes all areas equal (`norm="slaney"`).
//! Source: `mel_filter_bank` in `audio_utils.py` of transformers 5.

use crate::lanes::Lane;
use crate::{Error, Result};
use fearless_simd::{Level, dispatch, f64x4, prelude::*};

/// How frequencies become mels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MelScale {
    /// Linear to 1 kHz, then logarithmic (Auditory Toolbox, librosa, Whisper).
    Slaney,
    /// `2595·log₁₀(1 + f / 700)`.
    Htk,
    /// `1127·ln(1 + f / 700)`, and filters that are triangles over mels.
    Kaldi,
}

/// What a bank of filters is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct MelConfig {
    /// Filters, 1…1024.
    pub mels: usize,
    /// Points of the Fourier transform, 2…65536.
    pub n_fft: usize,
    /// Samples per second, Hz.
    pub rate: u32,
    /// The lowest corner, Hz.
    pub f_min: f64,
    /// The highest corner, Hz.
    pub f_max: f64,
    /// The scale.
    pub scale: MelScale,
    /// Equal areas.
    pub norm: bool,
}

/// A bank of filters over the bins of a power spectrum.
#[derive(Clone, Debug, PartialEq)]
pub struct MelFilters {
    bins: usize,
    /// Of each filter, its first bin and the weights from there on.
    filters: Vec<(usize, Vec<f64>)>,
}

impl MelFilters {
    /// `mels` filters in Slaney's scale and norm, from `f_min` to `f_max` Hz, over the `n_fft / 2 + 1` bins of a signal
    /// at `rate` Hz. Weights are rounded to f32, in which every implementation keeps them.
    ///
    /// # Errors
    /// `InvalidInput` if `mels` is not in 1…1024, `n_fft` not in 2…65536, or the frequencies are not in order.
    pub fn slaney(mels: usize, n_fft: usize, rate: u32, f_min: f64, f_max: f64) -> Result<Self> {
        Self::new(&MelConfig {
            mels,
            n_fft,
            rate,
            f_min,
            f_max,
            scale: MelScale::Slaney,
            norm: true,
        })
    }

    /// A bank of any kind. Weights are rounded to f32.
    ///
    /// # Errors
    /// As [`MelFilters::slaney`].
    pub fn new(config: &MelConfig) -> Result<Self> {
        let &MelConfig {
            mels,
            n_fft,
            rate,
            f_min,
            f_max,
            scale,
            norm,
        } = config;
        let in_order = f_min >= 0.0 && f_min < f_max && f_max.is_finite() && rate > 0;
        if !(1..=1024).contains(&mels) || !(2..=65536).contains(&n_fft) || !in_order {
            return Err(Error::invalid(format!(
                "a mel bank has 1…1024 filters over 2…65536 points between two frequencies in order, \
                 got {mels} over {n_fft} from {f_min} to {f_max} Hz at {rate} Hz"
            )));
        }
        let (low, high) = (scale.mel(f_min), scale.mel(f_max));
        let step = (high - low) / (mels + 1) as f64;
        // Where the triangles are straight.
        let place = |mel: f64| match scale {
            MelScale::Kaldi => mel,
            _ => scale.hertz(mel),
        };
        let corners: Vec<f64> = (0..mels + 2)
            .map(|i| place(low + step * i as f64))
            .collect();
        let bins = n_fft / 2 + 1;
        // The bins lie evenly up to half the rate in whole hertz.
        let bin = f64::from(rate / 2) / (bins - 1) as f64;
        let filters = corners.windows(3).map(|c| {
            let factor = if norm { 2.0 / (c[2] - c[0]) } else { 1.0 };
            let weight = |k: usize| {
                let f = k as f64 * bin;
                let f = match scale {
                    MelScale::Kaldi => scale.mel(f),
                    _ => f,
                };
                let (up, down) = ((f - c[0]) / (c[1] - c[0]), (c[2] - f) / (c[2] - c[1]));
                f64::from((up.min(down).max(0.0) * factor) as f32)
            };
            let start = (0..bins).find(|&k| weight(k) > 0.0).unwrap_or(bins);
            (
                start,
                (start..bins).map(weight).take_while(|&w| w > 0.0).collect(),
            )
        });
        Ok(MelFilters {
            bins,
            filters: filters.collect(),
        })
    }

    /// How many filters there are.
    pub fn mels(&self) -> usize {
        self.filters.len()
    }

    /// How many bins they lie over.
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// The bank as a dense `[M, bins]` matrix, row-major.
    pub fn dense(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.mels() * self.bins];
        for (row, (start, weights)) in out.chunks_exact_mut(self.bins).zip(&self.filters) {
            row.iter_mut()
                .skip(*start)
                .zip(weights)
                .for_each(|(o, &w)| *o = w as f32);
        }
        out
    }

    /// The energies of some frames: `bins` powers in, one lane per filter out.
    pub(crate) fn apply(&self, power: &[Lane], out: &mut [Lane]) {
        dispatch!(Level::new(), simd => self.apply_in(simd, power, out));
    }

    #[inline(always)]
    fn apply_in<S: Simd>(&self, simd: S, power: &[Lane], out: &mut [Lane]) {
        for (o, (start, weights)) in out.iter_mut().zip(&self.filters) {
            let mut sum = f64x4::splat(simd, 0.0);
            for (p, &w) in power.iter().skip(*start).zip(weights) {
                let p: f64x4<S> = (*p).simd_into(simd);
                sum += p * w;
            }
            *o = sum.into();
        }
    }
}

impl MelScale {
    fn mel(self, f: f64) -> f64 {
        match self {
            MelScale::Htk => 2595.0 * (1.0 + f / 700.0).log10(),
            MelScale::Kaldi => 1127.0 * (1.0 + f / 700.0).ln(),
            MelScale::Slaney if f < 1000.0 => 3.0 * f / 200.0,
            MelScale::Slaney => 15.0 + (f / 1000.0).ln() * (27.0 / 6.4f64.ln()),
        }
    }

    fn hertz(self, mel: f64) -> f64 {
        match self {
            MelScale::Htk => 700.0 * (10f64.powf(mel / 2595.0) - 1.0),
            MelScale::Kaldi => 700.0 * ((mel / 1127.0).exp() - 1.0),
            MelScale::Slaney if mel < 15.0 => 200.0 * mel / 3.0,
            MelScale::Slaney => 1000.0 * ((6.4f64.ln() / 27.0) * (mel - 15.0)).exp(),
        }
    }
}
