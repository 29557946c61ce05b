//! What the tests share: data files, CRC-32, and a seeded generator.
#![allow(dead_code, unreachable_pub)] // each test file takes what it needs

use std::path::Path;

pub fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"))
}

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&b| f32::from_le_bytes(b))
        .collect()
}

/// CRC-32 (IEEE) of values as little-endian f32.
pub fn crc32(values: &[f32]) -> String {
    let crc = !values
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .fold(!0u32, |crc, b| {
            (0..8).fold(crc ^ u32::from(b), |c, _| {
                (c >> 1) ^ (0xedb88320 & (c & 1).wrapping_neg())
            })
        });
    format!("{crc:08x}")
}

/// Xorshift numbers.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }

    /// In −1…1.
    pub fn sample(&mut self) -> f32 {
        self.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0
    }

    /// `total` cut into pieces of up to `most`, empty ones among them.
    pub fn pieces(&mut self, total: usize, most: usize) -> Vec<usize> {
        let (mut pieces, mut left) = (Vec::new(), total);
        while left > 0 {
            let n = self.below(most + 1).min(left);
            pieces.push(n);
            left -= n;
        }
        pieces
    }
}
