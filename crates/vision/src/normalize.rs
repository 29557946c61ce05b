//! 8-bit samples to f32: rescale and normalise, planar.
//!
//! ```text
//! torchvision  (x − mean·(1/s)) / (std·(1/s))     both constants rounded to f32 first (one fused step)
//!              x·s                                where only rescaling is asked for
//! Pillow       (f32(x·s in f64) − mean) / std     two steps
//! ```
//! A sample has 256 values, so each channel is a table of 256 results: exact in either rounding, and one load per sample.

use crate::{Error, Image, Reference, Result, pixels, threads};
use firelight_tensor::Tensor;

/// A map of 8-bit RGB samples to f32, per channel.
#[derive(Clone, PartialEq)]
pub struct Normalize {
    table: Box<[[f32; 256]; 3]>,
}

impl Normalize {
    /// `rescale` is the factor on samples of 0…255 (usually 1/255); `mean_std` are per channel, in rescaled units.
    /// Where both are `None` the samples stay 0…255.
    ///
    /// # Errors
    /// `InvalidInput` if a number is not finite, or a factor or a standard deviation is zero.
    pub fn new(
        rescale: Option<f64>,
        mean_std: Option<([f64; 3], [f64; 3])>,
        reference: Reference,
    ) -> Result<Self> {
        if let Some(s) = rescale {
            divisor("the rescale factor", s)?;
        }
        if let Some((mean, std)) = mean_std {
            check_std(std)?;
            if mean.iter().any(|m| !m.is_finite()) {
                return Err(Error::invalid(format!(
                    "the means are finite, got {mean:?}"
                )));
            }
        }
        Ok(Self::tabulate(|c, x| {
            match (rescale, mean_std, reference) {
                (Some(s), Some((mean, std)), Reference::Torchvision) => {
                    let whole = (1.0 / s) as f32;
                    (f32::from(x) - mean[c] as f32 * whole) / (std[c] as f32 * whole)
                }
                (Some(s), None, Reference::Torchvision) => f32::from(x) * s as f32,
                (s, mean_std, _) => {
                    let x = s.map_or(f32::from(x), |s| (f64::from(x) * s) as f32);
                    mean_std.map_or(x, |(mean, std)| (x - mean[c] as f32) / std[c] as f32)
                }
            }
        }))
    }

    /// The map that `value(channel, sample)` gives.
    pub(crate) fn tabulate(value: impl Fn(usize, u8) -> f32) -> Self {
        let mut table = Box::new([[0.0; 256]; 3]);
        for (c, row) in table.iter_mut().enumerate() {
            for (x, out) in (0..=255).zip(row.iter_mut()) {
                *out = value(c, x);
            }
        }
        Normalize { table }
    }

    /// This map followed by `then(channel, value)`.
    pub(crate) fn then(&self, then: impl Fn(usize, f32) -> f32) -> Self {
        Self::tabulate(|c, x| then(c, self.table[c][usize::from(x)]))
    }

    /// One picture as `[3, H, W]` f32.
    ///
    /// # Errors
    /// `Tensor` if the memory is not to be had.
    pub fn apply(&self, image: &Image) -> Result<Tensor> {
        self.batch(std::slice::from_ref(image))?
            .reshape(&[3, image.height(), image.width()])
            .map_err(Error::from)
    }

    /// Pictures of one size as `[B, 3, H, W]` f32.
    ///
    /// # Errors
    /// `InvalidInput` if there is none or their sizes differ.
    pub fn batch(&self, images: &[Image]) -> Result<Tensor> {
        let first = images
            .first()
            .ok_or_else(|| Error::invalid("a batch has at least one picture"))?;
        let (width, height) = (first.width(), first.height());
        if let Some(other) = images
            .iter()
            .find(|i| (i.width(), i.height()) != (width, height))
        {
            return Err(Error::invalid(format!(
                "the pictures of a batch have one size, got {first:?} and {other:?}; process them one by one"
            )));
        }
        pixels::buffer(&[images.len(), 3, height, width], |i, planes| {
            let bytes = planes.len();
            threads::bands(planes, width, bytes, |first, rows| {
                for (row, out) in (first..).zip(rows.chunks_exact_mut(width)) {
                    self.channel(row / height, images[i].row(row % height), out);
                }
            });
        })
    }

    /// Channel `c` of interleaved samples.
    pub(crate) fn channel(&self, c: usize, rgb: &[u8], out: &mut [f32]) {
        let table = &self.table[c];
        for (out, p) in out.iter_mut().zip(rgb.as_chunks::<3>().0) {
            *out = table[usize::from(p[c])];
        }
    }

    /// Interleaved samples as they lie.
    pub(crate) fn interleaved(&self, rgb: &[u8], out: &mut [f32]) {
        let tables = &self.table;
        for (out, p) in out
            .as_chunks_mut::<3>()
            .0
            .iter_mut()
            .zip(rgb.as_chunks::<3>().0)
        {
            *out = [0, 1, 2].map(|c| tables[c][usize::from(p[c])]);
        }
    }
}

impl std::fmt::Debug for Normalize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ends = self.table.each_ref().map(|t| (t[0], t[255]));
        write!(f, "Normalize(0…255 to {ends:?})")
    }
}

pub(crate) fn check_std(std: [f64; 3]) -> Result<()> {
    std.iter()
        .try_for_each(|&s| divisor("a standard deviation", s))
}

fn divisor(what: &str, v: f64) -> Result<()> {
    // Its f32 is what divides.
    if v as f32 == 0.0 || !(v as f32).is_finite() {
        return Err(Error::invalid(format!(
            "{what} is finite and not zero, got {v}"
        )));
    }
    Ok(())
}
