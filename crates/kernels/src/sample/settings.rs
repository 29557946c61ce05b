//! The settings of one sequence, and the random numbers.

use crate::{Error, Result};

/// What the kernel writes where it cannot choose.
pub const BAD_LOGITS: u32 = u32::MAX;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleSettings {
    /// 0: the most likely token. Else the logits are divided by it.
    pub temperature: f32,
    /// Only the this many most likely tokens; 0: all.
    pub top_k: u32,
    /// Only the smallest set with at least this probability, in `(0, 1]`; 1: all.
    pub top_p: f32,
    /// Only tokens at least this times as likely as the likeliest, in `[0, 1)`.
    pub min_p: f32,
    /// Penalty of tokens that occurred, above 0; 1: none.
    pub repetition_penalty: f32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for SampleSettings {
    fn default() -> Self {
        SampleSettings {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl SampleSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// `InvalidInput` naming the setting, its range and the value.
    pub fn check(&self) -> Result<()> {
        let ranges = [
            ("temperature", self.temperature, 0.0..=100.0, "0 to 100"),
            ("top_p", self.top_p, f32::MIN_POSITIVE..=1.0, "above 0, at most 1"),
            ("min_p", self.min_p, 0.0..=0.999_999, "0 to below 1"),
            ("repetition_penalty", self.repetition_penalty, 1e-3..=100.0, "0.001 to 100"),
        ];
        for (name, value, range, words) in ranges {
            if !range.contains(&value) {
                return Err(Error::invalid(format!("{name} {value}: expected {words}")));
            }
        }
        Ok(())
    }

    /// The kernel's eight words for the draw number `counter`.
    pub fn words(&self, counter: u32) -> [u32; 8] {
        [
            self.temperature.to_bits(),
            self.top_k,
            self.top_p.to_bits(),
            self.min_p.to_bits(),
            self.repetition_penalty.to_bits(),
            self.seed as u32,
            (self.seed >> 32) as u32,
            counter,
        ]
    }
}

fn mix(x: u32) -> u32 {
    let state = x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

/// The uniform number in `[0, 1)` of draw `counter` (PCG hash, O'Neill 2014; Jarzynski & Olano 2020).
pub fn uniform(seed_low: u32, seed_high: u32, counter: u32) -> f32 {
    let bits = mix(mix(mix(seed_low) ^ seed_high) ^ counter);
    (bits >> 8) as f32 / 16_777_216.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_numbers_fill_the_unit_interval_evenly() {
        let n = 20_000;
        let mut bins = [0u32; 20];
        for i in 0..n {
            let u = uniform(7, 9, i);
            assert!((0.0..1.0).contains(&u));
            bins[(u * 20.0) as usize] += 1;
        }
        // Each bin expects 1000 with deviation 31.
        assert!(bins.iter().all(|b| (850..1150).contains(b)), "{bins:?}");
        assert_ne!(uniform(1, 0, 0), uniform(0, 1, 0));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let bad = SampleSettings { top_p: 0.0, ..Default::default() };
        assert!(bad.check().is_err_and(|e| e.to_string().contains("top_p 0")));
        let nan = SampleSettings { temperature: f32::NAN, ..Default::default() };
        assert!(nan.check().is_err());
        assert!(SampleSettings::default().check().is_ok());
    }
}
