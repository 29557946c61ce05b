//! Picture files to [`Image`]s, under limits, as the reference opens them.
//!
//! The format is known by content. EXIF orientation is applied; transparency lies over white (`convert_to_rgb` of
//! transformers 5); 16-bit samples keep their high byte; grey, palette, CMYK and YCCK become RGB; colour profiles and
//! gamma are ignored, as Pillow does. Limits are checked on the header, before memory is taken.
//!
//! | format | decoder | against Pillow |
//! |---|---|---|
//! | PNG | `png` | equal |
//! | JPEG | `zune-jpeg` | within a rounding: see the README for figures |
//! | WebP | `image-webp` (feature `webp`) | equal (libwebp) |
//! | GIF, first frame | `gif` (feature `gif`) | equal |
//! | BMP | ours | equal |

mod bmp;
mod exif;
#[cfg(feature = "webp")]
mod film;
#[cfg(feature = "gif")]
mod gif;
mod jpeg;
mod pixels;
mod png;
#[cfg(feature = "webp")]
mod webp;

#[cfg(feature = "gif")]
pub(crate) use gif::frames as gif_frames;
#[cfg(feature = "webp")]
pub(crate) use webp::frames as webp_frames;

use crate::{Error, Image, Result};

/// A picture file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Portable Network Graphics.
    Png,
    /// JPEG, baseline and progressive.
    Jpeg,
    /// WebP, lossy and lossless.
    WebP,
    /// Graphics Interchange Format.
    Gif,
    /// Windows bitmap.
    Bmp,
}

impl Format {
    /// The format that the first bytes of a file announce.
    pub fn of(bytes: &[u8]) -> Option<Format> {
        Some(match bytes {
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Format::Png,
            [0xff, 0xd8, 0xff, ..] => Format::Jpeg,
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
                b'E',
                b'B',
                b'P',
                ..,
            ] => Format::WebP,
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Format::Gif,
            [b'B', b'M', ..] => Format::Bmp,
            _ => return None,
        })
    }
}

/// What to do with transparency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Alpha {
    /// Lay the picture over this colour, with the rounding of Pillow's `alpha_composite`.
    Over([u8; 3]),
    /// Keep the colours and forget the transparency.
    Drop,
}

/// How to decode, and how much a file may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The most pixels a picture may have. Default 100 million.
    pub max_pixels: u64,
    /// The most bytes that decoding may hold at once beside the file, the result included. Default 1 GiB.
    pub max_bytes: u64,
    /// Default: over white.
    pub alpha: Alpha,
    /// Whether to turn the picture as its EXIF data says. Default: yes.
    pub orient: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        DecodeOptions {
            max_pixels: 100_000_000,
            max_bytes: 1 << 30,
            alpha: Alpha::Over([255; 3]),
            orient: true,
        }
    }
}

impl DecodeOptions {
    #[cfg(any(feature = "gif", feature = "webp"))]
    /// Checks what `frames` frames of an animation hold together, three bytes per pixel, beside what decoding holds.
    fn check_frames(&self, width: usize, height: usize, frames: usize, held: usize) -> Result<()> {
        let pixels = (width as u64).saturating_mul(height as u64);
        let got = pixels.saturating_mul(
            (frames as u64)
                .saturating_mul(3)
                .saturating_add(held as u64),
        );
        match got > self.max_bytes {
            true => Err(Error::Limit {
                what: "bytes held by the frames of an animation",
                max: self.max_bytes,
                got,
            }),
            false => Ok(()),
        }
    }

    /// What to do with the transparency of a file whose header says whether it has any.
    #[cfg(feature = "webp")]
    fn alpha_of(&self, has: bool) -> Alpha {
        if has { self.alpha } else { Alpha::Drop }
    }

    /// Checks a header's dimensions; `per_pixel` is what decoding holds per pixel at its peak, in bytes.
    fn check(&self, format: &'static str, width: u64, height: u64, per_pixel: u64) -> Result<()> {
        if width == 0 || height == 0 {
            let what =
                format!("the header says {width}×{height} pixels; a picture has at least one");
            return Err(Error::malformed(format, 0, what));
        }
        let pixels = width.saturating_mul(height);
        for (what, max, got) in [
            ("pixels of a picture", self.max_pixels, pixels),
            (
                "bytes held while decoding",
                self.max_bytes,
                pixels.saturating_mul(per_pixel),
            ),
            // What this machine can address: a 32-bit target ends sooner.
            (
                "bytes held while decoding",
                isize::MAX as u64,
                pixels.saturating_mul(per_pixel),
            ),
        ] {
            if got > max {
                return Err(Error::Limit { what, max, got });
            }
        }
        Ok(())
    }
}

/// The picture in a PNG, JPEG, WebP, GIF or BMP file, with the default options.
///
/// # Errors
/// As [`decode_with`].
pub fn decode(bytes: &[u8]) -> Result<Image> {
    decode_with(bytes, &DecodeOptions::default())
}

/// The picture in a PNG, JPEG, WebP, GIF (first frame) or BMP file.
///
/// # Errors
/// `Unsupported` if the content is none of these or a variant that is not read, `Malformed` if the bytes are broken or
/// end too soon, `Limit` if the picture is larger than `options` allow.
pub fn decode_with(bytes: &[u8], options: &DecodeOptions) -> Result<Image> {
    let (image, orientation) = match known(bytes)? {
        Format::Png => png::decode(bytes, options)?,
        Format::Jpeg => jpeg::decode(bytes, options)?,
        Format::Bmp => (bmp::decode(bytes, options)?, 1),
        #[cfg(feature = "webp")]
        Format::WebP => webp::decode(bytes, options)?,
        #[cfg(feature = "gif")]
        Format::Gif => (gif::decode(bytes, options)?, 1),
        #[cfg(not(all(feature = "webp", feature = "gif")))]
        other => return Err(missing(other)),
    };
    Ok(if options.orient {
        image.oriented(orientation)
    } else {
        image
    })
}

/// Width and height of the upright picture in a file, from its header alone.
///
/// # Errors
/// As [`dimensions_with`].
pub fn dimensions(bytes: &[u8]) -> Result<(usize, usize)> {
    dimensions_with(bytes, &DecodeOptions::default())
}

/// Width and height that [`decode_with`] would give, from the header alone: to plan before decoding. That the header
/// reads is no promise that the picture does.
///
/// # Errors
/// `Unsupported` if the content is none of these formats, `Malformed` if the header is broken, `Limit` if the picture
/// has more pixels than `options` allow.
pub fn dimensions_with(bytes: &[u8], options: &DecodeOptions) -> Result<(usize, usize)> {
    let (format, (width, height, orientation)) = match known(bytes)? {
        Format::Png => ("PNG", png::header(bytes)?),
        Format::Jpeg => ("JPEG", jpeg::header(bytes)?),
        Format::Bmp => ("BMP", bmp::size(bytes)?),
        #[cfg(feature = "webp")]
        Format::WebP => ("WebP", webp::header(bytes)?),
        #[cfg(feature = "gif")]
        Format::Gif => ("GIF", gif::size(bytes)?),
        #[cfg(not(all(feature = "webp", feature = "gif")))]
        other => return Err(missing(other)),
    };
    options.check(format, width as u64, height as u64, 3)?;
    Ok(match options.orient && (5..=8).contains(&orientation) {
        true => (height, width),
        false => (width, height),
    })
}

fn known(bytes: &[u8]) -> Result<Format> {
    Format::of(bytes).ok_or_else(|| {
        let head: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
        Error::unsupported(format!(
            "the bytes are no PNG, JPEG, WebP, GIF or BMP file: {} bytes starting [{}]",
            bytes.len(),
            head.join(" ")
        ))
    })
}

#[cfg(not(all(feature = "webp", feature = "gif")))]
fn missing(format: Format) -> Error {
    Error::unsupported(format!(
        "{format:?} files: build firelight-vision with its feature of that name"
    ))
}
