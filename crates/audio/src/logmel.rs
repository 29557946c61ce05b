//! Log-mel features of frames that do not hang on one another: every front end but Whisper's, whole or as samples come.
//!
//! ```text
//! frame t  = the samples from t·hop − front on, `frame` of them; scaled, freed of their mean, pre-emphasised as the config says
//! S[t, k]  = |FFT(window · frame t)[k]|  or its square
//! out[t,m] = ln(mel_m · S[t] + c)  or  ln(max(mel_m · S[t], c))  or log₁₀ of it
//! ```
//! With the periodic Hann window, Gemma's, `window · frame` is rounded to f32 as in the reference; Kaldi's is in f64 as there.
//! A frame needs its own samples and nothing else, so a stream gives the same numbers as the whole clip, each as soon as its last
//! sample is there. For Whisper, whose floor hangs on the whole window, see [`crate::Whisper`].
//!
//! Sources: `feature_extraction_gemma4.py`; `spectrogram` in `audio_utils.py` as `SeamlessM4TFeatureExtractor` calls it (Kaldi's
//! filter bank without dither), both of transformers 5.

use crate::lanes::{LANES, Lane, Log, logs};
use crate::stft::{Scratch, check_finite};
use crate::{Error, MelConfig, MelFilters, MelScale, Result, Stft, Window};
use firelight_tensor::Tensor;
use serde_json::Value;

/// What of the transform is filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spectrum {
    /// |X|.
    Magnitude,
    /// |X|².
    Power,
}

/// How energies become features.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LogRule {
    /// `ln(e + c)`.
    LnAdd(f64),
    /// `ln(max(e, c))`.
    LnMax(f64),
    /// `log₁₀(max(e, c))`.
    Log10Max(f64),
}

/// Where frames lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// This many zeros before the first sample; a frame is there if its samples and `ahead` more are.
    Front {
        /// Zeros before the clip.
        zeros: usize,
        /// Samples after a frame that have to be there, too.
        ahead: usize,
    },
    /// None: frames that do not fit are dropped (Kaldi's `snip_edges`).
    None,
}

/// What a front end computes.
#[derive(Clone, Debug, PartialEq)]
pub struct LogMelConfig {
    /// The filters; `mel.n_fft` is the transform's size, `mel.rate` the sample rate.
    pub mel: MelConfig,
    /// Samples of a frame, at most `mel.n_fft`.
    pub frame: usize,
    /// Samples from a frame to the next.
    pub hop: usize,
    /// Weights of a frame's samples.
    pub window: Window,
    /// Where frames lie.
    pub padding: Padding,
    /// What is filtered.
    pub spectrum: Spectrum,
    /// The logarithm.
    pub log: LogRule,
    /// Factor of the samples.
    pub scale: f64,
    /// Each frame's mean is taken off.
    pub remove_dc: bool,
    /// `x[i] − p·x[i − 1]` within the frame; 0: none.
    pub preemphasis: f64,
    /// Clips are filled up with frames of zeros as if they were a multiple of this many samples long; 1: they are not.
    pub multiple: usize,
}

/// Front ends by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Gemma 4 and Gemma 3n: 128 HTK bands of magnitudes, 20 ms frames.
    Gemma4,
    /// Kaldi's 80 bands at 16 kHz without dither, samples scaled to 16 bits (SeamlessM4T, AST's family).
    Kaldi80,
}

impl Preset {
    /// Its configuration.
    pub fn config(self) -> LogMelConfig {
        let mel = |mels, f_min, scale| MelConfig {
            mels,
            n_fft: 512,
            rate: 16_000,
            f_min,
            f_max: 8000.0,
            scale,
            norm: false,
        };
        match self {
            Preset::Gemma4 => LogMelConfig {
                mel: mel(128, 0.0, MelScale::Htk),
                frame: 320,
                hop: 160,
                window: Window::Hann,
                padding: Padding::Front {
                    zeros: 160,
                    ahead: 1,
                },
                spectrum: Spectrum::Magnitude,
                log: LogRule::LnAdd(1e-3),
                scale: 1.0,
                remove_dc: false,
                preemphasis: 0.0,
                multiple: 128,
            },
            Preset::Kaldi80 => LogMelConfig {
                mel: mel(80, 20.0, MelScale::Kaldi),
                frame: 400,
                hop: 160,
                window: Window::Povey,
                padding: Padding::None,
                spectrum: Spectrum::Power,
                log: LogRule::LnMax(1.192_092_955_078_125e-7),
                scale: 32_768.0,
                remove_dc: true,
                preemphasis: 0.97,
                multiple: 1,
            },
        }
    }
}

/// A front end, planned.
#[derive(Clone)]
pub struct LogMel {
    config: LogMelConfig,
    stft: Stft,
    filters: MelFilters,
}

impl LogMel {
    /// Plans `config`.
    ///
    /// # Errors
    /// `InvalidInput` if its sizes are out of range.
    pub fn new(config: LogMelConfig) -> Result<Self> {
        let (n_fft, frame, hop) = (config.mel.n_fft, config.frame, config.hop);
        let zeros = match config.padding {
            Padding::Front { zeros, ahead } => zeros.max(ahead),
            Padding::None => 0,
        };
        let sizes = n_fft.is_multiple_of(2)
            && (2..=n_fft).contains(&frame)
            && (1..=frame).contains(&hop)
            && zeros <= frame
            && (1..=1 << 20).contains(&config.multiple);
        if !sizes {
            return Err(Error::invalid(format!(
                "frames of {frame} samples every {hop} in a transform of {n_fft}, {zeros} zeros before, \
                 a multiple of {}; frame ≤ n_fft (even), hop ≤ frame, zeros ≤ frame",
                config.multiple
            )));
        }
        Ok(LogMel {
            filters: MelFilters::new(&config.mel)?,
            stft: Stft::with_window(n_fft, hop, config.window.weights(frame)),
            config,
        })
    }

    /// A named front end.
    ///
    /// # Errors
    /// None for the presets there are.
    pub fn preset(preset: Preset) -> Result<Self> {
        Self::new(preset.config())
    }

    /// The front end of a `preprocessor_config.json` (or of the `feature_extractor` part of a `processor_config.json`) of class
    /// `Gemma4AudioFeatureExtractor`.
    ///
    /// # Errors
    /// `Malformed` if the text is not JSON, `Unsupported` for another class or a setting that is not served, `InvalidInput` for
    /// values out of range.
    pub fn from_config(json: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(json)
            .map_err(|e| Error::malformed("preprocessor_config.json", 0, e.to_string()))?;
        let file = value.get("feature_extractor").unwrap_or(&value);
        let class = file.get("feature_extractor_type").and_then(Value::as_str);
        if class != Some("Gemma4AudioFeatureExtractor") {
            return Err(Error::unsupported(format!(
                "feature extractor {}; Gemma4AudioFeatureExtractor (and WhisperFeatureExtractor, see `Whisper`) are served",
                class.unwrap_or("of no class")
            )));
        }
        let number = |key: &str, default: f64| match file.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(v) => v
                .as_f64()
                .filter(|n| (0.0..=1e6).contains(n))
                .ok_or_else(|| Error::invalid(format!("{key} = {v}"))),
        };
        for key in ["dither", "padding_value"] {
            if number(key, 0.0)? != 0.0 {
                return Err(Error::unsupported(format!("{key} other than 0")));
            }
        }
        for key in ["per_bin_mean", "per_bin_stddev"] {
            if file.get(key).is_some_and(|v| !v.is_null()) {
                return Err(Error::unsupported(format!("`{key}`")));
            }
        }
        if number("preemphasis", 0.0)? != 0.0 {
            return Err(Error::unsupported(
                "preemphasis other than 0 in a Gemma 4 front end",
            ));
        }
        let mut config = Preset::Gemma4.config();
        config.mel = MelConfig {
            mels: number("feature_size", 128.0)? as usize,
            n_fft: number("fft_length", 512.0)? as usize,
            rate: number("sampling_rate", 16_000.0)? as u32,
            f_min: number("min_frequency", 0.0)?,
            f_max: number("max_frequency", 8000.0)?,
            ..config.mel
        };
        config.frame = number("frame_length", 320.0)? as usize;
        config.hop = number("hop_length", 160.0)? as usize;
        config.padding = Padding::Front {
            zeros: config.frame / 2,
            ahead: 1,
        };
        config.log = LogRule::LnAdd(number("mel_floor", 1e-3)?);
        config.scale = number("input_scale_factor", 1.0)?;
        Self::new(config)
    }

    /// What it computes.
    pub fn config(&self) -> &LogMelConfig {
        &self.config
    }

    /// The sample rate that the samples must have, Hz.
    pub fn rate(&self) -> u32 {
        self.config.mel.rate
    }

    /// Filters, `M`.
    pub fn mels(&self) -> usize {
        self.filters.mels()
    }

    /// Frames of a clip of `samples` samples that hold nothing but the clip.
    pub fn frames(&self, samples: usize) -> usize {
        let (zeros, ahead) = self.around();
        match (samples + zeros).checked_sub(self.config.frame + ahead) {
            Some(rest) => rest / self.config.hop + 1,
            None => 0,
        }
    }

    /// Frames of the features of such a clip: those, and frames of zeros up to the multiple.
    pub fn padded_frames(&self, samples: usize) -> usize {
        self.frames(samples.next_multiple_of(self.config.multiple.max(1)))
    }

    fn around(&self) -> (usize, usize) {
        match self.config.padding {
            Padding::Front { zeros, ahead } => (zeros, ahead),
            Padding::None => (0, 0),
        }
    }

    /// The features `[T, M]` of a clip.
    ///
    /// # Errors
    /// `InvalidInput` if a sample is no number of at most 1e20, or the clip has not a single frame.
    pub fn features(&self, samples: &[f32]) -> Result<Tensor> {
        let mut stream = self.stream();
        let mut values = Vec::new();
        stream.push(samples, &mut values)?;
        stream.finish(&mut values);
        if values.is_empty() {
            return Err(Error::invalid(format!(
                "{} samples are shorter than a frame; pad the clip with zeros",
                samples.len()
            )));
        }
        Ok(Tensor::from_f32(
            &values,
            &[values.len() / self.mels(), self.mels()],
        )?)
    }

    /// A stream over one clip.
    pub fn stream(&self) -> LogMelStream<'_> {
        LogMelStream {
            front: self,
            waiting: vec![0.0; self.around().0],
            taken: 0,
            scratch: self.stft.scratch(),
            frame: Vec::with_capacity(self.config.frame),
            energies: vec![[0.0; LANES]; self.mels()],
        }
    }
}

impl std::fmt::Debug for LogMel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LogMel").field(&self.config).finish()
    }
}

/// A clip's samples as they come. Holds a frame's samples, however long the clip is.
pub struct LogMelStream<'a> {
    front: &'a LogMel,
    /// Samples from the next frame's first on.
    waiting: Vec<f32>,
    taken: usize,
    scratch: Scratch,
    frame: Vec<f64>,
    energies: Vec<Lane>,
}

impl LogMelStream<'_> {
    /// Takes samples and appends the frames `[t, M]` that they complete to `out`; returns how many.
    ///
    /// # Errors
    /// `InvalidInput` if a sample is no number of at most 1e20; nothing is taken then.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<usize> {
        check_finite(samples, self.taken)?;
        self.taken += samples.len();
        self.waiting.extend_from_slice(samples);
        let c = &self.front.config;
        let need = c.frame + self.front.around().1;
        let (mut at, mut made) = (0, 0);
        loop {
            let mut some = 0;
            while some < LANES
                && let Some(frame) = self.waiting.get(at..at + need)
            {
                self.frame.clear();
                let own = frame.iter().take(c.frame);
                self.frame.extend(own.map(|&x| f64::from(x) * c.scale));
                prepare(&mut self.frame, c);
                let narrow = c.window == Window::Hann;
                self.front
                    .stft
                    .put(&self.frame, narrow, some, &mut self.scratch);
                (at, some) = (at + c.hop, some + 1);
            }
            if some == 0 {
                break;
            }
            self.front.stft.transform(&mut self.scratch);
            let power = &mut self.scratch.power;
            if c.spectrum == Spectrum::Magnitude {
                power
                    .as_flattened_mut()
                    .iter_mut()
                    .for_each(|p| *p = p.sqrt());
            }
            self.front.filters.apply(power, &mut self.energies);
            let (add, least, log) = match c.log {
                LogRule::LnAdd(add) => (add, 0.0, Log::Natural),
                LogRule::LnMax(least) => (0.0, least, Log::Natural),
                LogRule::Log10Max(least) => (0.0, least, Log::Ten),
            };
            logs(&mut self.energies, add, least, log);
            for lane in 0..some {
                out.extend(self.energies.iter().map(|e| e[lane] as f32));
            }
            made += some;
        }
        self.waiting.drain(..at);
        Ok(made)
    }

    /// Ends the clip: appends the frames of zeros that fill it up, and makes the stream ready for another.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        let (all, real) = (
            self.front.padded_frames(self.taken),
            self.front.frames(self.taken),
        );
        out.extend(std::iter::repeat_n(0.0, (all - real) * self.front.mels()));
        self.taken = 0;
        self.waiting.clear();
        self.waiting.resize(self.front.around().0, 0.0);
    }
}

impl std::fmt::Debug for LogMelStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogMelStream({} samples)", self.taken)
    }
}

/// Takes off the mean and pre-emphasises.
fn prepare(frame: &mut [f64], c: &LogMelConfig) {
    if c.remove_dc {
        let mean = frame.iter().sum::<f64>() / frame.len().max(1) as f64;
        frame.iter_mut().for_each(|x| *x -= mean);
    }
    if c.preemphasis != 0.0 {
        for i in (1..frame.len()).rev() {
            frame[i] -= c.preemphasis * frame[i - 1];
        }
        if let Some(first) = frame.first_mut() {
            *first *= 1.0 - c.preemphasis;
        }
    }
}
