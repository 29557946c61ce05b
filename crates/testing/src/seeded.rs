//! Inputs for tests that are the same wherever a test runs: xoshiro256++ started by splitmix64.
//!
//! Source: Blackman and Vigna, "Scrambled Linear Pseudorandom Number Generators" (2021). Uniform numbers and ids are the
//! same to the bit on every platform; normal ones pass through the platform's `ln` and `cos` and may differ in the last bit.

/// A small generator for tests. Not for cryptography, and not the one that sampling uses.
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// Every seed, zero included, starts a sequence of its own.
    pub fn new(seed: u64) -> Self {
        let mut s = seed;
        Self {
            state: std::array::from_fn(|_| splitmix64(&mut s)),
        }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// Uniform in `[0, 1)`, a multiple of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform from `low` up to `high`.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        (f64::from(low) + self.unit() * (f64::from(high) - f64::from(low))) as f32
    }

    /// Mean 0, standard deviation 1 (Box–Muller; one draw of two is used, which keeps the state simple).
    pub fn normal(&mut self) -> f32 {
        // 1 - unit() lies in (0, 1], so the logarithm is finite.
        let r = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (r * (std::f64::consts::TAU * self.unit()).cos()) as f32
    }

    /// An integer below `bound`, without the bias of a plain remainder; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `n` numbers with mean 0 and standard deviation 1.
pub fn normal(seed: u64, n: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| rng.normal()).collect()
}

/// `n` numbers spread evenly from `low` up to `high`.
pub fn uniform(seed: u64, n: usize, low: f32, high: f32) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| rng.uniform(low, high)).collect()
}

/// `n` ids below `vocab`, the first and the last id among them as soon as `n` allows (off-by-one errors live at the ends).
pub fn ids(seed: u64, n: usize, vocab: u32) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    let mut out: Vec<u32> = (0..n).map(|_| rng.below(vocab.into()) as u32).collect();
    if n >= 2 {
        let first = rng.below(n as u64) as usize;
        out[first] = 0;
        out[(first + 1) % n] = vocab.saturating_sub(1);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_generator() {
        // splitmix64 from 0, and xoshiro256++ from the state [1, 2, 3, 4]: the values of the authors' C code.
        let mut s = 0;
        assert_eq!(splitmix64(&mut s), 0xe220_a839_7b1d_cdaf);
        let mut rng = Rng {
            state: [1, 2, 3, 4],
        };
        assert_eq!(
            [rng.next_u64(), rng.next_u64(), rng.next_u64()],
            [41_943_041, 58_720_359, 3_588_806_011_781_223]
        );
    }

    #[test]
    fn has_the_moments_it_promises() {
        let x = normal(3, 40_001);
        let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / x.len() as f64;
        let var = x
            .iter()
            .map(|v| (f64::from(*v) - mean).powi(2))
            .sum::<f64>()
            / x.len() as f64;
        assert!(
            mean.abs() < 0.02 && (var - 1.0).abs() < 0.03,
            "mean {mean}, variance {var}"
        );
        let u = uniform(3, 40_001, -2.0, 6.0);
        let mean = u.iter().map(|v| f64::from(*v)).sum::<f64>() / u.len() as f64;
        assert!((mean - 2.0).abs() < 0.05, "mean {mean}");
        assert!(u.iter().all(|v| (-2.0..=6.0).contains(v)));
    }

    #[test]
    fn ids_reach_both_ends_and_no_further() {
        for (seed, n, vocab) in [(0, 2, 1), (1, 7, 259), (2, 64, 32_000)] {
            let v = ids(seed, n, vocab);
            assert_eq!(v.len(), n);
            assert!(v.iter().all(|i| *i < vocab), "{v:?}");
            assert!(v.contains(&0) && v.contains(&(vocab - 1)), "{v:?}");
        }
        assert!(ids(0, 0, 5).is_empty());
        assert_eq!(ids(9, 1, 1), [0]);
    }

    #[test]
    fn seeds_differ_and_repeat() {
        assert_eq!(normal(5, 100), normal(5, 100));
        assert_ne!(normal(5, 100), normal(6, 100));
        assert_ne!(normal(0, 1), normal(1, 1));
    }
}
