//! A recording as the features that a model hears: what its front end computes, whole or piece by piece.
//!
//! ```no_run
//! # fn run(samples: &[f32]) -> firelight_runtime::Result<()> {
//! use firelight_runtime::pipelines::features::FrontEnd;
//! let front = FrontEnd::named("whisper80")?;
//! let tensors = front.compute(samples, None)?; // mono samples at front.rate()
//! assert_eq!(tensors[0].0, "input_features");
//! # Ok(()) }
//! ```

use crate::{Error, Result};
use firelight_audio::{LogMel, Preset, Whisper};
use firelight_tensor::{AlignedBuf, DType, Tensor};

/// A front end of any kind.
#[derive(Clone, Debug)]
pub enum FrontEnd {
    /// Whisper's: windows of 30 s.
    Whisper(Whisper),
    /// One whose frames do not hang on one another.
    LogMel(LogMel),
}

/// The names of [`FrontEnd::named`].
pub const NAMES: [&str; 4] = ["whisper80", "whisper128", "gemma4", "kaldi80"];

impl FrontEnd {
    /// The front end of this name.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown name.
    pub fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "whisper80" => FrontEnd::Whisper(Whisper::new(80)?),
            "whisper128" => FrontEnd::Whisper(Whisper::new(128)?),
            "gemma4" => FrontEnd::LogMel(LogMel::preset(Preset::Gemma4)?),
            "kaldi80" => FrontEnd::LogMel(LogMel::preset(Preset::Kaldi80)?),
            _ => {
                return Err(Error::invalid(format!(
                    "front end {name}; known: {}",
                    NAMES.join(", ")
                )));
            }
        })
    }

    /// The front end of a model's folder: its `processor_config.json` or `preprocessor_config.json`.
    ///
    /// # Errors
    /// `Malformed` if there is none, `Audio` for one that is not served.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn of_folder(dir: &std::path::Path) -> Result<Self> {
        for name in ["preprocessor_config.json", "processor_config.json"] {
            let path = dir.join(name);
            if path.is_file() {
                let bytes = crate::checkpoint::read_limited(&path, 16 << 20)?;
                return Self::of_config(&String::from_utf8_lossy(&bytes));
            }
        }
        Err(Error::malformed(
            dir.display().to_string(),
            "no preprocessor_config.json or processor_config.json",
        ))
    }

    /// The front end of a processor's configuration.
    ///
    /// # Errors
    /// `Audio` for one that is not served.
    pub fn of_config(json: &str) -> Result<Self> {
        match json.contains("WhisperFeatureExtractor") {
            true => Ok(FrontEnd::Whisper(Whisper::from_config(json)?)),
            false => Ok(FrontEnd::LogMel(LogMel::from_config(json)?)),
        }
    }

    /// With up to `threads` threads where the front end can use them (Whisper's): the same bits. One unless this is called.
    pub fn with_threads(self, threads: usize) -> Self {
        match self {
            FrontEnd::Whisper(f) => FrontEnd::Whisper(f.with_threads(threads)),
            other => other,
        }
    }

    /// The sample rate that samples must have, Hz.
    pub fn rate(&self) -> u32 {
        match self {
            FrontEnd::Whisper(f) => f.rate(),
            FrontEnd::LogMel(f) => f.rate(),
        }
    }

    /// The features under upstream's names: `input_features` `[B, M, T]` of Whisper's windows, `[1, T, M]` of others, and
    /// `input_features_mask` `[1, T]` where frames may be padding. With `chunk` the samples go through a stream, so many at a
    /// time: the same numbers.
    ///
    /// # Errors
    /// `Audio` if a sample is no number or there is not a single frame.
    pub fn compute(&self, samples: &[f32], chunk: Option<usize>) -> Result<Vec<(String, Tensor)>> {
        let chunk = chunk.unwrap_or(usize::MAX).max(1);
        match self {
            FrontEnd::Whisper(front) => {
                let count = samples.len().div_ceil(front.window().max(1)).max(1);
                let size = front.mels() * front.frames();
                // What is written becomes the tensor as it lies.
                let mut values = AlignedBuf::zeroed(count * size * size_of::<f32>())?;
                let floats: &mut [f32] = bytemuck::cast_slice_mut(&mut values);
                let mut windows: Vec<&[f32]> = samples.chunks(front.window()).collect();
                windows.resize(count, &[]);
                if chunk >= front.window() {
                    front.windows_into(&windows, floats)?;
                } else {
                    for (window, out) in windows.iter().zip(floats.chunks_exact_mut(size)) {
                        let mut stream = front.stream();
                        for piece in window.chunks(chunk) {
                            stream.push(piece)?;
                        }
                        out.copy_from_slice(&stream.features()?.to_f32_vec()?);
                    }
                }
                let shape = [count, front.mels(), front.frames()];
                let features = Tensor::new(DType::F32, &shape, values)?;
                Ok(vec![("input_features".to_owned(), features)])
            }
            FrontEnd::LogMel(front) => {
                let (mut values, mut stream) = (Vec::new(), front.stream());
                for piece in samples.chunks(chunk) {
                    stream.push(piece, &mut values)?;
                }
                stream.finish(&mut values);
                let frames = values.len() / front.mels().max(1);
                if frames == 0 {
                    return Err(Error::invalid(format!(
                        "{} samples are shorter than a frame",
                        samples.len()
                    )));
                }
                let real = front.frames(samples.len());
                let mask = (0..frames).map(|t| u8::from(t < real)).collect::<Vec<_>>();
                let features = Tensor::from_f32(&values, &[1, frames, front.mels()])?;
                Ok(vec![
                    ("input_features".to_owned(), features),
                    (
                        "input_features_mask".to_owned(),
                        Tensor::new(DType::Bool, &[1, frames], mask)?,
                    ),
                ])
            }
        }
    }
}

/// Tensors as a safetensors file.
///
/// # Errors
/// `Tensor` if they cannot be written.
pub fn to_safetensors(tensors: &[(String, Tensor)]) -> Result<Vec<u8>> {
    let listed = tensors.iter().map(|(name, t)| (name.as_str(), t));
    Ok(firelight_tensor::safetensors::write_to_vec(
        &Default::default(),
        listed,
    )?)
}
