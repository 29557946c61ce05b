//! Audio files to mono samples, under limits.
//!
//! The format is known by content. Samples become f32 (integers by their full scale: i16 / 32768), channels are averaged (or
//! summed, see [`Downmix`]);
//! values beyond ±1 in float files are kept. A NaN, an infinity or a value beyond 1e20 is an error: it would spoil all
//! that is computed from it.

mod g711;
#[cfg(feature = "opus")]
mod opus;
#[cfg(any(
    feature = "flac",
    feature = "mp3",
    feature = "vorbis",
    feature = "aac",
    feature = "opus"
))]
mod packed;
mod wav;

use crate::stft::{MAX_SAMPLE, first_bad};
use crate::{Error, Resampler, Result};
#[cfg(any(
    feature = "flac",
    feature = "mp3",
    feature = "vorbis",
    feature = "aac",
    feature = "opus"
))]
use packed::Packed;
use wav::Wav;

const FORMAT: &str = "audio";
/// Sample rates that occur, in Hz.
const RATES: std::ops::RangeInclusive<u32> = 1000..=768_000;
const MAX_CHANNELS: u64 = 64;

/// Mono samples at a sample rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Audio {
    /// Samples per second, Hz.
    pub rate: u32,
    /// The samples, nominally in −1…1.
    pub samples: Vec<f32>,
}

/// How much a file may cost, and what to do with one that ends too soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The most mono samples of a result. Default 2²⁸: 4.6 hours at 16 kHz, 1 GiB.
    pub max_samples: u64,
    /// Whether a file that ends before its header says gives what is there (default: it is an error).
    pub keep_truncated: bool,
    /// How channels become one.
    pub downmix: Downmix,
}

/// How the channels of a frame become one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Downmix {
    /// Their mean, as ffmpeg and librosa do: never louder than the loudest channel.
    #[default]
    Mean,
    /// Their sum over √C: for stereo √2/2 · (left + right), as the web's transcription apps do. Keeps the power of unlike channels,
    /// and goes up to √C beyond ±1 where they are alike.
    Power,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        DecodeOptions {
            max_samples: 1 << 28,
            keep_truncated: false,
            downmix: Downmix::Mean,
        }
    }
}

/// A file's samples, block by block: memory stays small however long the file is.
pub struct Decoder<'a> {
    reader: Reader<'a>,
    rate: u32,
    channels: usize,
    downmix: Downmix,
    promised: Option<u64>,
    given: u64,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
}

enum Reader<'a> {
    Wav(Wav<'a>),
    #[cfg(any(
        feature = "flac",
        feature = "mp3",
        feature = "vorbis",
        feature = "aac",
        feature = "opus"
    ))]
    Packed(Box<Packed<'a>>),
}

impl<'a> Decoder<'a> {
    /// A decoder over the bytes of a file. Of `options`, `keep_truncated` and `downmix` matter.
    ///
    /// # Errors
    /// `Unsupported` if the content is no format of this build or the sample rate lies outside 1…768 kHz, `Malformed` if
    /// the header is broken, `Limit` for more than 64 channels.
    pub fn new(bytes: &'a [u8], options: &DecodeOptions) -> Result<Self> {
        if bytes.is_empty() {
            return Err(Error::malformed(FORMAT, 0, "the file is empty"));
        }
        let (reader, rate, channels, promised) = if Wav::is(bytes) {
            let r = Wav::new(bytes, options.keep_truncated)?;
            let about = (r.rate, r.channels, r.promised);
            (Reader::Wav(r), about.0, about.1, about.2)
        } else {
            packed(bytes, options)?
        };
        if channels as u64 > MAX_CHANNELS {
            return Err(Error::Limit {
                what: "channels of an audio file",
                max: MAX_CHANNELS,
                got: channels as u64,
            });
        }
        check_rate(rate)?;
        if channels == 0 {
            return Err(Error::unsupported(
                "a file that does not say how many channels it has",
            ));
        }
        Ok(Decoder {
            reader,
            rate,
            channels,
            downmix: options.downmix,
            promised,
            given: 0,
            interleaved: Vec::new(),
            mono: Vec::new(),
        })
    }

    /// Samples per second, Hz.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Channels in the file.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Samples per channel, where the header says so. It may lie.
    pub fn promised_samples(&self) -> Option<u64> {
        self.promised
    }

    /// The next mono samples, or `None` at the end.
    ///
    /// # Errors
    /// `Malformed` if the bytes are broken, end too soon (unless kept), or hold a NaN, an infinity or a value beyond 1e20; `Unsupported` if
    /// rate or channels change on the way.
    pub fn next_block(&mut self) -> Result<Option<&[f32]>> {
        let offset = match &mut self.reader {
            Reader::Wav(r) => {
                r.next_block(&mut self.interleaved);
                r.position()
            }
            #[cfg(any(
                feature = "flac",
                feature = "mp3",
                feature = "vorbis",
                feature = "aac",
                feature = "opus"
            ))]
            Reader::Packed(r) => {
                r.next_block(&mut self.interleaved)?;
                0
            }
        };
        if let Some(at) = first_bad(&self.interleaved) {
            let what = format!(
                "sample {} is {}; samples are numbers of at most {MAX_SAMPLE:e} in size",
                self.given + (at / self.channels) as u64,
                self.interleaved[at]
            );
            return Err(Error::malformed(FORMAT, offset, what));
        }
        let divisor = match self.downmix {
            Downmix::Mean => self.channels as f32,
            Downmix::Power => (self.channels as f32).sqrt(),
        };
        downmix(&self.interleaved, self.channels, divisor, &mut self.mono);
        self.given += self.mono.len() as u64;
        Ok((!self.mono.is_empty()).then_some(&self.mono))
    }
}

#[cfg(any(
    feature = "flac",
    feature = "mp3",
    feature = "vorbis",
    feature = "aac",
    feature = "opus"
))]
fn packed<'a>(
    bytes: &'a [u8],
    options: &DecodeOptions,
) -> Result<(Reader<'a>, u32, usize, Option<u64>)> {
    let r = Packed::new(bytes, options)?.ok_or_else(|| unknown(bytes))?;
    let about = (r.rate, r.channels, r.promised);
    Ok((Reader::Packed(Box::new(r)), about.0, about.1, about.2))
}

#[cfg(not(any(
    feature = "flac",
    feature = "mp3",
    feature = "vorbis",
    feature = "aac",
    feature = "opus"
)))]
fn packed<'a>(bytes: &'a [u8], _: &DecodeOptions) -> Result<(Reader<'a>, u32, usize, Option<u64>)> {
    Err(unknown(bytes))
}

fn unknown(bytes: &[u8]) -> Error {
    Error::unsupported(format!(
        "the bytes are no audio file of a format in this build (WAV, and flac, mp3, vorbis, aac, opus as features): \
         {} bytes starting {:02x?}",
        bytes.len(),
        &bytes[..bytes.len().min(8)]
    ))
}

impl std::fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Decoder({} Hz, {} channels, {} samples so far)",
            self.rate, self.channels, self.given
        )
    }
}

/// A file's samples as mono at its own rate, with the default options.
///
/// # Errors
/// As [`decode_with`].
pub fn decode(bytes: &[u8]) -> Result<Audio> {
    decode_with(bytes, None, &DecodeOptions::default())
}

/// A file's samples as mono at `rate` Hz (`None`: at its own).
///
/// # Errors
/// As [`Decoder::new`] and [`Decoder::next_block`]; `Limit` if the result would exceed `options.max_samples`.
pub fn decode_with(bytes: &[u8], rate: Option<u32>, options: &DecodeOptions) -> Result<Audio> {
    let mut decoder = Decoder::new(bytes, options)?;
    let rate = rate.unwrap_or(decoder.rate());
    let mut resampler = Resampler::new(decoder.rate(), rate)?;
    let mut samples = Vec::new();
    while let Some(block) = decoder.next_block()? {
        resampler.push(block, &mut samples)?;
        check_samples(&samples, options)?;
    }
    resampler.finish(&mut samples);
    check_samples(&samples, options)?;
    Ok(Audio { rate, samples })
}

fn check_samples(samples: &[f32], options: &DecodeOptions) -> Result<()> {
    if samples.len() as u64 > options.max_samples {
        return Err(Error::Limit {
            what: "samples of decoded audio",
            max: options.max_samples,
            got: samples.len() as u64,
        });
    }
    Ok(())
}

/// The sum of the channels of each interleaved frame over `divisor`.
fn downmix(interleaved: &[f32], channels: usize, divisor: f32, mono: &mut Vec<f32>) {
    mono.clear();
    match channels {
        1 => mono.extend_from_slice(interleaved),
        _ => mono.extend(
            interleaved
                .chunks_exact(channels)
                .map(|frame| frame.iter().sum::<f32>() / divisor),
        ),
    }
}

pub(crate) fn check_rate(rate: u32) -> Result<()> {
    if !RATES.contains(&rate) {
        return Err(Error::unsupported(format!(
            "a sample rate of {rate} Hz; {} to {} are",
            RATES.start(),
            RATES.end()
        )));
    }
    Ok(())
}
