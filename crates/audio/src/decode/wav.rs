//! WAV: integers of 8 to 32 bits, floats of 32 and 64, µ-law and A-law, plain and extensible, RIFF and RF64.
//!
//! Layout: `RIFF`, size, `WAVE`, then chunks (tag, size, body, padded to even length). `fmt ` says what the samples are,
//! `data` holds them, `ds64` its true size in RF64. Integers of 8 bits or fewer are unsigned. A size of 2³²−1 (or of 0
//! in a file whose own size is 0 or 2³²−1 as well) was left open by a recorder: the samples go to the end of the file.

use super::g711::{a_law, mu_law};
use crate::{Error, Result};

const FORMAT: &str = "WAV";
/// Frames per block.
const BLOCK: usize = 4096;

#[derive(Clone, Copy)]
enum Coding {
    Unsigned8,
    Signed16,
    Signed24,
    Signed32,
    Float32,
    Float64,
    MuLaw,
    ALaw,
}

impl Coding {
    fn bytes(self) -> usize {
        match self {
            Coding::Unsigned8 | Coding::MuLaw | Coding::ALaw => 1,
            Coding::Signed16 => 2,
            Coding::Signed24 => 3,
            Coding::Signed32 | Coding::Float32 => 4,
            Coding::Float64 => 8,
        }
    }
}

/// The samples of a WAV file.
pub(super) struct Wav<'a> {
    pub(super) rate: u32,
    pub(super) channels: usize,
    /// Samples per channel, where the header says so.
    pub(super) promised: Option<u64>,
    coding: Coding,
    /// Where in the file `rest` starts.
    at: usize,
    rest: &'a [u8],
}

impl<'a> Wav<'a> {
    /// Whether the first bytes are a WAV file's.
    pub(super) fn is(bytes: &[u8]) -> bool {
        matches!(
            bytes,
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'A',
                b'V',
                b'E',
                ..
            ]
        ) || matches!(
            bytes,
            [
                b'R',
                b'F',
                b'6',
                b'4',
                _,
                _,
                _,
                _,
                b'W',
                b'A',
                b'V',
                b'E',
                ..
            ]
        )
    }

    pub(super) fn new(bytes: &'a [u8], keep_truncated: bool) -> Result<Self> {
        let (mut format, mut long_size) = (None, None);
        let mut at = 12;
        loop {
            let Some((tag, size)) = tag_and_size(bytes, at) else {
                return Err(Error::malformed(
                    FORMAT,
                    bytes.len() as u64,
                    "the file ends before its samples (no data chunk)",
                ));
            };
            let start = at + 8;
            let body = bytes.get(start..).unwrap_or(&[]);
            match &tag {
                b"fmt " => {
                    format = Some(parse_format(
                        body.get(..size as usize).unwrap_or(body),
                        start,
                    )?)
                }
                b"ds64" => {
                    long_size = body
                        .get(8..16)
                        .and_then(|b| b.try_into().ok())
                        .map(u64::from_le_bytes)
                }
                b"data" => {
                    let (coding, channels, rate) = format.ok_or_else(|| {
                        Error::malformed(
                            FORMAT,
                            at as u64,
                            "the samples come before their format (no fmt chunk)",
                        )
                    })?;
                    let frame = (coding.bytes() * channels) as u64;
                    let riff = tag_and_size(bytes, 0).map_or(0, |(_, size)| size);
                    let open = size == u32::MAX || size == 0 && matches!(riff, 0 | u32::MAX);
                    let declared = match long_size.filter(|_| size == u32::MAX) {
                        Some(n) => Some(n),
                        None => (!open).then_some(u64::from(size)),
                    };
                    let there = body.len() as u64;
                    if let Some(n) = declared.filter(|&n| n > there && !keep_truncated) {
                        return Err(Error::malformed(
                            FORMAT,
                            bytes.len() as u64,
                            format!(
                                "{n} bytes of samples promised, {there} found (truncated?); \
                                 set keep_truncated to take what is there"
                            ),
                        ));
                    }
                    let length = declared.map_or(there, |n| n.min(there)) / frame * frame;
                    return Ok(Wav {
                        rate,
                        channels,
                        promised: declared.map(|n| n / frame),
                        coding,
                        at: start,
                        rest: &body[..length as usize],
                    });
                }
                _ => {}
            }
            at = start
                .saturating_add(size as usize)
                .saturating_add(size as usize & 1);
        }
    }

    /// How far the bytes have been read.
    pub(super) fn position(&self) -> u64 {
        self.at as u64
    }

    /// Puts the next interleaved samples into `out`; none at the end.
    pub(super) fn next_block(&mut self, out: &mut Vec<f32>) {
        out.clear();
        let bytes = (BLOCK * self.channels * self.coding.bytes()).min(self.rest.len());
        let (now, later) = self.rest.split_at(bytes);
        (self.rest, self.at) = (later, self.at + bytes);
        match self.coding {
            Coding::Unsigned8 => out.extend(now.iter().map(|&b| (f32::from(b) - 128.0) / 128.0)),
            Coding::MuLaw => out.extend(now.iter().map(|&b| f32::from(mu_law(b)) / 32768.0)),
            Coding::ALaw => out.extend(now.iter().map(|&b| f32::from(a_law(b)) / 32768.0)),
            Coding::Signed16 => {
                out.extend(
                    now.as_chunks()
                        .0
                        .iter()
                        .map(|&b| f32::from(i16::from_le_bytes(b)) / 32768.0),
                );
            }
            Coding::Signed24 => out.extend(now.as_chunks().0.iter().map(|&[a, b, c]| {
                // In the upper bytes, so that the sign is in its place.
                i32::from_le_bytes([0, a, b, c]) as f32 / 2_147_483_648.0
            })),
            Coding::Signed32 => {
                out.extend(
                    now.as_chunks()
                        .0
                        .iter()
                        .map(|&b| i32::from_le_bytes(b) as f32 / 2_147_483_648.0),
                );
            }
            Coding::Float32 => out.extend(now.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            Coding::Float64 => out.extend(
                now.as_chunks()
                    .0
                    .iter()
                    .map(|&b| f64::from_le_bytes(b) as f32),
            ),
        }
    }
}

fn tag_and_size(bytes: &[u8], at: usize) -> Option<([u8; 4], u32)> {
    let head: [u8; 8] = bytes.get(at..at.checked_add(8)?)?.try_into().ok()?;
    let [a, b, c, d, e, f, g, h] = head;
    Some(([a, b, c, d], u32::from_le_bytes([e, f, g, h])))
}

/// Coding, channels and rate of a `fmt ` chunk that lies at `offset`.
fn parse_format(body: &[u8], offset: usize) -> Result<(Coding, usize, u32)> {
    let fault = |what: String| Error::malformed(FORMAT, offset as u64, what);
    let short = |at: usize| -> Result<u16> {
        let b = body.get(at..at + 2).and_then(|b| b.try_into().ok());
        b.map(u16::from_le_bytes).ok_or_else(|| {
            fault(format!(
                "the format takes at least 16 bytes, {} found",
                body.len()
            ))
        })
    };
    let (mut tag, channels, align, bits) = (short(0)?, short(2)?, short(12)?, short(14)?);
    let rate = u32::from(short(4)?) | u32::from(short(6)?) << 16;
    if tag == 0xfffe {
        // The code of an extensible format is the head of its GUID.
        tag = short(24)?;
    }
    let coding = match (tag, bits) {
        (1, 1..=8) => Coding::Unsigned8,
        (1, 9..=16) => Coding::Signed16,
        (1, 17..=24) => Coding::Signed24,
        (1, 25..=32) => Coding::Signed32,
        (3, 32) => Coding::Float32,
        (3, 64) => Coding::Float64,
        (6, 8) => Coding::ALaw,
        (7, 8) => Coding::MuLaw,
        (1 | 3 | 6 | 7, _) => return Err(fault(format!("format {tag} with {bits} bits a sample"))),
        _ => {
            return Err(Error::unsupported(format!(
                "WAV with format code {tag:#06x}; integers (1), floats (3), A-law (6) and µ-law (7) are read"
            )));
        }
    };
    if channels == 0 || usize::from(align) != coding.bytes() * usize::from(channels) {
        return Err(fault(format!(
            "{channels} channels of {bits} bits in frames of {align} bytes"
        )));
    }
    Ok((coding, channels.into(), rate))
}
