//! PNG, through crate `png`: rows come one at a time, so that beside the result only a row is held.

use super::{DecodeOptions, exif, pixels};
use crate::{Error, Image, Result};
use ::png::{ColorType, Decoder, DecodingError, Limits, Transformations};
use std::io::Cursor;

const FORMAT: &str = "PNG";

/// The picture and its EXIF orientation.
pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<(Image, u8)> {
    let mut cursor = Cursor::new(bytes);
    let result = read(&mut cursor, options);
    let offset = cursor.position();
    result.map_err(|e| match e {
        Fault::Ours(e) => e,
        Fault::Theirs(DecodingError::LimitsExceeded) => Error::Limit {
            what: "bytes held while decoding",
            max: options.max_bytes,
            got: options.max_bytes.saturating_add(1),
        },
        Fault::Theirs(e) => Error::malformed(FORMAT, offset, e.to_string()),
    })
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

fn read(cursor: &mut Cursor<&[u8]>, options: &DecodeOptions) -> Result<(Image, u8), Fault> {
    let bytes = usize::try_from(options.max_bytes).unwrap_or(usize::MAX);
    let mut decoder = Decoder::new_with_limits(cursor, Limits { bytes });
    // Text and colour profiles are of no use here, and a way to make a small file large.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let header = decoder.read_header_info()?;
    let (width, height) = (header.width, header.height);
    // An interlaced picture is held whole in its own channels (at most 4) beside the result.
    let per_pixel = if header.interlaced { 3 + 4 } else { 3 };
    options.check(FORMAT, width.into(), height.into(), per_pixel)?;

    let mut reader = decoder.read_info()?;
    // The decoder takes this for granted.
    if reader.info().color_type == ColorType::Indexed {
        let colours = reader.info().palette.as_deref().map_or(0, <[u8]>::len);
        if colours == 0 || colours > 768 || !colours.is_multiple_of(3) {
            let what = format!("a palette of {colours} bytes; expected 1 to 256 colours of three");
            return Err(Error::malformed(FORMAT, 0, what).into());
        }
    }
    let channels = reader.output_color_type().0.samples();
    let (width, height) = (width as usize, height as usize);
    let mut rgb = Vec::with_capacity(width * height * 3);
    if reader.info().interlaced {
        let size = reader
            .output_buffer_size()
            .ok_or(DecodingError::LimitsExceeded)?;
        let mut whole = vec![0; size];
        let size = reader.next_frame(&mut whole)?.buffer_size();
        pixels::push_rgb(
            &mut rgb,
            &whole[..size.min(whole.len())],
            channels,
            options.alpha,
        );
    } else {
        while let Some(row) = reader.next_row()? {
            pixels::push_rgb(&mut rgb, row.data(), channels, options.alpha);
            if rgb.len() >= width * height * 3 {
                break;
            }
        }
    }
    // EXIF may also follow the pixels; a file cut off there still has its picture.
    let _ = reader.finish();
    let orientation = reader
        .info()
        .exif_metadata
        .as_deref()
        .map_or(1, exif::orientation);
    Ok((Image::new(width, height, rgb)?, orientation))
}

/// Width, height and EXIF orientation. The tag may follow the pixels, so chunk heads are walked to the end.
pub(super) fn header(bytes: &[u8]) -> Result<(usize, usize, u8)> {
    let word = |at: usize| -> Option<usize> {
        let b = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(b)).ok()
    };
    let (Some(13), Some(b"IHDR"), Some(width), Some(height)) =
        (word(8), bytes.get(12..16), word(16), word(20))
    else {
        return Err(Error::malformed(
            FORMAT,
            8,
            "a PNG file begins with an IHDR chunk of 13 bytes",
        ));
    };
    let mut at = 8;
    while let (Some(len), Some(tag)) = (word(at), bytes.get(at + 4..at + 8)) {
        let body = at + 8;
        if tag == b"eXIf" {
            let block = bytes.get(body..body.saturating_add(len)).unwrap_or(&[]);
            return Ok((width, height, exif::orientation(block)));
        }
        match body.checked_add(len).and_then(|n| n.checked_add(4)) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok((width, height, 1))
}
