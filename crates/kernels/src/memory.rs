//! Who holds how much device memory.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a piece of device memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Holder {
    /// Model weights.
    Weights,
    /// Key/value caches and other state of a sequence.
    Cache,
    /// Intermediate results of recordings.
    Activations,
    /// Parameter arenas.
    Params,
    /// Read-back staging.
    Staging,
    /// Arrays the caller asked for.
    User,
    /// Free buffers kept for reuse; [`crate::Device::trim`] gives them back.
    Pool,
}

impl Holder {
    /// Every holder, in report order.
    pub const ALL: [Holder; 7] = [
        Holder::Weights,
        Holder::Cache,
        Holder::Activations,
        Holder::Params,
        Holder::Staging,
        Holder::User,
        Holder::Pool,
    ];

    /// The lower-case name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Holder::Weights => "weights",
            Holder::Cache => "cache",
            Holder::Activations => "activations",
            Holder::Params => "params",
            Holder::Staging => "staging",
            Holder::User => "user",
            Holder::Pool => "pool",
        }
    }
}

/// Bytes held per [`Holder`], and counters of what was created.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    held: [AtomicU64; 7],
    peak: AtomicU64,
    pub(crate) buffers_created: AtomicU64,
    pub(crate) bind_groups_created: AtomicU64,
    pub(crate) pipelines_created: AtomicU64,
}

impl Ledger {
    pub(crate) fn add(&self, holder: Holder, bytes: u64) {
        self.held[holder as usize].fetch_add(bytes, Ordering::Relaxed);
        self.peak.fetch_max(self.total(), Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, holder: Holder, bytes: u64) {
        self.held[holder as usize].fetch_sub(bytes, Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        self.held.iter().map(|h| h.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn report(&self) -> MemoryReport {
        MemoryReport {
            held: Holder::ALL.map(|h| (h, self.held[h as usize].load(Ordering::Relaxed))),
            peak_bytes: self.peak.load(Ordering::Relaxed),
            buffers_created: self.buffers_created.load(Ordering::Relaxed),
            bind_groups_created: self.bind_groups_created.load(Ordering::Relaxed),
            pipelines_created: self.pipelines_created.load(Ordering::Relaxed),
        }
    }
}

/// A snapshot of a device's memory, from [`crate::Device::memory`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryReport {
    /// Bytes per holder.
    pub held: [(Holder, u64); 7],
    /// The largest total there has been.
    pub peak_bytes: u64,
    /// Device buffers created since the device was opened.
    pub buffers_created: u64,
    /// Bind groups created since the device was opened (0 on the CPU).
    pub bind_groups_created: u64,
    /// Pipelines compiled since the device was opened (0 on the CPU).
    pub pipelines_created: u64,
}

impl MemoryReport {
    /// Bytes held by one holder.
    pub fn bytes(&self, holder: Holder) -> u64 {
        self.held[holder as usize].1
    }

    /// Bytes held in all.
    pub fn total_bytes(&self) -> u64 {
        self.held.iter().map(|(_, b)| b).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_and_taken_away_is_reported() {
        let ledger = Ledger::default();
        ledger.add(Holder::Weights, 100);
        ledger.add(Holder::Cache, 20);
        ledger.sub(Holder::Weights, 60);
        let report = ledger.report();
        assert_eq!(report.bytes(Holder::Weights), 40);
        assert_eq!(report.total_bytes(), 60);
        assert_eq!(report.peak_bytes, 120);
    }
}
