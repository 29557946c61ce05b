//! JPEG, through `zune-jpeg`.
//!
//! As libjpeg under Pillow, damage inside the compressed data is tolerated (it shows in the picture), a file that ends
//! before its end marker is not: half a picture is a wrong answer.

mod halves;
mod huffman;
mod scan;

use super::{DecodeOptions, exif};
use crate::{Error, Image, Result};
use firelight_tensor::AlignedBuf;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

const FORMAT: &str = "JPEG";

fn decoder(bytes: &[u8]) -> Result<JpegDecoder<ZCursor<&[u8]>>> {
    let settings = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), settings);
    decoder.decode_headers().map_err(|e| error(e, bytes))?;
    Ok(decoder)
}

/// Width, height and EXIF orientation.
pub(super) fn header(bytes: &[u8]) -> Result<(usize, usize, u8)> {
    let decoder = decoder(bytes)?;
    let (width, height) = decoder
        .dimensions()
        .ok_or_else(|| Error::malformed(FORMAT, 0, "the file has no frame header"))?;
    let orientation = decoder.exif().map_or(1, |block| exif::orientation(block));
    Ok((width, height, orientation))
}

/// The picture and its EXIF orientation.
pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<(Image, u8)> {
    let mut decoder = decoder(bytes)?;
    let (Some((width, height)), Some(info), Some(colours)) = (
        decoder.dimensions(),
        decoder.info(),
        decoder.input_colorspace(),
    ) else {
        return Err(Error::malformed(FORMAT, 0, "the file has no frame header"));
    };
    use ColorSpace::{CMYK, Luma, RGB, YCCK, YCbCr};
    if !matches!(colours, YCbCr | RGB | Luma | CMYK | YCCK) {
        let what = format!("JPEG with {} components as {colours:?}", info.components);
        return Err(Error::unsupported(what));
    }
    // Progressive files (and baseline ones in several scans) hold every coefficient as i16.
    let per_pixel = 3 + 2 * u64::from(info.components);
    options.check(FORMAT, width as u64, height as u64, per_pixel)?;
    require_end(bytes)?;
    let orientation = decoder.exif().map_or(1, |block| exif::orientation(block));
    let mut rgb = AlignedBuf::zeroed(width * height * 3)?;
    if halves::decode(bytes, &mut rgb, width * 3, whole).is_none() {
        decoder.decode_into(&mut rgb).map_err(|e| error(e, bytes))?;
    }
    Ok((Image::over_buffer(width, height, rgb)?, orientation))
}

fn whole(bytes: &[u8], rgb: &mut [u8]) -> Option<()> {
    decoder(bytes).ok()?.decode_into(rgb).ok()
}

fn error(e: DecodeErrors, bytes: &[u8]) -> Error {
    match e {
        DecodeErrors::Unsupported(scheme) => Error::unsupported(format!("JPEG: {scheme:?}")),
        DecodeErrors::ExhaustedData => {
            Error::malformed(FORMAT, bytes.len() as u64, "the file ends too soon")
        }
        e => Error::malformed(FORMAT, 0, format!("{e:?}")),
    }
}

/// Walks the segments and the entropy-coded data up to the end marker (FF D9).
///
/// `FF 00` is a stuffed byte, `FF D0…D7` a restart, `FF FF` fill, `FF 01` has no length; any other marker starts a
/// segment with a 16-bit length. A marker's bytes inside a segment (a thumbnail in EXIF) are skipped with it.
fn require_end(bytes: &[u8]) -> Result<()> {
    let mut at = 2;
    loop {
        let rest = bytes.get(at..).unwrap_or(&[]);
        let Some(found) = memchr::memchr(0xff, rest) else {
            break;
        };
        at += found + 1;
        match bytes.get(at) {
            Some(0xd9) => return Ok(()),
            Some(0xff) => {}
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(_) => match bytes.get(at + 1..at + 3) {
                Some(&[high, low]) => at += 1 + usize::from(u16::from_be_bytes([high, low])),
                _ => break,
            },
            None => break,
        }
    }
    Err(Error::malformed(
        FORMAT,
        bytes.len() as u64,
        "the file ends before its end marker (truncated?)",
    ))
}
