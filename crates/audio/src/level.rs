//! How loud samples are, where sound begins and ends, and cutting long clips into pieces that overlap.

use std::ops::Range;

/// A level meter's reading, in decibels below full scale (0 dB: a square wave of ±1); silence is −∞.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Of the mean square.
    pub rms_db: f32,
    /// Of the largest sample.
    pub peak_db: f32,
}

impl Level {
    /// The level of some samples; of none it is −∞. NaN counts as silence.
    pub fn of(samples: &[f32]) -> Self {
        let (mut sum, mut peak) = (0.0f64, 0.0f32);
        for x in samples.iter().filter(|x| !x.is_nan()) {
            sum += f64::from(*x) * f64::from(*x);
            peak = peak.max(x.abs());
        }
        let mean = sum / samples.len().max(1) as f64;
        Level {
            rms_db: (10.0 * mean.log10()) as f32,
            peak_db: 20.0 * peak.log10(),
        }
    }
}

/// The samples from the first block louder than `threshold_db` (RMS, below full scale) to the last, with `margin` samples around;
/// empty if there is none. Blocks are `block` samples long, at least 1.
pub fn trim_silence(
    samples: &[f32],
    block: usize,
    threshold_db: f32,
    margin: usize,
) -> Range<usize> {
    let block = block.max(1);
    let loud = |b: &[f32]| Level::of(b).rms_db > threshold_db;
    let Some(first) = samples.chunks(block).position(loud) else {
        return 0..0;
    };
    let last = samples.chunks(block).rposition(loud).unwrap_or(first);
    let start = (first * block).saturating_sub(margin);
    let end = ((last + 1) * block)
        .saturating_add(margin)
        .min(samples.len());
    start..end
}

/// Ranges of [`chunks`].
#[derive(Clone, Debug)]
pub struct Chunks {
    total: usize,
    size: usize,
    step: usize,
    at: Option<usize>,
}

/// Cuts `total` samples into ranges of `size` (at least 1), each beginning `overlap` (less than `size`) before the one before it
/// ends. The last may be shorter; nothing is left out, and no range lies inside another.
pub fn chunks(total: usize, size: usize, overlap: usize) -> Chunks {
    let size = size.max(1);
    Chunks {
        total,
        size,
        step: size - overlap.min(size - 1),
        at: (total > 0).then_some(0),
    }
}

impl Iterator for Chunks {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.at?;
        let end = start.saturating_add(self.size).min(self.total);
        self.at = (end < self.total).then(|| start + self.step);
        Some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        assert_eq!(Level::of(&[1.0, -1.0]).rms_db, 0.0);
        let half = Level::of(&[0.5, -0.5, 0.5]);
        assert!((half.rms_db + 6.0206).abs() < 1e-3 && (half.peak_db + 6.0206).abs() < 1e-3);
        assert_eq!(Level::of(&[0.0; 9]).rms_db, f32::NEG_INFINITY);
        assert_eq!(Level::of(&[]).peak_db, f32::NEG_INFINITY);
        assert_eq!(Level::of(&[f32::NAN, 0.0]).peak_db, f32::NEG_INFINITY);
    }

    #[test]
    fn silence_is_cut_off() {
        let mut x = vec![0.0; 1000];
        x[300..320].fill(0.5);
        x[700] = 0.9;
        assert_eq!(trim_silence(&x, 10, -40.0, 0), 300..710);
        assert_eq!(trim_silence(&x, 10, -40.0, 50), 250..760);
        assert_eq!(trim_silence(&x, 10, -40.0, 9999), 0..1000);
        assert_eq!(trim_silence(&[0.0; 50], 10, -40.0, 5), 0..0);
        assert_eq!(trim_silence(&[], 0, -40.0, 5), 0..0);
    }

    #[test]
    fn chunks_cover_and_overlap() {
        let all = |t, s, o| chunks(t, s, o).collect::<Vec<_>>();
        assert_eq!(all(10, 4, 1), [0..4, 3..7, 6..10]);
        assert_eq!(all(11, 4, 1), [0..4, 3..7, 6..10, 9..11]);
        assert_eq!(all(3, 4, 1), vec![0..3]);
        assert!(all(0, 4, 1).is_empty());
        assert_eq!(all(3, 1, 9), [0..1, 1..2, 2..3]);
    }
}
