//! Deterministic contents of a case's operands.

use crate::kernel::Fill;
use crate::{DType, Error, Result};
use half::{bf16, f16};

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Close enough to normal: twelve uniforms.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }
}

/// `size` bytes of an operand.
pub(super) fn bytes(dtype: DType, size: usize, fill: &Fill, seed: u64) -> Result<Vec<u8>> {
    let mut random = Random(seed);
    let elements = size / dtype.block_bytes() * dtype.block_len();
    let floats: Vec<f32> = match fill {
        Fill::Words(words) => {
            return Ok(words
                .iter()
                .cycle()
                .take(elements)
                .flat_map(|w| w.to_le_bytes())
                .collect());
        }
        Fill::Below(n) => {
            let n = u64::from(*n).max(1);
            return Ok((0..elements)
                .flat_map(|_| ((random.next() % n) as u32).to_le_bytes())
                .collect());
        }
        Fill::Normal(scale) if dtype.is_quantized() => {
            return Ok(blocks(dtype, size, *scale, &mut random));
        }
        Fill::Normal(scale) => (0..elements).map(|_| random.normal() * scale).collect(),
        Fill::Values(values) => values.iter().copied().cycle().take(elements).collect(),
    };
    Ok(match dtype {
        DType::F32 => floats.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F16 => floats
            .iter()
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect(),
        DType::BF16 => floats
            .iter()
            .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
            .collect(),
        other => return Err(Error::Unsupported(format!("filling {other} with floats"))),
    })
}

/// Random blocks whose values are about `scale` large: random bytes, with the f16 factors set.
fn blocks(dtype: DType, size: usize, scale: f32, random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; size];
    fill_blocks(dtype, &mut bytes, scale, random);
    bytes
}

/// Fills `bytes` with a weight of normally sized random values: for models in a shape, without its file. Equal seeds give
/// equal bytes.
///
/// # Errors
/// `Unsupported` for a type that is no weight.
pub fn random_weight(dtype: DType, bytes: &mut [u8], scale: f32, seed: u64) -> Result<()> {
    let mut random = Random(seed);
    if dtype.is_quantized() {
        fill_blocks(dtype, bytes, scale, &mut random);
        return Ok(());
    }
    for element in bytes.chunks_exact_mut(dtype.block_bytes()) {
        let value = (random.unit() - 0.5) * 3.46 * scale;
        match dtype {
            DType::F32 => element.copy_from_slice(&value.to_le_bytes()),
            DType::F16 => element.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
            DType::BF16 => element.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
            other => return Err(Error::Unsupported(format!("random {other} weights"))),
        }
    }
    Ok(())
}

fn fill_blocks(dtype: DType, bytes: &mut [u8], scale: f32, random: &mut Random) {
    // (byte offset, factor relative to `scale`) of each f16 in a block.
    let factors: &[(usize, f32)] = match dtype {
        DType::Q4_0 => &[(0, 0.2)],
        DType::Q4_1 => &[(0, 0.2), (2, -1.5)],
        DType::Q5_0 => &[(0, 0.1)],
        DType::Q5_1 => &[(0, 0.1), (2, -1.5)],
        DType::Q8_0 => &[(0, 0.014)],
        DType::Q2K => &[(80, 0.08), (82, 0.12)],
        DType::Q3K => &[(108, 0.02)],
        DType::Q4K => &[(0, 0.004), (2, 0.03)],
        DType::Q5K => &[(0, 0.002), (2, 0.03)],
        _ => &[(208, 0.0008)],
    };
    for word in bytes.chunks_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes()[..word.len()]);
    }
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for &(at, factor) in factors {
            let value = f16::from_f32(scale * factor * (0.5 + random.unit()));
            block[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
    }
}
