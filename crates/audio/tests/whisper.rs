//! Whisper's features against transformers, and the laws of the stream.

mod common;
use common::{Random, data, floats};
use firelight_audio::{Error, MelFilters, Stft, Whisper, decode};
use proptest::prelude::*;
use serde_json::Value;

fn clip() -> Vec<f32> {
    decode(&data("clip.wav")).unwrap().samples
}

fn json(name: &str) -> Vec<Value> {
    serde_json::from_slice(&data(name)).unwrap()
}

fn number(v: &Value) -> usize {
    v.as_u64().unwrap() as usize
}

/// The front end with another window, as its configuration would have it.
fn front(mels: usize, seconds: usize) -> Whisper {
    let text = format!(
        r#"{{"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": {mels}, "chunk_length": {seconds},
            "hop_length": 160, "n_fft": 400, "sampling_rate": 16000, "dither": 0.0, "padding_value": 0.0}}"#
    );
    Whisper::from_config(&text).unwrap()
}

/// Greatest difference; infinite for a NaN.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let d = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    d.fold(
        0.0,
        |m: f32, d| if d.is_nan() { f32::INFINITY } else { m.max(d) },
    )
}

/// Per golden: its name, how far we are from the reference with an exact transform, and from the reference itself with
/// its f32 transform: the greatest difference and the share of values beyond 1e-5.
fn distances(change: impl Fn(&mut Vec<f32>), check_mean: bool) -> Vec<(String, f32, f32, f64)> {
    let (cases, blob) = (json("whisper.json"), floats(&data("whisper.f32")));
    let clip = clip();
    cases
        .iter()
        .map(|case| {
            let front = front(number(&case["mels"]), number(&case["window"]));
            let [a, b] = [0, 1].map(|i| number(&case["samples"][i]));
            let mut samples = clip[a..b].to_vec();
            change(&mut samples);
            let features = match case["padded"].as_bool().unwrap() {
                true => front.features(&samples).unwrap(),
                false => front.features_whole(&samples).unwrap(),
            };
            let shape: Vec<usize> = case["shape"]
                .as_array()
                .unwrap()
                .iter()
                .map(number)
                .collect();
            assert_eq!(features.shape(), shape, "{}", case["name"]);
            let values = features.as_f32().unwrap();
            let columns: Vec<usize> = case["columns"]
                .as_array()
                .unwrap()
                .iter()
                .map(number)
                .collect();
            let picked: Vec<f32> = values
                .chunks_exact(shape[1])
                .flat_map(|row| columns.iter().map(|&c| row[c]))
                .collect();
            let at = number(&case["at"]);
            let torch = &blob[at..at + picked.len()];
            let exact = &blob[at + picked.len()..at + 2 * picked.len()];
            // All values count in the mean, not only the columns kept.
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
            let mean_off = (mean - case["mean"].as_f64().unwrap()).abs();
            assert!(
                !check_mean || mean_off < 2e-7,
                "{}: mean off by {mean_off:e}",
                case["name"]
            );
            let off = picked
                .iter()
                .zip(torch)
                .filter(|(a, b)| (*a - *b).abs() > 1e-5)
                .count();
            let share = off as f64 / picked.len() as f64;
            let name = case["name"].as_str().unwrap().to_owned();
            (name, apart(&picked, exact), apart(&picked, torch), share)
        })
        .collect()
}

#[test]
fn equals_transformers() {
    let cases = distances(|_| (), true);
    assert_eq!(cases.len(), 12);
    for (name, exact, torch, share) in cases {
        // The window's cosine differs in the last bit here and there.
        assert!(exact <= 2e-6, "{name}: {exact:e} from the exact transform");
        assert!(
            torch <= 4e-5 && share <= 0.005,
            "{name}: {torch:e} from torch, {share} beyond 1e-5"
        );
    }
}

#[test]
fn a_wrong_constant_is_noticed() {
    // One sample later, and one part in ten thousand louder at one place.
    for change in [
        |v: &mut Vec<f32>| v.rotate_right(1),
        |v: &mut Vec<f32>| v[0] += 0.01,
    ] {
        let off = distances(change, false)
            .into_iter()
            .filter(|c| c.1 > 2e-6)
            .count();
        assert!(off >= 9, "{off}");
    }
}

#[test]
fn mel_banks_equal_transformers() {
    for golden in json("mel.json") {
        let bank = MelFilters::slaney(number(&golden["mels"]), 400, 16000, 0.0, 8000.0).unwrap();
        assert_eq!((bank.mels(), bank.bins()), (number(&golden["mels"]), 201));
        let dense = bank.dense();
        for (row, sum) in dense
            .chunks_exact(201)
            .zip(golden["sums"].as_array().unwrap())
        {
            let ours = row.iter().map(|&v| f64::from(v)).sum::<f64>();
            assert!((ours - sum.as_f64().unwrap()).abs() <= 1e-8);
        }
    }
}

#[test]
fn the_transform_is_the_formula() {
    let mut random = Random(3);
    for (n_fft, hop, samples) in [(16, 5, 40), (400, 160, 401), (2, 1, 9), (30, 30, 100)] {
        let x: Vec<f32> = (0..samples).map(|_| random.sample()).collect();
        let stft = Stft::new(n_fft, hop).unwrap();
        let power = stft.power(&x).unwrap();
        assert_eq!(power.shape(), [stft.frames(samples), stft.bins()]);
        let mirrored = |i: isize| -> f64 {
            let last = samples as isize - 1;
            let i = i.abs();
            f64::from(x[if i > last { 2 * last - i } else { i } as usize])
        };
        for (t, row) in power
            .as_f32()
            .unwrap()
            .chunks_exact(stft.bins())
            .enumerate()
        {
            for (k, &p) in row.iter().enumerate() {
                let (mut re, mut im) = (0.0, 0.0);
                for i in 0..n_fft {
                    let angle = 2.0 * std::f64::consts::PI * i as f64 / n_fft as f64;
                    let w = 0.5 - 0.5 * angle.cos();
                    let v = w * mirrored((t * hop + i) as isize - (n_fft / 2) as isize);
                    re += v * (angle * k as f64).cos();
                    im -= v * (angle * k as f64).sin();
                }
                let want = re * re + im * im;
                // The window is rounded to f32.
                let most = 1e-7 * n_fft as f64 * (1.0 + want.sqrt());
                assert!(
                    (f64::from(p) - want).abs() <= most,
                    "{n_fft} {t} {k}: {p} {want}"
                );
            }
        }
    }
}

#[test]
fn a_batch_is_its_clips() {
    let front = front(80, 2);
    let clip = clip();
    let clips = [&clip[..], &clip[..777], &[], &clip[9000..9001]];
    let batch = front.batch(&clips).unwrap();
    assert_eq!(batch.shape(), [4, 80, 200]);
    for (i, c) in clips.iter().enumerate() {
        let one = front.features(c).unwrap();
        assert_eq!(
            one.as_f32().unwrap(),
            batch.slice_outer(i..i + 1).unwrap().as_f32().unwrap()
        );
    }
    assert!(matches!(front.batch(&[]), Err(Error::InvalidInput(_))));
}

#[test]
fn threads_change_no_bit() {
    let mut noise = Random(5);
    // Of some seconds, one that ends within a hop, one whose last part is short, one that is nearly silent.
    for (samples, seconds) in [(16_000 * 25, 30), (16_000 * 7 + 81, 8), (700, 30)] {
        let samples: Vec<f32> = (0..samples).map(|_| noise.sample() * 0.4).collect();
        let one = front(80, seconds);
        for threads in [2, 3, 7] {
            let many = one.clone().with_threads(threads);
            assert_eq!(
                one.window_of(&samples).unwrap(),
                many.window_of(&samples).unwrap()
            );
            let whole = |front: &Whisper| front.features_whole(&samples).unwrap();
            assert_eq!(whole(&one).bytes(), whole(&many).bytes());
            let mut stream = many.stream();
            for piece in samples.chunks(16_000 * 4) {
                stream.push(piece).unwrap();
            }
            let whole = one.features(&samples).unwrap();
            assert_eq!(whole.bytes(), stream.features().unwrap().bytes());
        }
    }
}

#[test]
fn silence_is_one_value() {
    for samples in [0, 1, 16000, 32000] {
        let features = front(80, 2).features(&vec![0.0; samples]).unwrap();
        assert!(features.as_f32().unwrap().iter().all(|&v| v == -1.5));
    }
    let whole = front(80, 30).features_whole(&[0.0; 5000]).unwrap();
    assert!(whole.as_f32().unwrap().iter().all(|&v| v == -1.5));
}

#[test]
fn bad_samples_are_named() {
    let front = front(80, 2);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut samples = vec![0.1; 1000];
        samples[617] = bad;
        for result in [front.features(&samples), front.features_whole(&samples)] {
            let e = result.unwrap_err();
            assert!(
                matches!(&e, Error::InvalidInput(m) if m.contains("617")),
                "{e}"
            );
        }
        assert!(Stft::new(400, 160).unwrap().power(&samples).is_err());
        let mut stream = front.stream();
        stream.push(&[0.5; 300]).unwrap();
        let before = stream.features().unwrap();
        let e = stream.push(&samples).unwrap_err();
        assert!(
            matches!(&e, Error::InvalidInput(m) if m.contains("917")),
            "{e}"
        );
        assert_eq!(stream.features().unwrap().as_f32(), before.as_f32());
    }
    // As loud as is taken: still numbers.
    let loud = front.features(&[1e20, -1e20, 1e20]).unwrap();
    assert!(loud.as_f32().unwrap().iter().all(|v| v.is_finite()));
    assert!(front.features(&[1.1e20]).is_err());
}

#[test]
fn too_long_and_too_short() {
    let front = front(80, 2);
    let result = front.features(&vec![0.0; 32001]);
    assert!(
        matches!(
            result,
            Err(Error::Limit {
                max: 32000,
                got: 32001,
                ..
            })
        ),
        "{result:?}"
    );
    assert!(matches!(
        front.features_whole(&[0.0; 200]),
        Err(Error::InvalidInput(_))
    ));
    assert!(matches!(
        front.features_whole(&[]),
        Err(Error::InvalidInput(_))
    ));
    assert_eq!(front.features_whole(&[0.0; 201]).unwrap().shape(), [80, 1]);
    let mut stream = front.stream();
    stream.push(&vec![0.1; 31990]).unwrap();
    assert_eq!(stream.room(), 10);
    assert!(stream.push(&[0.0; 11]).is_err());
    stream.push(&[0.0; 10]).unwrap();
    stream.clear();
    assert_eq!((stream.room(), stream.ready_frames()), (32000, 0));
}

#[test]
fn configurations() {
    let large = Whisper::from_config(r#"{"feature_size": 128}"#).unwrap();
    assert_eq!(
        (large.mels(), large.frames(), large.window(), large.rate()),
        (128, 3000, 480_000, 16000)
    );
    let nested = r#"{"feature_extractor": {"feature_extractor_type": "WhisperFeatureExtractor"}}"#;
    assert_eq!(Whisper::from_config(nested).unwrap().mels(), 80);
    for (text, unsupported) in [
        (r#"{"dither": 0.1}"#, true),
        (r#"{"padding_value": 1.0}"#, true),
        (r#"{"do_normalize": true}"#, true),
        (
            r#"{"feature_extractor_type": "Wav2Vec2FeatureExtractor"}"#,
            true,
        ),
        (r#"{"feature_size": 0}"#, false),
        (r#"{"feature_size": 4096}"#, false),
        (r#"{"n_fft": 401}"#, false),
        (r#"{"hop_length": 500}"#, false),
        (r#"{"chunk_length": "thirty"}"#, false),
        ("[]", false),
    ] {
        let e = Whisper::from_config(text).unwrap_err();
        assert_eq!(
            matches!(e, Error::Unsupported(_)),
            unsupported,
            "{text}: {e:?}"
        );
        assert!(
            unsupported || matches!(e, Error::InvalidInput(_)),
            "{text}: {e:?}"
        );
    }
    let e = Whisper::from_config(r#"{"chunk_length": 100000}"#).unwrap_err();
    assert!(matches!(e, Error::Limit { .. }), "{e:?}");
    assert!(matches!(
        Whisper::from_config("{"),
        Err(Error::Malformed { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However the samples come, the stream gives at every moment what the clip so far gives, to the bit.
    #[test]
    fn a_stream_is_the_clip_so_far(seed in 1u64.., total in 0usize..=32000, most in prop::sample::select(vec![1usize, 7, 159, 160, 161, 400, 5000, 40000]), mels in prop::sample::select(vec![80usize, 128])) {
        let front = front(mels, 2);
        let clip = clip();
        let mut random = Random(seed);
        let mut stream = front.stream();
        // Many small pushes are slow to check one by one: look at a few moments.
        let pieces = random.pieces(if most < 100 { total.min(1500) } else { total }, most);
        let mut at = 0;
        for (i, n) in pieces.iter().enumerate() {
            stream.push(&clip[at..at + n]).unwrap();
            at += n;
            if i == pieces.len() - 1 || random.below(pieces.len()) < 2 {
                let (ours, whole) = (stream.features().unwrap(), front.features(&clip[..at]).unwrap());
                prop_assert_eq!(ours.bytes(), whole.bytes());
                prop_assert!(stream.ready_frames() <= at / 160 + 1);
            }
        }
    }

    /// Ten times as loud is 2·log₁₀(10)/4 = ½ more everywhere above the absolute floor.
    #[test]
    fn loudness_shifts(seed in 1u64..) {
        let mut random = Random(seed);
        let x: Vec<f32> = (0..32000).map(|_| random.sample() * 0.09).collect();
        let loud: Vec<f32> = x.iter().map(|v| v * 10.0).collect();
        let front = front(80, 2);
        let (a, b) = (front.features(&x).unwrap(), front.features(&loud).unwrap());
        for (a, b) in a.as_f32().unwrap().iter().zip(b.as_f32().unwrap()) {
            prop_assert!((b - a - 0.5).abs() < 1e-4);
        }
    }
}
