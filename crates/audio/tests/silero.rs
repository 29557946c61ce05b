//! Silero's detector against torch, with weights that are nobody's.

mod common;
use common::data;
use firelight_audio::{SileroVad, Vad};
use firelight_tensor::{MemSource, Tensor, Weights, safetensors};
use std::sync::Arc;

fn weights() -> Weights {
    Weights::open(Arc::new(MemSource::new(
        "silero",
        data("silero.safetensors"),
    )))
    .unwrap()
}

#[test]
fn equals_torch() {
    let file = weights();
    let values = |name: &str| file.read(name).unwrap().to_f32_vec().unwrap();
    let (samples, expected) = (values("samples"), values("probabilities"));
    let mut vad = SileroVad::new(&file).unwrap();
    assert_eq!(vad.frame(), 32);
    // They differ from frame to frame, and twice are the same: a reset forgets.
    let spread = expected
        .iter()
        .fold(0.0f32, |m, p| m.max((p - expected[0]).abs()));
    assert!(spread > 0.1, "{expected:?}");
    for _ in 0..2 {
        for (frame, p) in samples.chunks(32).zip(&expected) {
            let got = vad.probability(frame);
            assert!((got - p).abs() < 1e-5, "{got} for {p}");
        }
        vad.reset();
    }
    let mut vad = Vad::Silero(vad);
    let on: Vec<bool> = samples.chunks(vad.frame()).map(|f| vad.speech(f)).collect();
    assert!(on.iter().zip(&expected).all(|(on, p)| *on || *p <= 0.5));
    assert!(on.iter().zip(&expected).all(|(on, p)| !*on || *p >= 0.35));
}

#[test]
fn other_files_are_refused_by_name() {
    let file = weights();
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    for left_out in names.iter().filter(|n| n.contains('.')) {
        let kept = names.iter().filter(|n| *n != left_out);
        let tensors: Vec<(&str, Tensor)> =
            kept.map(|n| (n.as_str(), file.read(n).unwrap())).collect();
        let listed = tensors.iter().map(|(n, t)| (*n, t));
        let bytes = safetensors::write_to_vec(&Default::default(), listed).unwrap();
        let file = Weights::open(Arc::new(MemSource::new("less", bytes))).unwrap();
        let error = SileroVad::new(&file).unwrap_err().to_string();
        assert!(error.contains(left_out.as_str()), "{left_out}: {error}");
    }
    for (name, shape) in [
        ("conv2.weight", [5, 6, 2]),
        ("stft_conv.weight", [17, 1, 16]),
        ("final_conv.weight", [1, 7, 1]),
    ] {
        let wrong = Tensor::from_f32(&vec![0.5; shape.iter().product()], &shape).unwrap();
        let listed: Vec<(&str, Tensor)> = names
            .iter()
            .map(|n| {
                (
                    n.as_str(),
                    if n == name {
                        wrong.clone()
                    } else {
                        file.read(n).unwrap()
                    },
                )
            })
            .collect();
        let bytes =
            safetensors::write_to_vec(&Default::default(), listed.iter().map(|(n, t)| (*n, t)))
                .unwrap();
        let file = Weights::open(Arc::new(MemSource::new("wrong", bytes))).unwrap();
        assert!(SileroVad::new(&file).is_err(), "{name}");
    }
}
