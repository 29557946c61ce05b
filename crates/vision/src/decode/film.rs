//! The frames of an animated WebP, laid over each other as libwebp does.
//!
//! Each coded frame is handed to `image-webp` as a file of its own; the canvas is ours, because that crate's blending takes
//! one level from opaque pixels. (libwebp's `anim_decode.c`.)
//!
//! ```text
//! key frame    the first; one that covers the canvas and shows nothing below; one after a cleared canvas. Its canvas starts empty
//! blend        s.a = 255: s        s.a = 0: below
//!              a' = below.a·(256 − s.a) >> 8     c = (s.c·s.a + below.c·a')·⌊2²⁴ / (s.a + a')⌋ >> 24
//! ```

use super::DecodeOptions;
use super::webp::{FORMAT, theirs};
use crate::{Error, Result};
use image_webp::WebPDecoder;
use std::io::Cursor;

/// Where a frame lies, and how it joins its neighbours.
#[derive(Clone, Copy)]
struct Place {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
    millis: u32,
    /// Whether what lies below shines through.
    blend: bool,
    /// Whether its place is cleared before the next frame.
    clear: bool,
    key: bool,
}

impl Place {
    fn read(header: &[u8; 16]) -> Place {
        let three = |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], 0]);
        Place {
            x: three(0) as usize * 2,
            y: three(3) as usize * 2,
            width: three(6) as usize + 1,
            height: three(9) as usize + 1,
            millis: three(12),
            blend: header[15] & 2 == 0,
            clear: header[15] & 1 == 1,
            key: false,
        }
    }

    fn holds(&self, x: usize, y: usize) -> bool {
        (self.x..self.x + self.width).contains(&x) && (self.y..self.y + self.height).contains(&y)
    }

    fn covers(&self, width: usize, height: usize) -> bool {
        (self.width, self.height) == (width, height)
    }
}

/// Shows `seen(canvas, milliseconds)` each frame, `[height, width]` RGBA, until it says false.
pub(super) fn play(
    bytes: &[u8],
    (width, height): (usize, usize),
    options: &DecodeOptions,
    mut seen: impl FnMut(&[[u8; 4]], u32) -> Result<bool>,
) -> Result<()> {
    let mut canvas = vec![[0u8; 4]; width * height];
    let mut before: Option<Place> = None;
    let mut at = 12;
    while let Some(Chunk { kind, body, next }) = chunk(bytes, at)? {
        let offset = at as u64;
        at = next;
        let Some((header, coded)) = body.split_first_chunk::<16>().filter(|_| kind == b"ANMF")
        else {
            continue;
        };
        let mut place = Place::read(header);
        if place.x + place.width > width || place.y + place.height > height {
            return Err(Error::malformed(
                FORMAT,
                offset,
                format!("a frame lies outside the canvas of {width}×{height}"),
            ));
        }
        let (pixels, alpha) = still(coded, &place, options).map_err(|e| match e {
            Error::Malformed { format, what, .. } => Error::malformed(format, offset, what),
            e => e,
        })?;
        place.key = match before {
            None => true,
            Some(last) => {
                (!(alpha && place.blend) && place.covers(width, height))
                    || last.clear && (last.key || last.covers(width, height))
            }
        };
        // What was cleared has nothing to shine through, and is not blended: that would round.
        let cleared = before.filter(|last| last.clear);
        if place.key {
            canvas.fill([0; 4]);
        } else if let Some(last) = cleared {
            for row in canvas
                .chunks_exact_mut(width)
                .skip(last.y)
                .take(last.height)
            {
                row[last.x..last.x + last.width].fill([0; 4]);
            }
        }
        let rows = canvas.chunks_exact_mut(width).enumerate().skip(place.y);
        for ((y, row), pixels) in rows.zip(pixels.chunks_exact(place.width)) {
            let row = row.iter_mut().enumerate().skip(place.x);
            for ((x, below), &pixel) in row.zip(pixels) {
                let empty = place.key || cleared.is_some_and(|last| last.holds(x, y));
                *below = match place.blend && !empty {
                    true => blended(pixel, *below),
                    false => pixel,
                };
            }
        }
        if !seen(&canvas, place.millis)? {
            return Ok(());
        }
        before = Some(place);
    }
    match before {
        Some(_) => Ok(()),
        None => Err(Error::malformed(FORMAT, 0, "the file has no frame")),
    }
}

/// A part of the file.
struct Chunk<'a> {
    kind: &'a [u8],
    body: &'a [u8],
    /// Where the next one is.
    next: usize,
}

/// The chunk at `at`; none at the end.
fn chunk(bytes: &[u8], at: usize) -> Result<Option<Chunk<'_>>> {
    let Some(header) = bytes.get(at..).and_then(|b| b.first_chunk::<8>()) else {
        return Ok(None);
    };
    let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let end = (at + 8).saturating_add(size);
    let body = bytes
        .get(at + 8..end)
        .ok_or_else(|| Error::malformed(FORMAT, at as u64, "the file ends inside a chunk"))?;
    Ok(Some(Chunk {
        kind: &bytes[at..at + 4],
        body,
        next: end.saturating_add(size & 1),
    }))
}

/// One coded frame as a picture of its own, RGBA, and whether it says it has transparency.
fn still(coded: &[u8], place: &Place, options: &DecodeOptions) -> Result<(Vec<[u8; 4]>, bool)> {
    let mut body = b"WEBP".to_vec();
    if coded.starts_with(b"ALPH") {
        body.extend_from_slice(b"VP8X\x0a\0\0\0\x10\0\0\0");
        for side in [place.width, place.height] {
            body.extend_from_slice(&(side as u32 - 1).to_le_bytes()[..3]);
        }
    }
    body.extend_from_slice(coded);
    let mut file = b"RIFF".to_vec();
    file.extend_from_slice(&(body.len() as u32).to_le_bytes());
    file.append(&mut body);

    let theirs = |e| theirs(e, 0, options);
    let mut decoder = WebPDecoder::new(Cursor::new(file)).map_err(theirs)?;
    decoder.set_memory_limit(usize::try_from(options.max_bytes).unwrap_or(usize::MAX));
    let (width, height) = decoder.dimensions();
    if (width as usize, height as usize) != (place.width, place.height) || decoder.is_animated() {
        return Err(Error::malformed(
            FORMAT,
            0,
            format!(
                "a frame of {}×{} holds a picture of {width}×{height}",
                place.width, place.height
            ),
        ));
    }
    let alpha = decoder.has_alpha();
    let channels = if alpha { 4 } else { 3 };
    let mut samples = vec![0; place.width * place.height * channels];
    decoder.read_image(&mut samples).map_err(theirs)?;
    let pixels = samples.chunks_exact(channels).map(|p| match *p {
        [r, g, b, a] => [r, g, b, a],
        [r, g, b] => [r, g, b, 255],
        _ => [0; 4],
    });
    Ok((pixels.collect(), alpha))
}

fn blended(over: [u8; 4], below: [u8; 4]) -> [u8; 4] {
    let a = u32::from(over[3]);
    if a == 255 {
        return over;
    }
    if a == 0 {
        return below;
    }
    let rest = (u32::from(below[3]) * (256 - a)) >> 8;
    let scale = (1 << 24) / (a + rest);
    // The weights sum to a + rest, so the product stays below 2³².
    let channel =
        |i: usize| (((u32::from(over[i]) * a + u32::from(below[i]) * rest) * scale) >> 24) as u8;
    [channel(0), channel(1), channel(2), (a + rest) as u8]
}
