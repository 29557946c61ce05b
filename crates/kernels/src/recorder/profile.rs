//! How long each call of a recording takes.

use super::{Recording, Work};
use crate::Result;
use crate::device::DeviceKind;
use crate::kernel::Call;
use std::time::Instant;

/// One call's time; see [`Recording::profile`].
#[derive(Clone, Debug)]
pub struct CallTime {
    /// The kernel.
    pub kernel: &'static str,
    /// The variant on a GPU; the CPU has one each.
    pub variant: &'static str,
    /// Types and shapes of the operands.
    pub operands: String,
    /// Nanoseconds from the first call's start to this one's.
    pub start_ns: u64,
    /// Nanoseconds it took.
    pub ns: u64,
    /// What it moves and computes; `None` where that depends on the data.
    pub work: Option<Work>,
}

impl Recording {
    /// Runs the calls once, as [`Recording::submit`] would, and gives the time of each. On a GPU each call is a compute pass of its own
    /// between two timestamps, or, where the device has none, a submit of its own timed by the host: the sum is more than a
    /// submit takes.
    ///
    /// # Errors
    /// `Device` if the device was lost.
    pub async fn profile(&mut self) -> Result<Vec<CallTime>> {
        self.write_step()?;
        let times: Vec<(u64, u64)> = match self.device.kind() {
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu(gpu) => {
                let prepared = self.gpu.as_ref();
                let prepared =
                    prepared.ok_or_else(|| crate::Error::invalid("recording without pipelines"))?;
                gpu.profile(&self.device, prepared).await?
            }
            DeviceKind::Cpu(cpu) => {
                let begin = Instant::now();
                let mut times = Vec::with_capacity(self.calls.len());
                for call in &self.calls {
                    let start = begin.elapsed();
                    crate::cpu::execute(
                        cpu,
                        &self.device.caps().tuning,
                        call.kernel,
                        &call.views,
                        &call.params,
                        &call.bindings,
                    )?;
                    let took = begin.elapsed() - start;
                    times.push((start.as_nanos() as u64, took.as_nanos() as u64));
                }
                times
            }
        };
        let on_cpu = !self.device.is_gpu();
        let calls = self.calls.iter().zip(times);
        Ok(calls
            .map(|(call, (start_ns, ns))| {
                let operands = call.kernel.operands().iter().zip(&call.views);
                let operands =
                    operands.map(|(o, v)| format!("{} {}{:?}", o.name, v.dtype, v.shape));
                CallTime {
                    kernel: call.kernel.name(),
                    variant: if on_cpu { "cpu" } else { call.plan.variant },
                    operands: operands.collect::<Vec<_>>().join(", "),
                    start_ns,
                    ns,
                    work: call.kernel.work(&Call {
                        operands: &call.views,
                        params: &call.params,
                    }),
                }
            })
            .collect())
    }
}
