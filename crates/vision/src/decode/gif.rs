//! GIF, the first frame, through crate `gif`.

use super::{Alpha, DecodeOptions, pixels};
use crate::{Error, Frame, Image, Result};
use ::gif::{ColorOutput, Decoder, DecodingError, DisposalMethod, MemoryLimit};
use std::io::Cursor;
use std::num::NonZeroU64;

const FORMAT: &str = "GIF";
/// The canvas as RGB and the frame as indices.
const PER_PIXEL: u64 = 4;

/// Their errors as ours.
fn fault<'a>(bytes: &'a [u8], options: &'a DecodeOptions) -> impl Fn(DecodingError) -> Error + 'a {
    |e| match e {
        DecodingError::MemoryLimit | DecodingError::OutOfMemory => Error::Limit {
            what: "bytes held while decoding",
            max: options.max_bytes,
            got: options.max_bytes.saturating_add(1),
        },
        e => Error::malformed(FORMAT, bytes.len() as u64, e.to_string()),
    }
}

fn open<'a>(
    bytes: &'a [u8],
    options: &DecodeOptions,
) -> Result<Decoder<Cursor<&'a [u8]>>, DecodingError> {
    let mut settings = ::gif::DecodeOptions::new();
    settings.set_color_output(ColorOutput::Indexed);
    let limit = NonZeroU64::new(options.max_bytes).unwrap_or(NonZeroU64::MIN);
    settings.set_memory_limit(MemoryLimit::Bytes(limit));
    settings.read_info(Cursor::new(bytes))
}

/// All frames, each laid over what the ones before left.
pub(crate) fn frames(bytes: &[u8], options: &DecodeOptions) -> Result<Vec<Frame>> {
    let fault = fault(bytes, options);
    let mut decoder = open(bytes, options).map_err(&fault)?;
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    options.check(FORMAT, width as u64, height as u64, PER_PIXEL)?;
    let global = decoder.global_palette().unwrap_or(&[]).to_vec();
    // RGBA, nothing drawn yet.
    let mut canvas = vec![[0u8; 4]; width * height];
    let mut frames: Vec<Frame> = Vec::new();
    while let Some(frame) = decoder.next_frame_info().map_err(&fault)? {
        options.check_frames(width, height, frames.len() + 1, 8)?;
        let (left, top) = (usize::from(frame.left), usize::from(frame.top));
        let (columns, rows) = (usize::from(frame.width), usize::from(frame.height));
        options.check(FORMAT, columns as u64, rows as u64, PER_PIXEL)?;
        let (transparent, dispose, delay) = (frame.transparent, frame.dispose, frame.delay);
        let palette = frame.palette.clone().unwrap_or_else(|| global.clone());
        let mut indices = vec![0; columns * rows];
        decoder.read_into_buffer(&mut indices).map_err(&fault)?;
        let before = (dispose == DisposalMethod::Previous).then(|| canvas.clone());
        // The places of the frame on the canvas.
        let places = (0..rows.min(height.saturating_sub(top))).flat_map(|y| {
            (0..columns.min(width.saturating_sub(left)))
                .map(move |x| (y * columns + x, (top + y) * width + left + x))
        });
        for (from, to) in places.clone() {
            let index = indices[from];
            if Some(index) != transparent {
                let [r, g, b] = colour(&palette, index);
                canvas[to] = [r, g, b, 255];
            }
        }
        let mut rgb = Vec::with_capacity(width * height * 3);
        pixels::push_rgb(&mut rgb, canvas.as_flattened(), 4, options.alpha);
        frames.push(Frame {
            image: Image::new(width, height, rgb)?,
            millis: u32::from(delay) * 10,
        });
        match (dispose, before) {
            (DisposalMethod::Background, _) => places.for_each(|(_, to)| canvas[to] = [0; 4]),
            (_, Some(before)) => canvas = before,
            _ => {}
        }
    }
    match frames.is_empty() {
        true => Err(Error::malformed(FORMAT, 0, "the file has no frame")),
        false => Ok(frames),
    }
}

/// The first frame on its canvas; what it leaves free is transparent.
pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Image> {
    let fault = fault(bytes, options);
    let mut decoder = open(bytes, options).map_err(&fault)?;
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    options.check(FORMAT, width as u64, height as u64, PER_PIXEL)?;
    let global = decoder.global_palette().unwrap_or(&[]).to_vec();
    let frame = decoder.next_frame_info().map_err(&fault)?;
    let frame = frame.ok_or_else(|| Error::malformed(FORMAT, 0, "the file has no frame"))?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (columns, rows) = (usize::from(frame.width), usize::from(frame.height));
    options.check(FORMAT, columns as u64, rows as u64, PER_PIXEL)?;
    let transparent = frame.transparent;
    let palette = frame.palette.clone().unwrap_or(global);
    let mut indices = vec![0; columns * rows];
    decoder.read_into_buffer(&mut indices).map_err(&fault)?;

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

/// Width and height of the canvas; this format has no orientation.
pub(super) fn size(bytes: &[u8]) -> Result<(usize, usize, u8)> {
    match bytes.get(6..10) {
        Some(&[w0, w1, h0, h1]) => {
            let side = |low, high| usize::from(u16::from_le_bytes([low, high]));
            Ok((side(w0, w1), side(h0, h1), 1))
        }
        _ => Err(Error::malformed(
            FORMAT,
            bytes.len() as u64,
            "the file ends in its header",
        )),
    }
}

/// The palette's colour; black beyond its end.
fn colour(palette: &[u8], index: u8) -> [u8; 3] {
    let at = usize::from(index) * 3;
    palette
        .get(at..at + 3)
        .and_then(|c| c.try_into().ok())
        .unwrap_or([0; 3])
}
