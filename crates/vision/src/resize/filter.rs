//! The interpolation kernels, as functions of the distance in output-scaled pixels.

use std::f64::consts::PI;

/// How a resized sample is made from its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Filter {
    /// The nearest sample, no averaging.
    Nearest,
    /// The mean of the covered samples. Pillow only.
    Box,
    /// Triangle, support 1.
    Bilinear,
    /// Hamming-windowed sinc of support 1. Pillow only.
    Hamming,
    /// Keys' cubic with a = −0.5, support 2.
    Bicubic,
    /// Lanczos-windowed sinc, support 3.
    Lanczos3,
}

impl Filter {
    /// The filter that Pillow's `resample` number names (0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming),
    /// as written in `preprocessor_config.json`.
    pub fn from_pillow(resample: u64) -> Option<Filter> {
        Some(match resample {
            0 => Filter::Nearest,
            1 => Filter::Lanczos3,
            2 => Filter::Bilinear,
            3 => Filter::Bicubic,
            4 => Filter::Box,
            5 => Filter::Hamming,
            _ => return None,
        })
    }

    /// Half the width of the kernel, in source pixels when enlarging.
    pub(super) fn support(self) -> f64 {
        match self {
            Filter::Nearest | Filter::Box => 0.5,
            Filter::Bilinear | Filter::Hamming => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos3 => 3.0,
        }
    }

    /// The weight at distance `x`.
    pub(super) fn weight(self, x: f64) -> f64 {
        match self {
            Filter::Nearest | Filter::Box => f64::from(x > -0.5 && x <= 0.5),
            Filter::Bilinear => (1.0 - x.abs()).max(0.0),
            Filter::Hamming => {
                let x = x.abs();
                match x {
                    0.0 => 1.0,
                    x if x >= 1.0 => 0.0,
                    x => (x * PI).sin() / (x * PI) * (0.54 + 0.46 * (x * PI).cos()),
                }
            }
            Filter::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                match x {
                    x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                    x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                    _ => 0.0,
                }
            }
            Filter::Lanczos3 if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Filter::Lanczos3 => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * PI;
    x.sin() / x
}
