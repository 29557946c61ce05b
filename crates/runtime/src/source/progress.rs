//! Progress that never goes back: counters per phase, smoothed speed and time left, at most ten events a second.
//!
//! [`Meter`] is pure: it takes the time as a number, so that it can be tested without waiting and compiled to wasm.

/// What is being done.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Asking a source what it has.
    Resolving,
    /// Another process is fetching the same model; waiting for it.
    Waiting,
    /// Comparing what is needed with the free space.
    CheckingDisk,
    /// Bytes are coming in.
    Downloading,
    /// Taking the model out of a package.
    Extracting,
    /// Computing sha256.
    Verifying,
}

impl Phase {
    /// A word for a progress line.
    pub fn label(self) -> &'static str {
        match self {
            Self::Resolving => "resolving",
            Self::Waiting => "waiting for another process",
            Self::CheckingDisk => "checking disk",
            Self::Downloading => "downloading",
            Self::Extracting => "extracting",
            Self::Verifying => "verifying",
        }
    }
}

/// One report to the caller. Within a phase `bytes_done` never falls.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgressEvent {
    /// What is being done.
    pub phase: Phase,
    /// File, package or repository concerned; for people.
    pub file: String,
    /// Bytes of this phase done so far, over all files of the model.
    pub bytes_done: u64,
    /// Bytes of this phase in all, when known.
    pub bytes_total: Option<u64>,
    /// Bytes per second, smoothed over about three seconds; absent until there is something to measure.
    pub speed_bps: Option<f64>,
    /// Seconds left, smoothed; absent while unknown.
    pub eta_s: Option<f64>,
}

const EVERY_S: f64 = 0.1;
const SPEED_WINDOW_S: f64 = 3.0;
const FIRST_SPEED_S: f64 = 0.5;

/// What is kept of a phase while another one runs.
#[derive(Clone, Copy, Debug)]
struct Past {
    phase: Phase,
    done: u64,
    total: Option<u64>,
    speed: Option<f64>,
    eta: Option<f64>,
}

/// Turns raw byte counts into [`ProgressEvent`]s.
#[derive(Debug)]
pub struct Meter {
    phase: Phase,
    file: String,
    done: u64,
    total: Option<u64>,
    start: Option<(f64, u64)>,
    last_sample: (f64, u64),
    speed: Option<f64>,
    eta: Option<(f64, f64)>,
    last_sent: Option<f64>,
    sent_done: Option<u64>,
    past: Vec<Past>,
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

impl Meter {
    /// A meter at zero.
    pub fn new() -> Self {
        Self {
            phase: Phase::Resolving,
            file: String::new(),
            done: 0,
            total: None,
            start: None,
            last_sample: (0.0, 0),
            speed: None,
            eta: None,
            last_sent: None,
            sent_done: None,
            past: Vec::new(),
        }
    }

    /// Tells where things stand at time `now` (seconds, any origin, not decreasing). `done` may fall (a restart); what is
    /// reported does not. Returns an event when one is due.
    pub fn update(
        &mut self,
        now: f64,
        phase: Phase,
        file: &str,
        done: u64,
        total: Option<u64>,
    ) -> Option<ProgressEvent> {
        let changed = self.last_sent.is_none() || phase != self.phase || file != self.file;
        if phase != self.phase {
            self.switch(now, phase);
        }
        if file != self.file {
            self.file = file.to_owned();
        }
        // A total that shrinks below what was shown would read as more than 100 %.
        self.total = total.or(self.total).map(|t| t.max(self.done).max(done));
        self.measure(now, done);
        self.done = self.done.max(done);
        let finished = self.total == Some(self.done) && self.sent_done != Some(self.done);
        let due = self.last_sent.is_none_or(|t| now - t >= EVERY_S);
        if !(changed || finished || due) {
            return None;
        }
        self.last_sent = Some(now);
        self.sent_done = Some(self.done);
        Some(ProgressEvent {
            phase,
            file: self.file.clone(),
            bytes_done: self.done,
            bytes_total: self.total,
            speed_bps: self.speed,
            eta_s: self.time_left(now, done),
        })
    }

    /// Puts the current phase aside and takes up another where it was; its clock stood still meanwhile.
    fn switch(&mut self, now: f64, phase: Phase) {
        self.past.retain(|p| p.phase != self.phase);
        self.past.push(Past {
            phase: self.phase,
            done: self.done,
            total: self.total,
            speed: self.speed,
            eta: self.eta.map(|(_, shown)| shown),
        });
        let known = self.past.iter().find(|p| p.phase == phase).copied();
        let new = Past {
            phase,
            done: 0,
            total: None,
            speed: None,
            eta: None,
        };
        let past = known.unwrap_or(new);
        (self.phase, self.done, self.total) = (phase, past.done, past.total);
        (self.start, self.speed) = (None, past.speed);
        self.eta = past.eta.map(|shown| (now, shown));
    }

    /// Exponential average of the speed; bytes that were there before the phase began do not count.
    fn measure(&mut self, now: f64, done: u64) {
        let Some((t0, d0)) = self.start else {
            self.start = Some((now, done));
            self.last_sample = (now, done);
            return;
        };
        let (t1, d1) = self.last_sample;
        if done < d1 {
            // Began again: measure from here.
            self.start = Some((now, done));
            self.last_sample = (now, done);
            return;
        }
        if self.speed.is_none() && done == d0 {
            // The time until the first byte says nothing about the speed.
            self.start = Some((now, done));
            self.last_sample = (now, done);
            return;
        }
        let dt = now - t1;
        if dt < EVERY_S {
            return;
        }
        let rate = (done - d1) as f64 / dt;
        self.last_sample = (now, done);
        self.speed = match self.speed {
            Some(s) => Some(s + (rate - s) * (1.0 - (-dt / SPEED_WINDOW_S).exp())),
            None if now - t0 >= FIRST_SPEED_S && done > d0 => Some((done - d0) as f64 / (now - t0)),
            None => None,
        };
    }

    /// Seconds left. Between events it counts down like a clock; it falls quickly towards a better estimate and rises
    /// slowly (half a second per second, plus a tenth), so that one stalled second does not show as an hour.
    fn time_left(&mut self, now: f64, done: u64) -> Option<f64> {
        let (total, speed) = (self.total?, self.speed?);
        let left = total.saturating_sub(done) as f64;
        if left == 0.0 {
            return Some(0.0);
        }
        let raw = left / speed.max(1.0);
        let shown = match self.eta {
            None => raw,
            Some((t, shown)) => {
                let dt = (now - t).max(0.0);
                let clock = (shown - dt).max(0.0);
                if raw <= clock {
                    clock + (raw - clock) * (1.0 - (-dt).exp())
                } else {
                    raw.min(shown + dt * (0.5 + 0.1 * shown))
                }
            }
        };
        self.eta = Some((now, shown));
        Some(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn steady_stream_gives_true_speed_and_eta() {
        let mut m = Meter::new();
        let mut last = None;
        for i in 0..=50u64 {
            last = m
                .update(
                    i as f64 * 0.1,
                    Phase::Downloading,
                    "f",
                    i * 100,
                    Some(10_000),
                )
                .or(last);
        }
        let e = last.unwrap();
        assert!((e.speed_bps.unwrap() - 1000.0).abs() < 1.0, "{e:?}");
        assert!((e.eta_s.unwrap() - 5.0).abs() < 0.5, "{e:?}");
    }

    #[test]
    fn ten_events_a_second_at_most_and_the_last_always() {
        let mut m = Meter::new();
        let sent = (0..=1000u64)
            .filter_map(|i| m.update(i as f64 * 0.001, Phase::Downloading, "f", i, Some(1000)))
            .collect::<Vec<_>>();
        assert!((8..=13).contains(&sent.len()), "{}", sent.len());
        assert_eq!(sent.last().unwrap().bytes_done, 1000);
    }

    #[test]
    fn resumed_bytes_are_not_speed() {
        let mut m = Meter::new();
        m.update(0.0, Phase::Downloading, "f", 900_000, Some(1_000_000));
        let mut last = None;
        for i in 1..=10u64 {
            let done = 900_000 + i * 1000;
            last = m.update(
                i as f64 * 0.2,
                Phase::Downloading,
                "f",
                done,
                Some(1_000_000),
            );
        }
        let speed = last.unwrap().speed_bps.unwrap();
        assert!((4000.0..6000.0).contains(&speed), "{speed}");
    }

    #[test]
    fn a_phase_that_comes_back_goes_on_from_where_it_was() {
        let mut m = Meter::new();
        m.update(0.0, Phase::Downloading, "a", 70, Some(100));
        m.update(1.0, Phase::Verifying, "a", 70, Some(100));
        let e = m
            .update(2.0, Phase::Downloading, "b", 10, Some(100))
            .unwrap();
        assert_eq!(e.bytes_done, 70);
    }

    #[test]
    fn a_stall_raises_the_eta_slowly() {
        let mut m = Meter::new();
        let mut at = |t, done| {
            m.update(t, Phase::Downloading, "f", done, Some(100_000))
                .unwrap()
        };
        let running = (0..=12)
            .map(|i| at(i as f64 * 0.25, i * 2500))
            .last()
            .unwrap();
        let before = running.eta_s.unwrap();
        assert!((6.0..8.0).contains(&before), "{before}");
        let stalled = (13..=33)
            .map(|i| at(i as f64 * 0.25, 30_000))
            .collect::<Vec<_>>();
        let first = stalled[0].eta_s.unwrap();
        assert!(
            first <= before + 0.25 * (0.5 + 0.1 * before) + 1e-9,
            "{before} -> {first}"
        );
        let last = stalled[20].eta_s.unwrap();
        assert!(last > before && last < 60.0, "{before} -> {last}");
    }

    proptest! {
        #[test]
        fn never_goes_back(steps in prop::collection::vec((0.0f64..2.0, 0usize..6, 0u64..5_000, 0u64..9_000), 1..200)) {
            let phases = [Phase::Resolving, Phase::CheckingDisk, Phase::Downloading, Phase::Extracting, Phase::Verifying, Phase::Waiting];
            let mut m = Meter::new();
            let mut now = 0.0;
            let mut best = std::collections::HashMap::new();
            let mut etas = std::collections::HashMap::new();
            let mut before = None;
            for (dt, p, done, total) in steps {
                now += dt;
                let phase = phases[p % phases.len()];
                let Some(e) = m.update(now, phase, "f", done, Some(total)) else { continue };
                let b = best.entry(e.phase).or_insert(0);
                prop_assert!(e.bytes_done >= *b);
                *b = e.bytes_done;
                prop_assert!(e.bytes_total.is_some_and(|t| t >= e.bytes_done));
                prop_assert!(e.speed_bps.is_none_or(|s| s.is_finite() && s >= 0.0));
                if let Some(s) = e.eta_s {
                    prop_assert!(s.is_finite() && s >= 0.0);
                    // Time in another phase does not count.
                    if let Some(&(t, shown)) = etas.get(&phase) && shown > 0.0 {
                        let step = if before == Some(phase) { now - t } else { 0.0 };
                        prop_assert!(s <= shown + step * (0.5 + 0.1 * shown) + 1e-6);
                    }
                    etas.insert(phase, (now, s));
                }
                before = Some(phase);
            }
        }
    }
}
