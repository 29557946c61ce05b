//! Half-precision slices: little-endian f16 and bf16 bytes to and from f32, at any alignment.

use crate::{Error, Result};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

macro_rules! conversions {
    ($half:ident, $to:ident, $from:ident) => {
        #[doc = concat!("Widens ", stringify!($half), " bytes to f32, exactly.")]
        ///
        /// # Errors
        /// `InvalidInput` if `bytes` is not twice as long as `out`.
        pub fn $to(bytes: &[u8], out: &mut [f32]) -> Result<()> {
            check(bytes.len(), out.len())?;
            let mut halves = [$half::ZERO; CHUNK];
            for (bytes, out) in bytes.chunks(2 * CHUNK).zip(out.chunks_mut(CHUNK)) {
                let halves = &mut halves[..out.len()];
                bytemuck::cast_slice_mut::<$half, u8>(halves).copy_from_slice(bytes);
                halves.convert_to_f32_slice(out);
            }
            Ok(())
        }

        #[doc = concat!("Rounds f32 to ", stringify!($half), " bytes, to nearest even.")]
        ///
        /// # Errors
        /// `InvalidInput` if `bytes` is not twice as long as `values`.
        pub fn $from(values: &[f32], bytes: &mut [u8]) -> Result<()> {
            check(bytes.len(), values.len())?;
            let mut halves = [$half::ZERO; CHUNK];
            for (values, bytes) in values.chunks(CHUNK).zip(bytes.chunks_mut(2 * CHUNK)) {
                let halves = &mut halves[..values.len()];
                halves.convert_from_f32_slice(values);
                bytes.copy_from_slice(bytemuck::cast_slice(halves));
            }
            Ok(())
        }
    };
}
conversions!(f16, f16_to_f32, f32_to_f16);
conversions!(bf16, bf16_to_f32, f32_to_bf16);

/// Values converted at a time: through an aligned buffer on the stack, so that the bytes may lie anywhere.
const CHUNK: usize = 256;

fn check(bytes: usize, values: usize) -> Result<()> {
    if bytes.is_multiple_of(2) && bytes / 2 == values {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{bytes} bytes for {values} half-precision values"
    )))
}
