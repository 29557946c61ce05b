//! Devices with measured numbers; see [`crate::tune`].

use super::{Device, DeviceKind};
use crate::tune::Tuning;
use std::sync::Arc;

impl Device {
    /// The same device with these numbers in place of the defaults. Arrays belong to both; recordings to the one they were made on.
    #[must_use]
    pub fn tuned(&self, tuning: Tuning) -> Device {
        let mut inner = self.0.again();
        inner.caps.tuning = tuning;
        Device(Arc::new(inner))
    }

    /// Adapter, driver and version of this crate, or processor and threads, with the rung: measured numbers hold for the same only.
    pub fn identity(&self) -> String {
        let what = match self.kind() {
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu(gpu) => gpu.identity(),
            DeviceKind::Cpu(_) => format!(
                "{} · {}",
                self.name(),
                concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"))
            ),
        };
        format!("{what} · {}", self.rung())
    }

    /// True if a GPU can say when a pass began and ended.
    pub(crate) fn has_timestamps(&self) -> bool {
        match self.kind() {
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu(gpu) => gpu.has_timestamps(),
            DeviceKind::Cpu(_) => false,
        }
    }
}
