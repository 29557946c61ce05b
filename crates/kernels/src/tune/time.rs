//! Timing ways of recording the same call against each other.

use crate::harness::{Operands, record_case};
use crate::{Case, Device, Kernel, Recorder, Recording, Result};
use std::time::{Duration, Instant};

/// A round of one recording takes about this long.
const ROUND: Duration = Duration::from_millis(2);
/// Calls of one recording at most.
const MOST: u128 = 128;

/// One way, recorded often enough to be timed.
pub(super) struct Timed {
    recording: Recording,
    calls: u32,
    stamped: bool,
    /// The best round so far, seconds of one call.
    pub(super) best: f64,
}

impl Timed {
    pub(super) async fn new(
        device: &Device,
        kernel: &'static dyn Kernel,
        case: &Case,
        ops: &Operands,
    ) -> Result<Timed> {
        let record = |calls: u128| {
            let mut rec = Recorder::new(device);
            for _ in 0..calls {
                record_case(&mut rec, kernel, &ops.refs(), &case.params)?;
            }
            rec.finish()
        };
        let mut once = record(1)?;
        once.submit()?.wait().await?;
        let begin = Instant::now();
        once.submit()?.wait().await?;
        let took = begin.elapsed().as_nanos().max(1);
        let calls = (ROUND.as_nanos() / took).clamp(1, MOST);
        let recording = if calls == 1 { once } else { record(calls)? };
        Ok(Timed {
            recording,
            calls: calls as u32,
            stamped: device.has_timestamps(),
            best: f64::INFINITY,
        })
    }

    /// One round: by the device's timestamps where it has them, else by the clock.
    pub(super) async fn round(&mut self) -> Result<()> {
        let mut seconds = 0.0;
        if self.stamped {
            let calls = self.recording.profile().await?;
            seconds = calls.iter().map(|c| c.ns as f64 * 1e-9).sum();
            // A driver may count nothing for dispatches as short as these.
            self.stamped = seconds > 0.0;
        }
        if !self.stamped {
            let begin = Instant::now();
            self.recording.submit()?.wait().await?;
            seconds = begin.elapsed().as_secs_f64();
        }
        self.best = self.best.min(seconds.max(1e-9) / f64::from(self.calls));
        Ok(())
    }
}
