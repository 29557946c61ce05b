//! The fixed-point weights of one axis.
//!
//! ```text
//! scale   = in / out                        reach = support · max(scale, 1)
//! centre  = (i + ½) · scale                 taps j in [⌊centre − reach + ½⌋, ⌊centre + reach + ½⌋) inside the picture
//! w[j]    = filter((j − centre + ½) / max(scale, 1)) / Σ        in f64
//! W[j]    = round_half_away(w[j] · 2^p)                         in integers
//! y       = clip_0_255((2^(p−1) + Σ W[j]·x[j]) >> p)
//! ```
//! Pillow takes p = 22. Torchvision keeps weights in int16 and takes the largest p ≤ 22 at which the greatest weight
//! of the axis still fits. (Pillow's `Resample.c`; PyTorch's `UpSampleKernel.cpp`.)

use super::{Filter, Reference};

/// What one axis of a resize multiplies and adds.
pub(super) struct Axis {
    /// First source sample of each output sample, and where its weights lie in `weights`.
    pub(super) taps: Vec<Taps>,
    pub(super) weights: Vec<i32>,
    /// Fractional bits of the weights.
    pub(super) shift: u32,
    /// The weights once more in groups of four, each pair in one word, zeros at the end; none where they exceed 16 bits.
    #[cfg(target_arch = "x86_64")]
    pub(super) quads: Vec<[i32; 2]>,
}

pub(super) struct Taps {
    pub(super) start: usize,
    pub(super) at: usize,
    pub(super) len: usize,
    /// Where its groups lie in `quads`.
    #[cfg(target_arch = "x86_64")]
    pub(super) quads: usize,
}

impl Axis {
    pub(super) fn new(from: usize, to: usize, filter: Filter, reference: Reference) -> Axis {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let reach = filter.support() * stretch;
        let inverse = 1.0 / stretch;
        let mut taps = Vec::with_capacity(to);
        let mut exact: Vec<f64> = Vec::new();
        let mut largest = 0.0f64;
        for i in 0..to {
            let centre = scale * (i as f64 + 0.5);
            // `as` truncates and saturates at 0, which is what both references do with a negative start.
            let start = (centre - reach + 0.5) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            let at = exact.len();
            exact.extend((start..end).map(|j| filter.weight((j as f64 - centre + 0.5) * inverse)));
            let sum: f64 = exact[at..].iter().sum();
            if sum != 0.0 {
                exact[at..].iter_mut().for_each(|w| *w /= sum);
            }
            largest = exact[at..].iter().fold(largest, |m, &w| m.max(w));
            taps.push(Taps {
                start,
                at,
                len: exact.len() - at,
                #[cfg(target_arch = "x86_64")]
                quads: 0,
            });
        }
        let shift = match reference {
            Reference::Pillow => 22,
            Reference::Torchvision => (0..22)
                .find(|p| (0.5 + largest * f64::from(1u32 << (p + 1))) as i64 >= 1 << 15)
                .unwrap_or(22),
        };
        let one = f64::from(1u32 << shift);
        let weights: Vec<i32> = exact
            .iter()
            .map(|w| (w * one + 0.5f64.copysign(*w)) as i32)
            .collect();
        #[cfg(target_arch = "x86_64")]
        let quads = in_fours(&mut taps, &weights);
        Axis {
            taps,
            weights,
            shift,
            #[cfg(target_arch = "x86_64")]
            quads,
        }
    }

    /// The groups of output sample `i`.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn quads(&self, i: usize) -> (usize, &[[i32; 2]]) {
        let t = &self.taps[i];
        (t.start, &self.quads[t.quads..t.quads + t.len.div_ceil(4)])
    }

    /// The source range and the weights of output sample `i`.
    pub(super) fn get(&self, i: usize) -> (usize, &[i32]) {
        let t = &self.taps[i];
        (t.start, &self.weights[t.at..t.at + t.len])
    }
}

/// The weights in groups of four, and where the groups of each output sample lie.
#[cfg(target_arch = "x86_64")]
fn in_fours(taps: &mut [Taps], weights: &[i32]) -> Vec<[i32; 2]> {
    let mut quads = Vec::new();
    if weights.iter().any(|&w| i16::try_from(w).is_err()) {
        return quads;
    }
    for t in taps {
        t.quads = quads.len();
        for four in weights[t.at..t.at + t.len].chunks(4) {
            let w = |i: usize| four.get(i).map_or(0, |&w| u32::from(w as u16));
            quads.push([w(0) | w(1) << 16, w(2) | w(3) << 16].map(|v| v as i32));
        }
    }
    quads
}
