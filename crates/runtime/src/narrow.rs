//! Matrices that are f32 in the file and f16 or bf16 in truth, as models are that were trained in half precision and saved in single:
//! held in half the memory without losing a bit, and read in half the time.
//!
//! Where a type is chosen nothing but a sample of the matrix is looked at, so that nothing is read twice. The rest is checked as it is
//! converted. If a number turns up there that would lose bits, the load is begun again with all matrices as they are stored.

use crate::checkpoint::Checkpoint;
use crate::{Error, Result};
use firelight_kernels::Device;
use firelight_tensor::{DType, TensorInfo, Weights};
use std::sync::atomic::{AtomicBool, Ordering};

/// Elements of a sample.
const SAMPLE: usize = 4096;

/// Whether a checkpoint's matrices may be held in fewer bits than they are stored in.
#[derive(Debug, Default)]
pub(crate) struct Narrow {
    refuted: AtomicBool,
}

impl Narrow {
    /// True if a matrix was found not to be what its sample promised.
    pub(crate) fn is_refuted(&self) -> bool {
        self.refuted.load(Ordering::Relaxed)
    }

    /// The type to hold the f32 matrix `info` in: f16 or bf16 if all of a sample fits, else f32.
    ///
    /// # Errors
    /// `Tensor` if it cannot be read.
    fn of(&self, weights: &Weights, info: &TensorInfo) -> Result<DType> {
        if self.is_refuted() {
            return Ok(DType::F32);
        }
        let elements = info.nbytes / 4;
        let mut sample = vec![0; 4 * SAMPLE.min(elements)];
        let mut held = vec![DType::F16, DType::BF16];
        // Tables often begin with rows that were never trained.
        for start in [0, (elements - sample.len() / 4) / 2 * 4] {
            if held.is_empty() {
                break;
            }
            weights.read_part(&info.name, start, &mut sample)?;
            held.retain(|&dtype| holds(dtype, &sample));
        }
        Ok(held.first().copied().unwrap_or(DType::F32))
    }

    /// Fails unless `dtype` holds each of the f32 in `bytes` of tensor `name`; from then on [`Narrow::is_refuted`].
    fn check(&self, name: &str, dtype: DType, bytes: &[u8]) -> Result<()> {
        if holds(dtype, bytes) {
            return Ok(());
        }
        self.refuted.store(true, Ordering::Relaxed);
        Err(Error::invalid(format!(
            "tensor `{name}` would lose bits in {dtype}"
        )))
    }
}

/// True if matrices are held in fewer bits on `device` where nothing is lost: on processors that widen f16 by an instruction.
fn suits(device: &Device) -> bool {
    cfg!(not(target_arch = "wasm32")) && !device.is_gpu() && device.reads_f16()
}

/// The type in which `device` holds the matrix `info` with rows of `cols` elements.
///
/// # Errors
/// `Tensor` if it cannot be read.
pub(crate) fn held(
    checkpoint: &Checkpoint,
    device: &Device,
    info: &TensorInfo,
    cols: usize,
) -> Result<DType> {
    match checkpoint.dtypes().asked(&info.name, cols) {
        Some(asked) => Ok(asked),
        None if info.dtype == DType::F32 && suits(device) => {
            checkpoint.narrow().of(checkpoint.weights(), info)
        }
        None => Ok(info.dtype),
    }
}

/// Fails if bytes of `info` would lose bits in `held`, unless that type was asked for.
///
/// # Errors
/// `InvalidInput`; then [`retried`] tries again.
pub(crate) fn check(
    checkpoint: &Checkpoint,
    device: &Device,
    info: &TensorInfo,
    (cols, held): (usize, DType),
    bytes: &[u8],
) -> Result<()> {
    let asked = || checkpoint.dtypes().asked(&info.name, cols);
    if info.dtype != DType::F32 || !suits(device) || asked().is_some() {
        return Ok(());
    }
    checkpoint.narrow().check(&info.name, held, bytes)
}

/// What `load` gives; where it failed because a matrix was not what its sample promised, what it gives then.
pub(crate) fn retried<T>(
    checkpoint: &Checkpoint,
    mut load: impl FnMut() -> Result<T>,
) -> Result<T> {
    let before = checkpoint.narrow().is_refuted();
    match load() {
        Err(_) if checkpoint.narrow().is_refuted() != before => load(),
        loaded => loaded,
    }
}

/// True if f16 or bf16 holds each of these finite f32 without loss.
fn holds(dtype: DType, bytes: &[u8]) -> bool {
    match dtype {
        DType::F16 => all(bytes, |v| {
            let v = v.abs();
            // From 2^-14 to 65504 ten bits of fraction; below whole multiples of 2^-24, the last bit of 0.5.
            let normal = (v.to_bits() & 0x1fff == 0) & (v <= 65504.0);
            let small = (v + 0.5) - 0.5 == v;
            normal & (v >= 6.103_515_6e-5) | small & (v < 6.103_515_6e-5)
        }),
        DType::BF16 => all(bytes, |v| v.to_bits() & 0xffff == 0),
        _ => false,
    }
}

/// True if each of these f32 fits: chunk by chunk, so that vectors compare them.
fn all(bytes: &[u8], fits: impl Fn(f32) -> bool) -> bool {
    bytes.as_chunks::<4>().0.chunks(1024).all(|chunk| {
        let fit = |all, &v| all & fits(f32::from_le_bytes(v));
        chunk.iter().fold(true, fit)
    })
}

#[cfg(test)]
mod tests;
