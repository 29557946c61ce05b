//! What a load fills: bytes of a tensor and the array they belong in.

use crate::checkpoint::Checkpoint;
use crate::dtypes;
use crate::narrow;
use crate::{Error, Result};
use firelight_kernels::{Array, DType, Device};
use firelight_tensor::TensorInfo;
use std::ops::Range;

/// Bytes of a tensor and the array they belong in.
#[derive(Clone, Debug)]
pub(crate) struct Fill {
    pub(crate) info: TensorInfo,
    /// Bytes of the tensor.
    pub(crate) bytes: Range<u64>,
    pub(crate) array: Array,
    /// First byte of the array; 0 when the elements are converted.
    pub(crate) at: u64,
    /// Elements become f32, whatever they are stored in: then it is the whole tensor.
    pub(crate) to_f32: bool,
    /// Elements of a row. Where the array has another type than the tensor its rows are converted.
    pub(crate) cols: usize,
}

impl Fill {
    /// The file and its bytes that are read.
    pub(crate) fn range(&self) -> (usize, Range<u64>) {
        let first = self.info.offset;
        (
            self.info.part,
            first + self.bytes.start..first + self.bytes.end,
        )
    }

    /// How many bytes to fill at once: a multiple of what blocks and device want, about 8 MiB.
    pub(crate) fn piece(&self) -> u64 {
        let block = self.info.dtype.block_bytes() as u64;
        match self.row_bytes() {
            _ if self.to_f32 => u64::MAX,
            Some((row, _)) => ((8 << 20) / row).max(1) * row,
            None => (2 << 20) / block * block * 4,
        }
    }

    /// Bytes of a row in the tensor and in the array, where rows are converted.
    fn row_bytes(&self) -> Option<(u64, u64)> {
        let (from, to) = (self.info.dtype, self.array.dtype());
        let bytes = |dtype: DType| dtype.bytes_for(self.cols).ok().map(|n| n as u64);
        (from != to && !self.to_f32).then_some(())?;
        Some((bytes(from)?, bytes(to)?))
    }

    /// Fills `len` bytes, from byte `start` of these on; all when they are converted.
    pub(crate) fn run(
        &self,
        checkpoint: &Checkpoint,
        device: &Device,
        start: u64,
        len: u64,
    ) -> Result<()> {
        if self.to_f32 {
            let tensor = checkpoint.weights().read(&self.info.name)?;
            check_finite(&self.info, 0, tensor.bytes())?;
            let values = tensor.to_f32_vec()?;
            return Ok(device.write(&self.array, bytemuck::cast_slice(&values))?);
        }
        let (part, range) = self.range();
        let sources = checkpoint.weights().sources();
        let source = sources.get(part).ok_or_else(|| {
            Error::malformed(
                checkpoint.root().display().to_string(),
                format!("part {part} is missing"),
            )
        })?;
        if let Some((from, to)) = self.row_bytes() {
            let (first, count) = (start / from, len / from);
            let at = self.at + first * to;
            return device.fill_part::<Error>(&self.array, at, count * to, |out| {
                let (cols, to) = (self.cols, self.array.dtype());
                dtypes::convert(&self.info, cols, to, out, |row, bytes| {
                    let at = (first + row as u64) * from;
                    source.read_at(range.start + at, bytes)?;
                    check_finite(&self.info, self.bytes.start + at, bytes)?;
                    narrow::check(checkpoint, device, &self.info, (cols, to), bytes)
                })
            });
        }
        device.fill_part::<Error>(&self.array, self.at + start, len, |bytes| {
            source.read_at(range.start + start, bytes)?;
            check_finite(&self.info, self.bytes.start + start, bytes)
        })
    }
}

/// Fails on the first NaN or infinity among a tensor's numbers, of which `bytes` are those from byte `first` on; of quantised blocks,
/// among their factors.
pub(crate) fn check_finite(info: &TensorInfo, first: u64, bytes: &[u8]) -> Result<()> {
    let dtype = info.dtype;
    let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let blocks = |factors: &[usize]| {
        (0..bytes.len() / dtype.block_bytes()).find(|b| {
            factors
                .iter()
                .any(|f| half(b * dtype.block_bytes() + f) & 0x7c00 == 0x7c00)
        })
    };
    let words16 = |mask: u16| {
        bytes
            .chunks_exact(2)
            .position(|c| u16::from_le_bytes([c[0], c[1]]) & mask == mask)
    };
    let bad = match dtype {
        DType::F32 => bytes.chunks_exact(4).position(|c| {
            u32::from_le_bytes([c[0], c[1], c[2], c[3]]) & 0x7f80_0000 == 0x7f80_0000
        }),
        DType::F16 => words16(0x7c00),
        DType::BF16 => words16(0x7f80),
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => blocks(&[0]),
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => blocks(&[0, 2]),
        DType::Q2K => blocks(&[80, 82]),
        DType::Q3K => blocks(&[108]),
        DType::Q6K => blocks(&[208]),
        _ => None,
    };
    match bad {
        None => Ok(()),
        Some(at) => Err(Error::malformed(
            format!("tensor `{}`", info.name),
            format!(
                "NaN or infinity at element {}: the file is damaged",
                (first / dtype.block_bytes() as u64 + at as u64) * dtype.block_len() as u64
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firelight_tensor::{MemSource, Tensor, Weights, safetensors};
    use std::sync::Arc;

    #[test]
    fn nan_and_infinity_are_found_in_every_type() {
        let tensor = Tensor::from_f32(&[0.0], &[1]).expect("f32");
        let file = safetensors::write_to_vec(&Default::default(), [("w", &tensor)]);
        let source = MemSource::new("w", file.expect("a file"));
        let weights = Weights::open(Arc::new(source)).expect("opens");
        let mut info = weights.info("w").expect("w").clone();
        for &dtype in firelight_kernels::dequant::WEIGHT_DTYPES {
            let mut bytes = vec![0u8; dtype.block_bytes() * 3];
            info.dtype = dtype;
            assert!(check_finite(&info, 0, &bytes).is_ok());
            let at = match dtype {
                DType::Q2K => 82,
                DType::Q3K => 108,
                DType::Q6K => 208,
                DType::F32 => 2,
                _ => 0,
            };
            let bad: [u8; 2] = if dtype == DType::F16 || dtype.is_quantized() {
                [0, 0x7e]
            } else {
                [0xc0, 0x7f]
            };
            bytes[dtype.block_bytes() + at..][..2].copy_from_slice(&bad);
            for blocks in [0, 5] {
                let first = (blocks * dtype.block_bytes()) as u64;
                let error = check_finite(&info, first, &bytes).expect_err("NaN");
                let at = format!("element {}:", (blocks + 1) * dtype.block_len());
                assert!(error.to_string().contains(&at), "{dtype}: {error}");
            }
        }
    }
}
