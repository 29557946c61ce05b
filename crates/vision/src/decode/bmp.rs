//! BMP: 1, 4, 8, 16, 24 and 32 bits, plain or with bit fields, top-down or bottom-up.
//!
//! Layout: `BM`, file size, reserved, offset of the pixels (14 bytes); a header whose first word is its own size (12 for
//! OS/2 version 1, 40 and up for Windows); masks of bit fields; palette; rows padded to 4 bytes. All little-endian.
//! Alpha exists only where a header of at least 56 bytes gives it a mask, or Pillow would not see it either.

use super::{DecodeOptions, pixels};
use crate::{Error, Image, Result};

const FORMAT: &str = "BMP";

struct Header {
    width: usize,
    height: usize,
    top_down: bool,
    bits: u32,
    masks: Option<[u32; 4]>,
    /// Offset of the palette, bytes per entry, and how many there are.
    palette: (usize, usize, usize),
    pixels: usize,
}

/// Width and height; this format has no orientation.
pub(super) fn size(bytes: &[u8]) -> Result<(usize, usize, u8)> {
    header(bytes).map(|h| (h.width, h.height, 1))
}

/// The picture.
pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Image> {
    let header = header(bytes)?;
    let (width, height) = (header.width, header.height);
    options.check(FORMAT, width as u64, height as u64, 3)?;
    let stride = (width * header.bits as usize).div_ceil(32) * 4;
    let last = width * header.bits as usize;
    // The last row's padding may be missing.
    let needed = stride
        .saturating_mul(height - 1)
        .saturating_add(last.div_ceil(8));
    let data = bytes.get(header.pixels..).unwrap_or(&[]);
    if data.len() < needed {
        return Err(Error::malformed(
            FORMAT,
            bytes.len() as u64,
            format!(
                "{needed} bytes of pixels expected, {} found (truncated?)",
                data.len()
            ),
        ));
    }
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        let y = if header.top_down { y } else { height - 1 - y };
        let row = &data[y * stride..];
        match header.bits {
            24 => rgb.extend(
                row.as_chunks().0[..width]
                    .iter()
                    .flat_map(|&[b, g, r]| [r, g, b]),
            ),
            16 | 32 => {
                let masks = header.masks.unwrap_or_default();
                for x in 0..width {
                    let v = match header.bits {
                        16 => u32::from(u16::from_le_bytes([row[2 * x], row[2 * x + 1]])),
                        _ => u32::from_le_bytes([
                            row[4 * x],
                            row[4 * x + 1],
                            row[4 * x + 2],
                            row[4 * x + 3],
                        ]),
                    };
                    let alpha = if masks[3] == 0 {
                        255
                    } else {
                        field(v, masks[3])
                    };
                    let colour = [field(v, masks[0]), field(v, masks[1]), field(v, masks[2])];
                    rgb.extend(pixels::over(colour, alpha, options.alpha));
                }
            }
            bits => {
                let (start, entry, count) = header.palette;
                for x in 0..width {
                    let byte = row[x * bits as usize / 8];
                    let shift = 8 - bits - (x as u32 * bits) % 8;
                    let index = usize::from(byte >> shift) & ((1 << bits) - 1);
                    let at = start + index * entry;
                    match bytes.get(at..at + 3) {
                        Some(&[b, g, r]) if index < count => rgb.extend([r, g, b]),
                        _ => rgb.extend([0; 3]),
                    }
                }
            }
        }
    }
    Image::new(width, height, rgb)
}

/// The field of `v` under `mask`, spread over 0…255.
fn field(v: u32, mask: u32) -> u8 {
    if mask == 0 {
        return 0;
    }
    let low = mask.trailing_zeros();
    let (v, most) = (u64::from((v & mask) >> low), u64::from(mask >> low));
    (v * 255 / most) as u8
}

fn header(bytes: &[u8]) -> Result<Header> {
    let short = |at: usize| {
        bytes
            .get(at..at + 2)
            .map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])))
    };
    let long = |at: usize| {
        bytes
            .get(at..at + 4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    let cut = || {
        Error::malformed(
            FORMAT,
            bytes.len() as u64,
            "the file ends inside its header",
        )
    };
    let pixels = long(10).ok_or_else(cut)? as usize;
    let size = long(14).ok_or_else(cut)? as usize;
    if !matches!(size, 12 | 16 | 40 | 52 | 56 | 64 | 108 | 124) {
        let what = format!(
            "the header says it has {size} bytes; 12, 16, 40, 52, 56, 64, 108 or 124 are known"
        );
        return Err(Error::malformed(FORMAT, 14, what));
    }
    let old = size == 12;
    let (width, height) = match old {
        true => (
            short(18).ok_or_else(cut)? as i32,
            short(20).ok_or_else(cut)? as i32,
        ),
        false => (
            long(18).ok_or_else(cut)? as i32,
            long(22).ok_or_else(cut)? as i32,
        ),
    };
    if width <= 0 || height == 0 || height == i32::MIN {
        return Err(Error::malformed(
            FORMAT,
            18,
            format!("{width}×{height} pixels"),
        ));
    }
    let bits = short(if old { 24 } else { 28 }).ok_or_else(cut)?;
    let compression = if size < 40 {
        0
    } else {
        long(30).ok_or_else(cut)?
    };
    let used = if size < 40 {
        0
    } else {
        long(46).ok_or_else(cut)? as usize
    };
    let masks = match (bits, compression) {
        (1 | 4 | 8 | 24, 0) => None,
        (16, 0) => Some([0x7c00, 0x3e0, 0x1f, 0]),
        (32, 0) => Some([0xff0000, 0xff00, 0xff, 0]),
        (16 | 32, 3) => {
            let alpha = if size >= 56 {
                long(66).ok_or_else(cut)?
            } else {
                0
            };
            let mut masks = [0, 0, 0, alpha];
            for (i, mask) in masks.iter_mut().take(3).enumerate() {
                *mask = long(54 + 4 * i).ok_or_else(cut)?;
            }
            Some(masks)
        }
        (_, 1 | 2) => return Err(Error::unsupported("BMP with run-length compression")),
        (_, 4 | 5) => return Err(Error::unsupported("BMP that wraps a JPEG or PNG")),
        _ => {
            let what = format!("{bits} bits a pixel with compression {compression}");
            return Err(Error::malformed(FORMAT, 28, what));
        }
    };
    let entries = if bits > 8 { 0 } else { 1usize << bits };
    let count = if used == 0 {
        entries
    } else {
        used.min(entries)
    };
    Ok(Header {
        width: width as usize,
        height: height.unsigned_abs() as usize,
        top_down: height < 0,
        bits,
        masks,
        palette: (14 + size, if old { 3 } else { 4 }, count),
        pixels,
    })
}
