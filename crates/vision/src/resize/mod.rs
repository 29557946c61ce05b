//! Antialiased resizing of 8-bit pictures, equal to the reference to the bit.
//!
//! Two passes, along the rows and then along the columns, each rounded and clipped to 0…255; a float resize without the
//! clip in the middle is off by up to 16 levels. Both references work with fixed-point weights, of different width:
//! [`Reference`] says whose. Integer sums are exact in any order, so the fast loops need no tolerance.
//!
//! | file | home of |
//! |---|---|
//! | `weights` | the fixed-point weights of one axis |
//! | `rows` | one row of each pass, for any processor |
//! | `x86` | the same with AVX2, for torchvision's 16-bit weights |
//! | `passes` | whole pictures: both passes at once in bands of rows, on several threads |
//!
//! Nearest: both take the pixel under the centre, torchvision (`NEAREST_EXACT`, to which transformers maps it) by
//! `⌊(i + ½) · (in/out)⌋` in f32, Pillow by adding up the step in f64.

mod filter;
mod passes;
mod rows;
mod weights;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use filter::Filter;
use weights::Axis;

use crate::{Error, Image, Result};

/// Whose arithmetic to equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reference {
    /// Torchvision on `uint8` tensors, `antialias=True`: what transformers 5 does by default.
    #[default]
    Torchvision,
    /// Pillow up to 12.2 (13.0 turns the passes round for more sizes): what the `…Pil` processors do.
    Pillow,
}

/// The most bytes that a resize holds beside its input.
const MAX_BYTES: u64 = 2 << 30;

/// `image` at `width × height`.
///
/// # Errors
/// `InvalidInput` if a side is zero, `Unsupported` for box and Hamming in torchvision (which lacks them for tensors),
/// `Limit` if the intermediate and the result would exceed 2 GiB.
pub fn resize(
    image: &Image,
    width: usize,
    height: usize,
    filter: Filter,
    reference: Reference,
) -> Result<Image> {
    if width == 0 || height == 0 {
        return Err(Error::invalid(format!(
            "a resized picture is at least 1×1, asked for {width}×{height}"
        )));
    }
    if reference == Reference::Torchvision && matches!(filter, Filter::Box | Filter::Hamming) {
        return Err(Error::unsupported(format!(
            "torchvision has no {filter:?} filter for tensors; use Reference::Pillow"
        )));
    }
    let rows = image.height().max(height) as u64;
    let bytes = (width as u64)
        .saturating_mul(3)
        .saturating_mul(rows.saturating_add(height as u64));
    if bytes > MAX_BYTES {
        return Err(Error::Limit {
            what: "bytes held by a resize",
            max: MAX_BYTES,
            got: bytes,
        });
    }
    if (width, height) == (image.width(), image.height()) {
        return Ok(image.clone());
    }
    if filter == Filter::Nearest {
        return nearest(image, width, height, reference);
    }
    let across = || Axis::new(image.width(), width, filter, reference);
    let down = || Axis::new(image.height(), height, filter, reference);
    if height == image.height() {
        return passes::horizontal(image, &across());
    }
    if width == image.width() {
        return passes::vertical(image, &down());
    }
    // Pillow shrinks pictures more than a hundred times as tall as wide downwards first.
    let tall = image.height() > image.width().saturating_mul(100);
    if reference == Reference::Pillow && tall && height < image.height() {
        return passes::horizontal(&passes::vertical(image, &down())?, &across());
    }
    passes::both(image, &across(), &down())
}

fn nearest(image: &Image, width: usize, height: usize, reference: Reference) -> Result<Image> {
    let (xs, ys) = (
        nearest_indices(image.width(), width, reference),
        nearest_indices(image.height(), height, reference),
    );
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in ys {
        let row = image.row(y);
        for &x in &xs {
            rgb.extend_from_slice(&row[x * 3..x * 3 + 3]);
        }
    }
    Image::new(width, height, rgb)
}

fn nearest_indices(from: usize, to: usize, reference: Reference) -> Vec<usize> {
    match reference {
        Reference::Torchvision => {
            let scale = from as f32 / to as f32;
            (0..to)
                .map(|i| (((i as f32 + 0.5) * scale) as usize).min(from - 1))
                .collect()
        }
        Reference::Pillow => {
            let step = from as f64 / to as f64;
            let mut at = step * 0.5;
            (0..to)
                .map(|_| {
                    let i = (at as usize).min(from - 1);
                    at += step;
                    i
                })
                .collect()
        }
    }
}
