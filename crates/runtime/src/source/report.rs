//! Sums the progress of several files into one line for the caller.
use super::{Meter, Phase, ProgressEvent};
use std::time::Instant;

/// Where progress goes. Counts per phase run over all files of a model.
pub(crate) struct Reporter<'a> {
    sink: &'a mut dyn FnMut(ProgressEvent),
    meter: Meter,
    clock: Instant,
    // Per phase: bytes of files already finished, and bytes expected in all.
    phases: Vec<(Phase, u64, Option<u64>)>,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(sink: &'a mut dyn FnMut(ProgressEvent)) -> Self {
        Self {
            sink,
            meter: Meter::new(),
            clock: Instant::now(),
            phases: Vec::new(),
        }
    }

    fn slot(&mut self, phase: Phase) -> usize {
        self.phases
            .iter()
            .position(|p| p.0 == phase)
            .unwrap_or_else(|| {
                self.phases.push((phase, 0, None));
                self.phases.len() - 1
            })
    }

    /// Says how many bytes a phase will have on top of the files that are done with it.
    pub(crate) fn plan_rest(&mut self, phase: Phase, rest: u64) {
        let slot = self.slot(phase);
        if let Some(p) = self.phases.get_mut(slot) {
            p.2 = Some(p.1.saturating_add(rest));
        }
    }

    /// Tells that `done` bytes of the current file are done.
    pub(crate) fn at(&mut self, phase: Phase, file: &str, done: u64) {
        let slot = self.slot(phase);
        let (_, base, total) = self.phases.get(slot).copied().unwrap_or((phase, 0, None));
        let now = self.clock.elapsed().as_secs_f64();
        if let Some(event) = self.meter.update(now, phase, file, base + done, total) {
            (self.sink)(event);
        }
    }

    /// Tells that the current file is done with this phase.
    pub(crate) fn finish(&mut self, phase: Phase, file: &str, bytes: u64) {
        self.at(phase, file, bytes);
        self.settle(phase, bytes);
    }

    /// As [`Self::finish`], when the caller was told already.
    pub(crate) fn settle(&mut self, phase: Phase, bytes: u64) {
        let slot = self.slot(phase);
        if let Some(p) = self.phases.get_mut(slot) {
            p.1 += bytes;
        }
    }
}
