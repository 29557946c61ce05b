//! Letting through what may be speech, and knowing where it was.

use firelight_audio::Vad;

/// Sound before and after speech that goes with it, s.
const AROUND: f64 = 0.3;

/// A pause that ends a window: text has no times on both sides of a longer one, s.
const LONG: f64 = 5.0;

/// See the module's head.
pub(super) struct Gate {
    vad: Vad,
    /// Samples of less than a frame.
    rest: Vec<f32>,
    /// The last samples that did not go through.
    held: Vec<f32>,
    around: usize,
    long: usize,
    open: bool,
    /// Samples since the last loud frame.
    quiet: usize,
    /// Samples seen, without `rest`.
    seen: usize,
    passed: usize,
    /// For each stretch let through: where it begins among what passed, and in the file.
    places: Vec<(usize, usize)>,
}

impl Gate {
    pub(super) fn new(rate: u32, vad: Vad) -> Self {
        Gate {
            vad,
            rest: Vec::new(),
            held: Vec::new(),
            around: (AROUND * f64::from(rate)) as usize,
            long: (LONG * f64::from(rate)) as usize,
            open: false,
            quiet: 0,
            seen: 0,
            passed: 0,
            places: Vec::new(),
        }
    }

    /// Samples seen.
    pub(super) fn taken(&self) -> usize {
        self.seen + self.rest.len()
    }

    /// Appends to `out` what goes through.
    pub(super) fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        let n = self.vad.frame();
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(samples);
        let whole = rest.len() / n * n;
        for frame in rest[..whole].chunks_exact(n) {
            let loud = self.vad.speech(frame);
            if loud && !self.open {
                self.places.push((self.passed, self.seen - self.held.len()));
                self.passed += self.held.len();
                out.append(&mut self.held);
                self.open = true;
            }
            self.quiet = if loud { 0 } else { self.quiet + n };
            self.seen += n;
            if self.open {
                out.extend_from_slice(frame);
                self.passed += n;
                self.open = self.quiet <= 2 * self.around;
            } else {
                self.held.extend_from_slice(frame);
                let extra = self.held.len().saturating_sub(self.around);
                self.held.drain(..extra);
            }
        }
        rest.drain(..whole);
        self.rest = rest;
    }

    /// The first sample after `at`, of what went through, before which a long pause was left out.
    pub(super) fn pause_after(&self, at: usize) -> Option<usize> {
        let long = self.places.windows(2).filter(|pair| {
            let ((passed, file), (next, there)) = (pair[0], pair[1]);
            there - file >= next - passed + self.long
        });
        let mut starts = long.map(|pair| pair[1].0);
        starts.find(|&start| start > at)
    }

    /// Where in the file sample `at` of what went through was; as the end of something it belongs to the stretch before.
    pub(super) fn place(&self, at: usize, end: bool) -> usize {
        let before = |place: &&(usize, usize)| place.0 < at || !end && place.0 == at;
        let found = self
            .places
            .iter()
            .rev()
            .find(before)
            .or(self.places.first());
        found.map_or(at, |(passed, file)| file + at.saturating_sub(*passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firelight_audio::EnergyVad;

    #[test]
    fn speech_goes_through_with_its_place() {
        let mut gate = Gate::new(16_000, Vad::Energy(EnergyVad::new(16_000)));
        let mut file = vec![0.0f32; 16_000 * 10];
        for (i, v) in file.iter_mut().enumerate() {
            // Two stretches, 3-4 s and 7-8 s.
            if matches!(i / 16_000, 3 | 7) {
                *v = if i % 2 == 0 { 0.2 } else { -0.2 };
            }
        }
        let mut out = Vec::new();
        for piece in file.chunks(777) {
            gate.push(piece, &mut out);
        }
        assert_eq!(gate.taken(), file.len());
        let loud: usize = out.iter().filter(|v| **v != 0.0).count();
        assert_eq!(loud, 32_000);
        assert!(out.len() < 16_000 * 5, "{}", out.len());
        // Each loud sample is where it was.
        for (i, v) in out.iter().enumerate() {
            assert_eq!(*v, file[gate.place(i, false)], "{i}");
        }
        let first = out.iter().position(|v| *v != 0.0).unwrap_or(0);
        assert_eq!(gate.place(first, false), 48_000);
        assert!(gate.place(out.len(), true) < 16_000 * 9);
        assert_eq!(gate.pause_after(0), None, "2.4 s are no long pause");
        gate.push(&[0.0; 16_000 * 8], &mut out);
        let before = out.len();
        gate.push(&file[16_000 * 2..16_000 * 4], &mut out);
        assert_eq!(gate.pause_after(0), Some(before));
        assert_eq!(gate.pause_after(before), None);
        assert_eq!(gate.place(before, true), gate.place(before - 1, false) + 1);
    }
}
