//! Gemma 4's front end and Kaldi's filter bank against the reference, and streams against the whole.

mod common;
use common::{Random, data, floats};
use firelight_audio::{LogMel, MelFilters, Preset, decode};
use proptest::prelude::*;
use serde_json::Value;

fn clip() -> Vec<f32> {
    decode(&data("clip.wav")).unwrap().samples
}

fn front(name: &str) -> LogMel {
    let preset = match name {
        "gemma4" => Preset::Gemma4,
        "kaldi80" => Preset::Kaldi80,
        other => panic!("{other}"),
    };
    LogMel::preset(preset).unwrap()
}

#[test]
fn equals_the_reference() {
    let cases: Vec<Value> = serde_json::from_slice(&data("logmel.json")).unwrap();
    let blob = floats(&data("logmel.f32"));
    let clip = clip();
    let n = |v: &Value| v.as_u64().unwrap() as usize;
    assert!(cases.len() >= 6);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let samples = &clip[n(&case["samples"][0])..n(&case["samples"][1])];
        let got = front(case["preset"].as_str().unwrap())
            .features(samples)
            .unwrap();
        let shape = [n(&case["shape"][0]), n(&case["shape"][1])];
        assert_eq!(got.shape(), shape, "{name}");
        let got = got.to_f32_vec().unwrap();
        let columns: Vec<usize> = case["columns"].as_array().unwrap().iter().map(n).collect();
        let size = columns.len() * shape[1];
        let at = n(&case["at"]);
        // As the reference computes it, in whose transform of f32 quiet bands lose digits; and with its transform made exact.
        let rounding = case["rounding"].as_f64().unwrap();
        for (what, bound, expected) in [
            ("reference", 1e-5 + 1.01 * rounding, &blob[at..at + size]),
            ("exact", 1e-5, &blob[at + size..at + 2 * size]),
        ] {
            let rows = columns
                .iter()
                .flat_map(|&c| &got[c * shape[1]..(c + 1) * shape[1]]);
            for (i, (a, b)) in rows.zip(expected).enumerate() {
                let off = f64::from((a - b).abs());
                assert!(off <= bound, "{name}, {what}, value {i}: {a} against {b}");
            }
        }
    }
}

#[test]
fn a_config_gives_the_preset() {
    let json = r#"{"feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor", "feature_size": 128,
        "fft_length": 512, "frame_length": 320, "hop_length": 160, "mel_floor": 0.001, "max_frequency": 8000.0,
        "dither": 0.0, "preemphasis": 0.0, "per_bin_mean": null, "sampling_rate": 16000}}"#;
    assert_eq!(
        LogMel::from_config(json).unwrap().config(),
        front("gemma4").config()
    );
    for bad in [
        r#"{"feature_extractor_type": "Other"}"#,
        r#"{"feature_extractor_type": "Gemma4AudioFeatureExtractor", "dither": 0.1}"#,
        r#"{"feature_extractor_type": "Gemma4AudioFeatureExtractor", "frame_length": 900}"#,
        r#"{"feature_extractor_type": "Gemma4AudioFeatureExtractor", "hop_length": 0}"#,
        r#"{"feature_extractor_type": "Gemma4AudioFeatureExtractor", "feature_size": -1}"#,
        "[]",
        "{",
    ] {
        assert!(LogMel::from_config(bad).is_err(), "{bad}");
    }
}

/// Beside a loud tone the quiet bands show how the windowed samples were rounded: Gemma's reference has them in f32.
#[test]
fn quiet_bands_beside_a_tone() {
    let tone = |i: usize| (i as f32 * 0.173).sin() * 0.6;
    let samples: Vec<f32> = (0..900).map(tone).collect();
    let front = front("gemma4");
    let got = front.features(&samples).unwrap().to_f32_vec().unwrap();
    let (window, bank) = (
        front.config().window.weights(320),
        MelFilters::new(&front.config().mel).unwrap().dense(),
    );
    // The fourth frame, by the sum itself.
    let (t, m) = (3, 128);
    let row = |narrow: bool| -> Vec<f64> {
        let x = |i: usize| {
            let (x, w) = (samples[t * 160 + i - 160], window[i]);
            match narrow {
                true => f64::from(x * w as f32),
                false => f64::from(x) * w,
            }
        };
        let size = |k: usize| {
            let turn = |i: usize| std::f64::consts::TAU * (i * k % 512) as f64 / 512.0;
            let re: f64 = (0..320).map(|i| x(i) * turn(i).cos()).sum();
            let im: f64 = (0..320).map(|i| x(i) * turn(i).sin()).sum();
            re.hypot(im)
        };
        let sizes: Vec<f64> = (0..257).map(size).collect();
        let energy =
            |f: &[f32]| -> f64 { f.iter().zip(&sizes).map(|(w, s)| f64::from(*w) * s).sum() };
        bank.chunks(257).map(|f| (energy(f) + 1e-3).ln()).collect()
    };
    let off = |row: Vec<f64>| {
        let got = got[t * m..(t + 1) * m].iter();
        got.zip(row)
            .map(|(a, b)| (f64::from(*a) - b).abs())
            .fold(0.0, f64::max)
    };
    let (as_there, wide) = (off(row(true)), off(row(false)));
    assert!(as_there <= 1e-6, "{as_there}");
    assert!(wide > 1e-5, "without the rounding it is {wide}");
}

#[test]
fn clips_without_a_frame_and_numbers_that_are_none() {
    for name in ["gemma4", "kaldi80"] {
        let front = front(name);
        assert!(front.features(&[]).is_err(), "{name}");
        assert!(front.features(&[f32::NAN; 1000]).is_err(), "{name}");
        let silence = front
            .features(&[0.0; 16_000])
            .unwrap()
            .to_f32_vec()
            .unwrap();
        assert!(silence.iter().all(|v| v.is_finite()), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_stream_is_the_whole(seed in 1u64.., len in 400usize..9000, most in 1usize..2000, kaldi: bool) {
        let front = front(if kaldi { "kaldi80" } else { "gemma4" });
        let mut random = Random(seed);
        let samples: Vec<f32> = (0..len).map(|_| random.sample()).collect();
        let whole = front.features(&samples).unwrap().to_f32_vec().unwrap();
        let mut stream = front.stream();
        // Twice: a finished stream is ready for another clip.
        for _ in 0..2 {
            let (mut out, mut at, mut made) = (Vec::new(), 0, 0);
            for n in random.pieces(len, most) {
                made += stream.push(&samples[at..at + n], &mut out).unwrap();
                at += n;
            }
            prop_assert_eq!(made, front.frames(len));
            stream.finish(&mut out);
            prop_assert_eq!(&out, &whole);
        }
    }
}
