//! Timing a case.

use std::time::Duration;
#[cfg(not(target_arch = "wasm32"))]
use {
    super::Operands,
    crate::kernel::{Case, Kernel},
    crate::{Device, Recorder, Result},
};

/// How fast a case ran.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Median time of one call.
    pub time: Duration,
    /// Bytes the formula must move, per second, in 10⁹.
    pub gb_per_s: f64,
    /// Floating-point operations per second, in 10⁹.
    pub gflop_per_s: f64,
}

/// Times one case: `rounds` submits of `repeat` recorded calls each, the median round.
///
/// # Errors
/// What recording or running returns.
#[cfg(not(target_arch = "wasm32"))]
pub async fn bench_case(
    device: &Device,
    kernel: &'static dyn Kernel,
    case: &Case,
    rounds: usize,
    repeat: usize,
) -> Result<Timing> {
    let ops = Operands::new(device, case)?;
    let mut rec = Recorder::new(device);
    for _ in 0..repeat.max(1) {
        rec.call_words(kernel, &ops.refs(), case.params.clone())?;
    }
    let mut recording = rec.finish()?;
    recording.submit()?.wait().await?;
    let mut times = Vec::new();
    for _ in 0..rounds.max(1) {
        let start = std::time::Instant::now();
        recording.submit()?.wait().await?;
        times.push(start.elapsed() / repeat.max(1) as u32);
    }
    times.sort_unstable();
    let time = times[times.len() / 2];
    let seconds = time.as_secs_f64().max(1e-12);
    Ok(Timing {
        time,
        gb_per_s: case.bytes as f64 / seconds / 1e9,
        gflop_per_s: case.flops as f64 / seconds / 1e9,
    })
}
