//! Opus packets to samples at 48 kHz.
//!
//! The identification header (RFC 7845 §5.1), which Ogg has as its first packet and WebM as the track's private data, says how
//! many channels there are, how many samples to drop at the start and by how much to turn the volume:
//! ```text
//! "OpusHead", version, channels, pre-skip u16, input rate u32, gain i16 (dB · 256), family
//! family ≠ 0: streams, coupled streams, one stream index per channel
//! ```

use super::FORMAT;
use crate::{Error, Result};
use ropus::{Channels, DecodeMode, Decoder, OpusMSDecoder};

/// Opus decodes to this rate, Hz.
pub(super) const RATE: u32 = 48_000;
/// The longest packet: 120 ms.
const MAX_FRAMES: usize = 5760;

enum Kind {
    One(Box<Decoder>),
    /// With room for a packet.
    Many(Box<OpusMSDecoder>, Vec<i16>),
}

/// A decoder set up by an identification header.
pub(super) struct Opus {
    pub(super) channels: usize,
    kind: Kind,
    /// Samples still to be dropped.
    skip: usize,
    /// Samples still to be given, where the file says.
    left: u64,
    gain: f32,
    block: Vec<f32>,
}

impl Opus {
    /// A decoder for the track of `head` in the file `bytes`.
    pub(super) fn new(head: &[u8], bytes: &[u8]) -> Result<Self> {
        let short = || {
            Error::malformed(
                FORMAT,
                0,
                format!(
                    "an Opus header of {} bytes; 19 or more expected",
                    head.len()
                ),
            )
        };
        let Some(
            &[
                b'O',
                b'p',
                b'u',
                b's',
                b'H',
                b'e',
                b'a',
                b'd',
                version,
                channels,
                skip0,
                skip1,
                _,
                _,
                _,
                _,
                gain0,
                gain1,
                family,
            ],
        ) = head.first_chunk::<19>()
        else {
            return Err(short());
        };
        if version >> 4 != 0 {
            return Err(Error::unsupported(format!(
                "Opus header version {version}; versions below 16 are read"
            )));
        }
        let channels = usize::from(channels);
        let one = |channels| {
            let decoder = Decoder::new(RATE, channels).map_err(|e| fault(format!("{e:?}")))?;
            Ok::<_, Error>(Kind::One(Box::new(decoder)))
        };
        let kind = match (family, channels) {
            (0, 1) => one(Channels::Mono)?,
            (0, 2) => one(Channels::Stereo)?,
            (0, n) => {
                return Err(Error::malformed(
                    FORMAT,
                    9,
                    format!("{n} channels of Opus without a mapping"),
                ));
            }
            _ => {
                let (Some(&streams), Some(&coupled)) = (head.get(19), head.get(20)) else {
                    return Err(short());
                };
                let mapping = head.get(21..21 + channels).ok_or_else(short)?;
                let count = i32::from(head.get(9).copied().unwrap_or(0));
                let (rate, streams, coupled) = (RATE as i32, streams.into(), coupled.into());
                let decoder = OpusMSDecoder::new(rate, count, streams, coupled, mapping)
                    .map_err(|code| fault(format!("mapping refused ({code})")))?;
                Kind::Many(Box::new(decoder), vec![0; MAX_FRAMES * channels])
            }
        };
        let gain = f32::from(i16::from_le_bytes([gain0, gain1]));
        let skip = u16::from_le_bytes([skip0, skip1]);
        let end = last_position(bytes).map(|n| n.saturating_sub(skip.into()));
        Ok(Opus {
            channels,
            kind,
            skip: skip.into(),
            left: end.unwrap_or(u64::MAX),
            gain: 10f32.powf(gain / 5120.0),
            block: vec![0.0; MAX_FRAMES * channels],
        })
    }

    /// Puts a packet's interleaved samples into `out`.
    pub(super) fn decode(&mut self, packet: &[u8], out: &mut Vec<f32>) -> Result<()> {
        // An empty packet stands for a lost one; in a file it is nothing.
        if packet.is_empty() {
            return Ok(());
        }
        let block = &mut self.block;
        let made = match &mut self.kind {
            Kind::One(d) => d
                .decode_float(packet, block, DecodeMode::Normal)
                .map_err(|e| fault(format!("{e:?}")))?,
            Kind::Many(d, words) => {
                let len = i32::try_from(packet.len()).unwrap_or(i32::MAX);
                let made = d.decode(Some(packet), len, words, MAX_FRAMES as i32, false);
                let made = made.map_err(|code| fault(format!("a damaged packet ({code})")))?;
                for (to, from) in block.iter_mut().zip(words) {
                    *to = f32::from(*from) / 32768.0;
                }
                usize::try_from(made).unwrap_or(0)
            }
        };
        let frames = made.min(MAX_FRAMES);
        let dropped = self.skip.min(frames);
        self.skip -= dropped;
        let kept = ((frames - dropped) as u64).min(self.left);
        self.left -= kept;
        let end = dropped + kept as usize;
        let kept = self
            .block
            .get(dropped * self.channels..end * self.channels)
            .unwrap_or_default();
        out.extend(kept.iter().map(|v| v * self.gain));
        Ok(())
    }
}

/// Where an Ogg file ends, in samples with those to be skipped: the position in the head of its last page.
fn last_position(bytes: &[u8]) -> Option<u64> {
    if !bytes.starts_with(b"OggS") {
        return None;
    }
    let head = bytes.windows(14).rev().find(|w| w.starts_with(b"OggS\0"))?;
    let position = head.last_chunk::<8>().map(|b| u64::from_le_bytes(*b))?;
    // Minus one: no packet ends on that page.
    (position != u64::MAX).then_some(position)
}

fn fault(what: String) -> Error {
    Error::malformed(FORMAT, 0, format!("Opus: {what}"))
}
