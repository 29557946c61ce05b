//! GIF, the first frame, through crate `gif`.

use super::{Alpha, DecodeOptions, pixels};
use crate::{Error, Image, Result};
use ::gif::{ColorOutput, DecodingError, MemoryLimit};
use std::io::Cursor;
use std::num::NonZeroU64;

const FORMAT: &str = "GIF";
/// The canvas as RGB and the frame as indices.
const PER_PIXEL: u64 = 4;

/// The first frame on its canvas; what it leaves free is transparent.
pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Image> {
    let fault = |e: DecodingError| match e {
        DecodingError::MemoryLimit | DecodingError::OutOfMemory => Error::Limit {
            what: "bytes held while decoding",
            max: options.max_bytes,
            got: options.max_bytes.saturating_add(1),
        },
        e => Error::malformed(FORMAT, bytes.len() as u64, e.to_string()),
    };
    let mut settings = ::gif::DecodeOptions::new();
    settings.set_color_output(ColorOutput::Indexed);
    let limit = NonZeroU64::new(options.max_bytes).unwrap_or(NonZeroU64::MIN);
    settings.set_memory_limit(MemoryLimit::Bytes(limit));
    let mut decoder = settings.read_info(Cursor::new(bytes)).map_err(fault)?;
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    options.check(FORMAT, width as u64, height as u64, PER_PIXEL)?;
    let global = decoder.global_palette().unwrap_or(&[]).to_vec();
    let frame = decoder.next_frame_info().map_err(fault)?;
    let frame = frame.ok_or_else(|| Error::malformed(FORMAT, 0, "the file has no frame"))?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (columns, rows) = (usize::from(frame.width), usize::from(frame.height));
    options.check(FORMAT, columns as u64, rows as u64, PER_PIXEL)?;
    let transparent = frame.transparent;
    let palette = frame.palette.clone().unwrap_or(global);
    let mut indices = vec![0; columns * rows];
    decoder.read_into_buffer(&mut indices).map_err(fault)?;

    let free = match options.alpha {
        Alpha::Over(backdrop) => backdrop,
        // Pillow's canvas holds the transparent index, or 0, which shows its palette colour once transparency is dropped.
        Alpha::Drop => colour(&palette, transparent.unwrap_or(0)),
    };
    let mut image = Image::filled(width, height, free)?.into_rgb();
    for (y, row) in indices.chunks_exact(columns).enumerate() {
        for (x, &index) in row.iter().enumerate() {
            let (x, y) = (left + x, top + y);
            if x < width && y < height {
                let alpha = if Some(index) == transparent { 0 } else { 255 };
                let at = (y * width + x) * 3;
                image[at..at + 3].copy_from_slice(&pixels::over(
                    colour(&palette, index),
                    alpha,
                    options.alpha,
                ));
            }
        }
    }
    Image::new(width, height, image)
}

/// The palette's colour; black beyond its end.
fn colour(palette: &[u8], index: u8) -> [u8; 3] {
    let at = usize::from(index) * 3;
    palette
        .get(at..at + 3)
        .and_then(|c| c.try_into().ok())
        .unwrap_or([0; 3])
}
