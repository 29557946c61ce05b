//! Whether somebody may be speaking: by loudness alone, or by a model.
//!
//! By loudness, a frame is speech if it is `margin` dB above the background, whose level is followed: down at once, up by `rise` dB per second, so
//! that a steady noise becomes background and speech, which pauses, does not. Cheap and without a model; it lets music and door
//! slams through, and a model has to judge these.

use crate::{Level, SileroVad};

/// See the module's head.
#[derive(Clone, Debug)]
pub struct EnergyVad {
    frame: usize,
    /// Above the background, dB.
    margin: f32,
    /// Never speech below, dB below full scale.
    least: f32,
    /// Of the background per frame, dB.
    rise: f32,
    floor: Option<f32>,
}

impl EnergyVad {
    /// A detector for samples at `rate` Hz, in frames of 20 ms.
    pub fn new(rate: u32) -> Self {
        EnergyVad {
            frame: (rate as usize / 50).max(1),
            margin: 9.0,
            least: -55.0,
            rise: 0.04,
            floor: None,
        }
    }

    /// Samples of a frame.
    pub fn frame(&self) -> usize {
        self.frame
    }

    /// Judges the next frame.
    pub fn speech(&mut self, frame: &[f32]) -> bool {
        let level = Level::of(frame).rms_db.max(-100.0);
        let floor = match self.floor {
            Some(floor) => level.min(floor + self.rise),
            // Nobody begins to speak in the first frame; if somebody does, the first pause corrects it.
            None => level.min(self.least),
        };
        self.floor = Some(floor);
        level > (floor + self.margin).max(self.least)
    }

    /// Forgets the background.
    pub fn reset(&mut self) {
        self.floor = None;
    }
}

/// A detector of either kind.
#[derive(Clone, Debug)]
pub enum Vad {
    /// By loudness.
    Energy(EnergyVad),
    /// By Silero's model, at 16 kHz.
    Silero(SileroVad),
}

impl Vad {
    /// Samples of a frame.
    pub fn frame(&self) -> usize {
        match self {
            Vad::Energy(v) => v.frame(),
            Vad::Silero(v) => v.frame(),
        }
    }

    /// Judges the next frame.
    pub fn speech(&mut self, frame: &[f32]) -> bool {
        match self {
            Vad::Energy(v) => v.speech(frame),
            Vad::Silero(v) => v.speech(frame),
        }
    }

    /// Forgets what was heard.
    pub fn reset(&mut self) {
        match self {
            Vad::Energy(v) => v.reset(),
            Vad::Silero(v) => v.reset(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: &mut u32, n: usize, size: f32) -> Vec<f32> {
        let mut next = || {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (*seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next() * size).collect()
    }

    #[test]
    fn speech_stands_out_and_noise_becomes_background() {
        let (mut vad, mut seed) = (EnergyVad::new(16_000), 1);
        let n = vad.frame();
        assert!((0..50).all(|_| !vad.speech(&vec![0.0; n])));
        let quiet = |seed: &mut u32| noise(seed, n, 0.003);
        for _ in 0..100 {
            vad.speech(&quiet(&mut seed));
        }
        assert!(vad.speech(&noise(&mut seed, n, 0.1)));
        assert!(!vad.speech(&quiet(&mut seed)));
        // A fan goes on: background after some time.
        let mut on = 0;
        for _ in 0..3000 {
            on += u32::from(vad.speech(&noise(&mut seed, n, 0.05)));
        }
        assert!((1..1500).contains(&on), "{on}");
        assert!(!vad.speech(&noise(&mut seed, n, 0.05)));
    }
}
