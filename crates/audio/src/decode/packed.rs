//! Compressed formats, through symphonia.

#[cfg(feature = "opus")]
use super::opus::{self, Opus};
use super::{DecodeOptions, FORMAT};
use crate::{Error, Result};
use std::io::Cursor;
#[cfg(feature = "opus")]
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Fault;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;

/// The bytes after the ID3v2 tags at a file's beginning: ten bytes of head, of which the last four give the length of the rest, seven
/// bits each, and perhaps ten of foot. Source: id3.org, "ID3 tag version 2.4.0", 3.1.
fn untagged(mut bytes: &[u8]) -> &[u8] {
    while let [b'I', b'D', b'3', _, _, flags, size @ ..] = bytes
        && let Some(size) = size
            .first_chunk::<4>()
            .filter(|s| s.iter().all(|b| *b < 128))
    {
        let rest = size.iter().fold(0, |n, b| n << 7 | usize::from(*b));
        let foot = if flags & 0x10 == 0 { 0 } else { 10 };
        match bytes.get(10 + rest + foot..) {
            Some(after) => bytes = after,
            None => break,
        }
    }
    bytes
}

/// The samples of a compressed file.
pub(super) struct Packed<'a> {
    pub(super) rate: u32,
    pub(super) channels: usize,
    /// Samples per channel, where the header says so.
    pub(super) promised: Option<u64>,
    format: Box<dyn FormatReader + 'a>,
    decoder: Codec,
    track: u32,
    given: u64,
    size: u64,
    keep_truncated: bool,
}

enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    #[cfg(feature = "opus")]
    Opus(Box<Opus>),
}

impl<'a> Packed<'a> {
    /// `None` if the bytes are no format of this build.
    pub(super) fn new(bytes: &'a [u8], options: &DecodeOptions) -> Result<Option<Self>> {
        let bytes = untagged(bytes);
        let size = bytes.len() as u64;
        let stream = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
        let probe = symphonia::default::get_probe();
        let format = match probe.probe(&Hint::new(), stream, Default::default(), Default::default())
        {
            Ok(format) => format,
            Err(e) if bytes.starts_with(b"fLaC") || bytes.starts_with(b"OggS") => {
                return Err(fault(e, size));
            }
            Err(Fault::IoError(_) | Fault::Unsupported(_)) => return Ok(None),
            Err(e) => return Err(fault(e, size)),
        };
        let track = format
            .default_track(TrackType::Audio)
            .ok_or_else(|| Error::unsupported("a file without an audio track"))?;
        let params = track
            .codec_params
            .as_ref()
            .and_then(|p| p.audio())
            .ok_or_else(|| Error::unsupported("a file whose codec this build does not know"))?;
        #[cfg_attr(not(feature = "opus"), allow(unused_mut))]
        let (mut rate, mut channels) = (
            params.sample_rate.unwrap_or(0),
            params.channels.as_ref().map_or(0, |c| c.count()),
        );
        // A container's clock may be coarser than a sample; then its lengths are no count of samples.
        let clock = track.time_base.map(|t| (t.numer.get(), t.denom.get()));
        #[cfg_attr(not(feature = "opus"), allow(unused_mut))]
        let mut promised = track.num_frames.filter(|_| clock == Some((1, rate)));
        #[cfg(feature = "opus")]
        let decoder = if params.codec == CODEC_ID_OPUS {
            let opus = Opus::new(params.extra_data.as_deref().unwrap_or_default(), bytes)?;
            (rate, channels) = (opus::RATE, opus.channels);
            promised = None;
            Codec::Opus(Box::new(opus))
        } else {
            symphonia_decoder(params, size)?
        };
        #[cfg(not(feature = "opus"))]
        let decoder = symphonia_decoder(params, size)?;
        Ok(Some(Packed {
            rate,
            channels,
            promised,
            track: track.id,
            format,
            decoder,
            given: 0,
            size,
            keep_truncated: options.keep_truncated,
        }))
    }

    /// Puts the next interleaved samples into `out`; none at the end.
    pub(super) fn next_block(&mut self, out: &mut Vec<f32>) -> Result<()> {
        out.clear();
        while out.is_empty() {
            let packet = match self.format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return self.end(),
                Err(Fault::IoError(_)) if self.keep_truncated => return Ok(()),
                Err(e) => return Err(fault(e, self.size)),
            };
            if packet.track_id != self.track {
                continue;
            }
            match &mut self.decoder {
                #[cfg(feature = "opus")]
                Codec::Opus(opus) => {
                    opus.decode(&packet.data, out)?;
                    self.given += (out.len() / self.channels) as u64;
                }
                Codec::Symphonia(decoder) => {
                    let block = decoder.decode(&packet).map_err(|e| fault(e, self.size))?;
                    let (rate, channels) = (block.spec().rate(), block.spec().channels().count());
                    if rate != self.rate || channels != self.channels {
                        return Err(Error::unsupported(format!(
                            "a file that changes on the way from {} Hz and {} channels to {rate} Hz and {channels}",
                            self.rate, self.channels
                        )));
                    }
                    block.copy_to_vec_interleaved(out);
                    self.given += block.frames() as u64;
                }
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<()> {
        match self.promised {
            Some(promised) if promised > self.given && !self.keep_truncated => {
                Err(Error::malformed(
                    FORMAT,
                    self.size,
                    format!(
                        "{promised} samples promised, {} found (truncated?); set keep_truncated to take what is there",
                        self.given
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}

fn symphonia_decoder(params: &AudioCodecParameters, size: u64) -> Result<Codec> {
    symphonia::default::get_codecs()
        .make_audio_decoder(params, &AudioDecoderOptions::default())
        .map(Codec::Symphonia)
        .map_err(|e| fault(e, size))
}

fn fault(e: Fault, size: u64) -> Error {
    match e {
        Fault::Unsupported(what) => Error::unsupported(what),
        Fault::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::malformed(FORMAT, size, "the file ends too soon (truncated?)")
        }
        e => Error::malformed(FORMAT, 0, e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::untagged;

    #[test]
    fn tags_are_left_out() {
        let tag = |flags: u8, size: [u8; 4], rest: usize| {
            let head = [b'I', b'D', b'3', 4, 0, flags].into_iter().chain(size);
            head.chain(std::iter::repeat_n(b'x', rest))
                .collect::<Vec<u8>>()
        };
        let sound = b"sound".to_vec();
        let one = [tag(0, [0, 0, 1, 2], 130), sound.clone()].concat();
        assert_eq!(untagged(&one), sound);
        let two = [tag(0x10, [0, 0, 0, 3], 13), one].concat();
        assert_eq!(untagged(&two), sound);
        // No tag, one that ends too soon, and one whose size is none.
        assert_eq!(untagged(&sound), sound);
        for no in [
            tag(0, [0, 0, 1, 2], 129),
            tag(0, [0, 128, 0, 0], 9),
            b"ID3".to_vec(),
        ] {
            assert_eq!(untagged(&no), no);
        }
    }
}
