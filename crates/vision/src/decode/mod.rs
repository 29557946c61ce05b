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
#[cfg(feature = "gif")]
mod gif;
mod jpeg;
mod pixels;
mod png;
#[cfg(feature = "webp")]
mod webp;

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
    let format = Format::of(bytes).ok_or_else(|| {
        let head: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
        Error::unsupported(format!(
            "the bytes are no PNG, JPEG, WebP, GIF or BMP file: {} bytes starting [{}]",
            bytes.len(),
            head.join(" ")
        ))
    })?;
    let (image, orientation) = match format {
        Format::Png => png::decode(bytes, options)?,
        Format::Jpeg => jpeg::decode(bytes, options)?,
        Format::Bmp => (bmp::decode(bytes, options)?, 1),
        #[cfg(feature = "webp")]
        Format::WebP => webp::decode(bytes, options)?,
        #[cfg(feature = "gif")]
        Format::Gif => (gif::decode(bytes, options)?, 1),
        #[cfg(not(all(feature = "webp", feature = "gif")))]
        other => {
            return Err(Error::unsupported(format!(
                "{other:?} files: build firelight-vision with its feature of that name"
            )));
        }
    };
    Ok(if options.orient {
        image.oriented(orientation)
    } else {
        image
    })
}
