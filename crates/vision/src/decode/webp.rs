//! WebP, through `image-webp`.

use super::{DecodeOptions, exif, film, pixels};
use crate::{Error, Frame, Image, Result};
use image_webp::{DecodingError, WebPDecoder};
use std::io::Cursor;

pub(super) const FORMAT: &str = "WebP";
/// What decoding holds per pixel at its peak: an animation's canvas and frame in RGBA, and the result.
const PER_PIXEL: u64 = 12;

/// The picture (the first frame of an animation) and its EXIF orientation.
pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<(Image, u8)> {
    check_frames(bytes, options)?;
    let mut cursor = Cursor::new(bytes);
    let result = read(&mut cursor, bytes, options);
    let offset = cursor.position();
    result.map_err(|e| match e {
        Fault::Ours(e) => e,
        Fault::Theirs(e) => theirs(e, offset, options),
    })
}

/// Their error as ours.
pub(super) fn theirs(e: DecodingError, offset: u64, options: &DecodeOptions) -> Error {
    match e {
        DecodingError::MemoryLimitExceeded | DecodingError::ImageTooLarge => Error::Limit {
            what: "bytes held while decoding",
            max: options.max_bytes,
            got: options.max_bytes.saturating_add(1),
        },
        e => Error::malformed(FORMAT, offset, e.to_string()),
    }
}

enum Fault {
    Ours(Error),
    Theirs(DecodingError),
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::Ours(e)
    }
}

impl From<DecodingError> for Fault {
    fn from(e: DecodingError) -> Self {
        Fault::Theirs(e)
    }
}

fn read(
    cursor: &mut Cursor<&[u8]>,
    bytes: &[u8],
    options: &DecodeOptions,
) -> Result<(Image, u8), Fault> {
    let mut decoder = WebPDecoder::new(cursor)?;
    decoder.set_memory_limit(usize::try_from(options.max_bytes).unwrap_or(usize::MAX));
    let (width, height) = decoder.dimensions();
    options.check(FORMAT, width.into(), height.into(), PER_PIXEL)?;
    let orientation = decoder
        .exif_metadata()?
        .as_deref()
        .map_or(1, exif::orientation);
    let (width, height) = (width as usize, height as usize);
    if decoder.is_animated() {
        let alpha = options.alpha_of(decoder.has_alpha());
        let mut rgb = Vec::with_capacity(width * height * 3);
        film::play(bytes, (width, height), options, |canvas, _| {
            pixels::push_rgb(&mut rgb, canvas.as_flattened(), 4, alpha);
            Ok(false)
        })?;
        return Ok((Image::new(width, height, rgb)?, orientation));
    }
    let size = decoder
        .output_buffer_size()
        .ok_or(DecodingError::ImageTooLarge)?;
    let mut samples = vec![0; size];
    decoder.read_image(&mut samples)?;
    if !decoder.has_alpha() {
        return Ok((Image::new(width, height, samples)?, orientation));
    }
    let mut rgb = Vec::with_capacity(width * height * 3);
    pixels::push_rgb(&mut rgb, &samples, 4, options.alpha);
    Ok((Image::new(width, height, rgb)?, orientation))
}

/// All frames of an animation, each whole; the one picture of any other file.
pub(crate) fn frames(bytes: &[u8], options: &DecodeOptions) -> Result<Vec<Frame>> {
    check_frames(bytes, options)?;
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|e| theirs(e, 0, options))?;
    if !decoder.is_animated() {
        let image = super::decode_with(bytes, options)?;
        return Ok(vec![Frame { image, millis: 0 }]);
    }
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    options.check(FORMAT, width as u64, height as u64, PER_PIXEL)?;
    let alpha = options.alpha_of(decoder.has_alpha());
    let mut frames = Vec::new();
    film::play(bytes, (width, height), options, |canvas, millis| {
        options.check_frames(width, height, frames.len() + 1, PER_PIXEL as usize)?;
        let mut rgb = Vec::with_capacity(width * height * 3);
        pixels::push_rgb(&mut rgb, canvas.as_flattened(), 4, alpha);
        let image = Image::new(width, height, rgb)?;
        frames.push(Frame { image, millis });
        Ok(true)
    })?;
    Ok(frames)
}

/// Checks the size that every coded frame itself declares: the decoder takes memory by it, whatever the container says.
fn check_frames(bytes: &[u8], options: &DecodeOptions) -> Result<()> {
    let mut at = 12;
    while let Some(header) = bytes.get(at..at + 8) {
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let body = bytes.get(at + 8..).unwrap_or(&[]);
        match &header[..4] {
            b"VP8 " => {
                if let Some(&[w0, w1, h0, h1]) = body.get(6..10) {
                    let side = |low, high| u64::from(u16::from_le_bytes([low, high]) & 0x3fff);
                    options.check(FORMAT, side(w0, w1), side(h0, h1), PER_PIXEL)?;
                }
            }
            b"VP8L" => {
                if let Some(&[b0, b1, b2, b3]) = body.get(1..5) {
                    let bits = u64::from(u32::from_le_bytes([b0, b1, b2, b3]));
                    options.check(
                        FORMAT,
                        (bits & 0x3fff) + 1,
                        (bits >> 14 & 0x3fff) + 1,
                        PER_PIXEL,
                    )?;
                }
            }
            // A frame's 16-byte header is followed by chunks of its own.
            b"ANMF" => {
                at += 8 + 16;
                continue;
            }
            _ => {}
        }
        at = match at.checked_add(8 + size + (size & 1)) {
            Some(next) => next,
            None => break,
        };
    }
    Ok(())
}

/// Width, height and EXIF orientation.
pub(super) fn header(bytes: &[u8]) -> Result<(usize, usize, u8)> {
    let fault = |e: DecodingError| Error::malformed(FORMAT, 0, e.to_string());
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(fault)?;
    let (width, height) = decoder.dimensions();
    let block = decoder.exif_metadata().map_err(fault)?;
    let orientation = block.as_deref().map_or(1, exif::orientation);
    Ok((width as usize, height as usize, orientation))
}
