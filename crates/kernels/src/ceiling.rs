//! What a device can do at best, measured: the scale for profiles.

#[cfg(feature = "gpu")]
use crate::Holder;
use crate::cpu::Cpu;
use crate::device::DeviceKind;
use crate::linear::linear;
use crate::{Device, Recorder, Result, Weight};
use firelight_tensor::AlignedBuf;
#[cfg(feature = "gpu")]
use firelight_tensor::DType;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// See [`Device::ceilings`].
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    /// Bytes of memory per second: read on the CPU, read and written by copies on a GPU.
    pub bandwidth: f64,
    /// Floating-point operations per second of our own f32 product.
    pub flops: f64,
}

/// More than any cache holds.
const BYTES: u64 = 128 << 20;
/// Sides of the product.
const SIDE: usize = 1024;
/// No more tries after this time.
const ENOUGH: Duration = Duration::from_millis(300);

impl Device {
    /// Measures memory and arithmetic for about a second; the best of some tries counts. Needs a quarter of a gigabyte for that time.
    ///
    /// # Errors
    /// `Device` if memory runs out or the device is lost.
    pub async fn ceilings(&self) -> Result<Ceilings> {
        Ok(Ceilings {
            bandwidth: self.bandwidth().await?,
            flops: self.flops().await?,
        })
    }

    async fn bandwidth(&self) -> Result<f64> {
        match self.kind() {
            DeviceKind::Cpu(cpu) => reading(cpu),
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu(_) => self.copying().await,
        }
    }

    #[cfg(feature = "gpu")]
    async fn copying(&self) -> Result<f64> {
        let mut best = f64::INFINITY;
        let bytes = BYTES.min(self.caps().max_binding) & !255;
        let make = || self.array(DType::U32, &[bytes as usize / 4], Holder::User);
        let (from, to) = (make()?, make()?);
        self.flushed().await?;
        let begin = Instant::now();
        while best.is_infinite() || begin.elapsed() < ENOUGH {
            let start = Instant::now();
            self.copy(&from, &to, bytes)?;
            self.copy(&to, &from, bytes)?;
            self.flushed().await?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(4.0 * bytes as f64 / best)
    }

    async fn flops(&self) -> Result<f64> {
        let values = vec![0.5f32; SIDE * SIDE];
        let x = self.upload_f32(&values, &[SIDE, SIDE])?;
        let w = Weight::from_array(&self.upload_f32(&values, &[SIDE, SIDE])?)?;
        let mut rec = Recorder::new(self);
        linear(&mut rec, &x, &w)?;
        let mut recording = rec.finish()?;
        let mut best = f64::INFINITY;
        let begin = Instant::now();
        while best.is_infinite() || begin.elapsed() < ENOUGH {
            let start = Instant::now();
            recording.submit()?.wait().await?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok((2 * SIDE * SIDE * SIDE) as f64 / best)
    }
}

/// Bytes per second that all threads together read.
fn reading(cpu: &Cpu) -> Result<f64> {
    let mut best = f64::INFINITY;
    let mut bytes = AlignedBuf::zeroed(BYTES as usize)
        .map_err(|e| crate::Error::device(crate::DeviceFault::OutOfMemory, e.to_string()))?;
    // Zero pages may all be one.
    bytes.iter_mut().for_each(|b| *b = 1);
    let words: &[u64] = bytemuck::cast_slice(&bytes);
    let threads = cpu.pool.threads();
    let part = words.len().div_ceil(threads);
    let begin = Instant::now();
    while best.is_infinite() || begin.elapsed() < ENOUGH {
        let start = Instant::now();
        cpu.pool.run(threads, |task| {
            let mine = words.chunks(part).nth(task).unwrap_or_default();
            // As many sums as keep the loads in flight.
            let mut sums = [0u64; 32];
            for words in mine.as_chunks::<32>().0 {
                for (sum, word) in sums.iter_mut().zip(words) {
                    *sum = sum.wrapping_add(*word);
                }
            }
            black_box(sums);
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(BYTES as f64 / best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CpuOptions;

    #[test]
    fn the_processor_moves_and_multiplies() {
        let device = Device::cpu(&CpuOptions::default()).expect("a CPU");
        let c = pollster::block_on(device.ceilings()).expect("measured");
        // No claim about this machine: only that figures of the right kind come out.
        assert!(c.bandwidth.is_finite() && c.bandwidth > 1e8, "{c:?}");
        assert!(c.flops.is_finite() && c.flops > 1e7, "{c:?}");
    }
}
