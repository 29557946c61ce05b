//! Resampling against what an ideal band-limited resampler gives, and its laws.

mod common;
use common::Random;
use firelight_audio::{Error, Resampler, resample};
use proptest::prelude::*;
use std::f64::consts::PI;

/// The level of the error against the ideal result in dB below the sine, away from the ends of the clip.
fn error_db(from: u32, to: u32, hertz: f64) -> f64 {
    let n = from as usize;
    let sine = |rate: u32, i: usize| (2.0 * PI * hertz * i as f64 / f64::from(rate)).sin();
    let x: Vec<f32> = (0..n).map(|i| sine(from, i) as f32).collect();
    let y = resample(&x, from, to).unwrap();
    let ends = y.len() / 4;
    let audible = hertz < f64::from(to) / 2.0;
    let error: f64 = (ends..y.len() - ends)
        .map(|i| {
            let ideal = if audible { sine(to, i) } else { 0.0 };
            (f64::from(y[i]) - ideal).powi(2)
        })
        .sum();
    10.0 * (error / (y.len() - 2 * ends) as f64 / 0.5).log10()
}

#[test]
fn sines_pass_and_aliases_do_not() {
    for (from, to) in [
        (48000, 16000),
        (44100, 16000),
        (8000, 16000),
        (22050, 16000),
        (96000, 16000),
        (11025, 16000),
        (16000, 44100),
        (32000, 16000),
    ] {
        let edge = f64::from(from.min(to)) / 2.0;
        // Speech and all but the last twentieth of the band.
        for share in [0.01, 0.1, 0.31, 0.5, 0.73, 0.9, 0.94] {
            let db = error_db(from, to, edge * share);
            assert!(
                db <= -100.0,
                "{from} to {to} Hz at {:.0} Hz: {db:.1} dB",
                edge * share
            );
        }
        if from > to {
            for share in [1.0, 1.01, 1.1, 1.5, 1.9] {
                let hertz = (edge * share + 1.0).min(f64::from(from) / 2.0 - 1.0);
                let db = error_db(from, to, hertz);
                assert!(
                    db <= -100.0,
                    "{from} to {to} Hz, alias of {hertz:.0} Hz: {db:.1} dB"
                );
            }
        }
    }
}

#[test]
fn a_resampler_that_is_late_is_noticed() {
    // One sample of delay would show: the measure itself is sensitive.
    let x: Vec<f32> = (0..16000)
        .map(|i| (2.0 * PI * 440.0 * i as f64 / 16000.0).sin() as f32)
        .collect();
    let late: f64 = x
        .windows(2)
        .map(|w| f64::from(w[1] - w[0]).powi(2))
        .sum::<f64>()
        / 15999.0;
    assert!(10.0 * (late / 0.5).log10() > -20.0);
}

#[test]
fn no_number_is_an_error() {
    for to in [16000, 8000] {
        let mut resampler = Resampler::new(16000, to).unwrap();
        let mut out = Vec::new();
        resampler.push(&[0.5; 7], &mut out).unwrap();
        let e = resampler.push(&[0.0, f32::NAN], &mut out).unwrap_err();
        assert!(
            matches!(&e, Error::InvalidInput(m) if m.contains("sample 8 ")),
            "{e}"
        );
    }
}

#[test]
fn strange_rates() {
    for (from, to) in [
        (0, 16000),
        (16000, 0),
        (999, 16000),
        (16000, 768_001),
        (u32::MAX, u32::MAX),
    ] {
        assert!(
            matches!(Resampler::new(from, to), Err(Error::Unsupported(_))),
            "{from} {to}"
        );
    }
    // Rates without a common factor, and the ends of the range.
    for (from, to) in [
        (44101, 16000),
        (1000, 768_000),
        (768_000, 1000),
        (47999, 48001),
    ] {
        assert_eq!(
            resample(&[0.0; 1000], from, to).unwrap().len() as u64,
            (1000 * u64::from(to)).div_ceil(from.into())
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However the samples come, the result is the same, to the bit, and ⌈n · to / from⌉ long; a finished resampler
    /// starts anew.
    #[test]
    fn chunks_do_not_matter(
        seed in 1u64.., n in 0usize..9000, most in prop::sample::select(vec![1usize, 13, 512, 2048, 9000]),
        from in prop::sample::select(vec![8000u32, 11025, 16000, 22050, 44100, 48000]), to in prop::sample::select(vec![16000u32, 24000, 44100]),
    ) {
        let mut random = Random(seed);
        let x: Vec<f32> = (0..n).map(|_| random.sample()).collect();
        let whole = resample(&x, from, to).unwrap();
        prop_assert_eq!(whole.len() as u64, (n as u64 * u64::from(to)).div_ceil(from.into()));
        let mut resampler = Resampler::new(from, to).unwrap();
        for _ in 0..2 {
            let (mut out, mut at) = (Vec::new(), 0);
            for piece in random.pieces(n, most) {
                resampler.push(&x[at..at + piece], &mut out).unwrap();
                at += piece;
            }
            resampler.finish(&mut out);
            prop_assert_eq!(&out, &whole);
        }
        if from == to {
            prop_assert_eq!(whole, x);
        }
    }
}
