//! Audio files to mono samples, under limits.
//!
//! The format is known by content. Samples become f32 (integers by their full scale: i16 / 32768), channels are averaged;
//! values beyond ±1 in float files are kept. A NaN or an infinity is an error: every feature after it would be one too.

mod source;
mod wav;

use crate::{Error, Resampler, Result};
use source::Source;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Fault;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;

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
}

impl Default for DecodeOptions {
    fn default() -> Self {
        DecodeOptions {
            max_samples: 1 << 28,
            keep_truncated: false,
        }
    }
}

/// A file's samples, block by block: memory stays small however long the file is.
pub struct Decoder<'a> {
    format: Box<dyn FormatReader + 'a>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    rate: u32,
    channels: usize,
    /// Samples per channel that the header promises.
    promised: Option<u64>,
    given: u64,
    keep_truncated: bool,
    reached: Arc<AtomicU64>,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
}

impl<'a> Decoder<'a> {
    /// A decoder over the bytes of a file. Of `options`, `keep_truncated` matters.
    ///
    /// # Errors
    /// `Unsupported` if the content is no format of this build, `Malformed` if its header is broken, `Limit` for more
    /// than 64 channels or a sample rate outside 1…768 kHz.
    pub fn new(bytes: &'a [u8], options: &DecodeOptions) -> Result<Self> {
        if bytes.is_empty() {
            return Err(Error::malformed(FORMAT, 0, "the file is empty"));
        }
        let source = Source::new(bytes, wav::patches(bytes, options.keep_truncated)?);
        let reached = source.reached();
        let stream = MediaSourceStream::new(Box::new(source), Default::default());
        let fault = |e| fault(e, &reached);
        let format = symphonia::default::get_probe()
            .probe(&Hint::new(), stream, Default::default(), Default::default())
            .map_err(|e| match e {
                Fault::IoError(_) | Fault::Unsupported(_) if !known(bytes) => Error::unsupported(format!(
                    "the bytes are no audio file of a format in this build: {} bytes starting {:02x?}",
                    bytes.len(),
                    &bytes[..bytes.len().min(8)]
                )),
                e => fault(e),
            })?;
        let track = format
            .default_track(TrackType::Audio)
            .ok_or_else(|| Error::unsupported("the file has no audio track"))?;
        let params = track
            .codec_params
            .as_ref()
            .and_then(|p| p.audio())
            .ok_or_else(|| Error::unsupported("the codec of the audio track is not known"))?;
        let channels = params.channels.as_ref().map_or(0, |c| c.count());
        if channels as u64 > MAX_CHANNELS {
            return Err(Error::Limit {
                what: "channels of an audio file",
                max: MAX_CHANNELS,
                got: channels as u64,
            });
        }
        let rate = params.sample_rate.unwrap_or(0);
        check_rate(rate)?;
        let decoder = symphonia::default::get_codecs()
            .make_audio_decoder(params, &AudioDecoderOptions::default())
            .map_err(fault)?;
        Ok(Decoder {
            track: track.id,
            promised: track.num_frames,
            format,
            decoder,
            rate,
            channels,
            given: 0,
            keep_truncated: options.keep_truncated,
            reached,
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
    /// `Malformed` if the bytes are broken, end too soon (unless kept), or hold a NaN or an infinity; `Unsupported` if
    /// rate or channels change on the way.
    pub fn next_block(&mut self) -> Result<Option<&[f32]>> {
        loop {
            let packet = match self.format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return self.end(),
                Err(Fault::IoError(_)) if self.keep_truncated => return Ok(None),
                Err(e) => return Err(fault(e, &self.reached)),
            };
            if packet.track_id != self.track {
                continue;
            }
            let block = self
                .decoder
                .decode(&packet)
                .map_err(|e| fault(e, &self.reached))?;
            let (rate, channels) = (block.spec().rate(), block.spec().channels().count());
            if self.channels == 0 {
                self.channels = channels;
            }
            if rate != self.rate || channels != self.channels || channels == 0 {
                return Err(Error::unsupported(format!(
                    "a file that changes on the way from {} Hz and {} channels to {rate} Hz and {channels}",
                    self.rate, self.channels
                )));
            }
            block.copy_to_vec_interleaved(&mut self.interleaved);
            if let Some(at) = self.interleaved.iter().position(|v| !v.is_finite()) {
                let what = format!(
                    "sample {} is {}; samples are finite",
                    self.given + (at / channels) as u64,
                    self.interleaved[at]
                );
                return Err(Error::malformed(
                    FORMAT,
                    self.reached.load(Ordering::Relaxed),
                    what,
                ));
            }
            downmix(&self.interleaved, channels, &mut self.mono);
            self.given += self.mono.len() as u64;
            if !self.mono.is_empty() {
                return Ok(Some(&self.mono));
            }
        }
    }

    fn end(&self) -> Result<Option<&[f32]>> {
        match self.promised {
            Some(promised) if promised > self.given && !self.keep_truncated => {
                Err(Error::malformed(
                    FORMAT,
                    self.reached.load(Ordering::Relaxed),
                    format!(
                        "{promised} samples promised, {} found (truncated?); set keep_truncated to take what is there",
                        self.given
                    ),
                ))
            }
            _ => Ok(None),
        }
    }
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
        resampler.push(block, &mut samples);
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

/// The mean of the channels of each interleaved frame.
fn downmix(interleaved: &[f32], channels: usize, mono: &mut Vec<f32>) {
    mono.clear();
    match channels {
        1 => mono.extend_from_slice(interleaved),
        _ => mono.extend(
            interleaved
                .chunks_exact(channels)
                .map(|frame| frame.iter().sum::<f32>() / channels as f32),
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

/// Whether the first bytes announce a format that some build of this crate reads.
fn known(bytes: &[u8]) -> bool {
    let wave = bytes.get(8..12) == Some(b"WAVE");
    bytes.starts_with(b"RIFF") && wave || bytes.starts_with(b"fLaC") && cfg!(feature = "flac")
}

fn fault(e: Fault, reached: &AtomicU64) -> Error {
    let offset = reached.load(Ordering::Relaxed);
    match e {
        Fault::Unsupported(what) => Error::unsupported(what),
        Fault::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::malformed(FORMAT, offset, "the file ends too soon (truncated?)")
        }
        e => Error::malformed(FORMAT, offset, e.to_string()),
    }
}
