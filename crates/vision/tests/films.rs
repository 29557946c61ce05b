//! Films: frames of animated files against Pillow, sampling and tensors against transformers' video processors.

mod common;
use common::{crc32, picture};
use firelight_tensor::Tensor;
use firelight_vision::{DecodeOptions, Error, Image, VideoProcessor, frames};
use serde_json::{Value, json};

fn goldens() -> Value {
    serde_json::from_str(include_str!("data/films.json")).unwrap()
}

fn numbers(v: &Value) -> Vec<usize> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_u64().unwrap() as usize)
        .collect()
}

fn crc(bytes: &[u8]) -> String {
    format!("{:08x}", crc32(bytes.iter().copied()))
}

fn is(ours: &Tensor, golden: &Value) -> bool {
    ours.shape() == numbers(&golden["shape"])
        && ours.dtype().to_string() == golden["dtype"]
        && crc(ours.bytes()) == golden["crc"]
}

#[test]
fn tensors_equal_transformers() {
    let goldens = goldens();
    let cases = goldens["tensors"].as_array().unwrap();
    assert!(cases.len() >= 15);
    for case in cases {
        let processor = VideoProcessor::from_config(&case["config"].to_string()).unwrap();
        let f = numbers(&case["frames"]);
        let film: Vec<Image> = (0..f[0]).map(|i| picture(f[1], f[2], i as u32)).collect();
        let made = processor.process(&film).unwrap();
        assert!(is(&made.grid, &case["grid"]), "{case}: {:?}", made.plan);
        assert!(is(&made.pixel_values, &case["pixel_values"]), "{case}");
        assert_eq!(made.plan, processor.plan(f[0], f[1], f[2]).unwrap());
    }
}

#[test]
fn the_same_frames_are_taken() {
    let goldens = goldens();
    for case in goldens["sampled"].as_array().unwrap() {
        let processor = VideoProcessor::from_config(&case["config"].to_string()).unwrap();
        let total = case["total"].as_u64().unwrap() as usize;
        let taken = processor.sample(total, case["fps"].as_f64()).unwrap();
        assert_eq!(taken, numbers(&case["indices"]), "{case}");
    }
}

#[test]
fn frames_equal_pillows() {
    let goldens = goldens();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/films/");
    let mut wrong = Vec::new();
    for film in goldens["films"].as_array().unwrap() {
        let name = film["file"].as_str().unwrap();
        let bytes = std::fs::read(format!("{folder}{name}")).unwrap();
        let ours = frames(&bytes, &DecodeOptions::default()).unwrap();
        let want = film["frames"].as_array().unwrap();
        assert_eq!(ours.len(), want.len(), "{name}");
        for (i, (ours, want)) in ours.iter().zip(want).enumerate() {
            if crc(ours.image.rgb()) != want["crc"] || u64::from(ours.millis) != want["millis"] {
                wrong.push(format!("{name} {i}: {} ms", ours.millis));
            }
        }
        // All frames together are under the limit, and a cut file is an error or fewer whole frames.
        let tight = DecodeOptions {
            max_bytes: 23 * 17 * 13,
            ..DecodeOptions::default()
        };
        assert!(
            matches!(frames(&bytes, &tight), Err(Error::Limit { .. })),
            "{name}"
        );
        for cut in (0..bytes.len()).step_by(7) {
            if let Ok(some) = frames(&bytes[..cut], &DecodeOptions::default()) {
                assert!(some.len() <= ours.len());
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_does_not_go_is_said() {
    let qwen = |more: Value| {
        let mut config = json!({"video_processor_type": "Qwen3VLVideoProcessor", "patch_size": 8});
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        VideoProcessor::from_config(&config.to_string())
    };
    let p = qwen(json!({})).unwrap();
    assert!(p.process(&[]).is_err());
    assert!(
        p.process(&[picture(20, 20, 0)]).is_err(),
        "one frame is fewer than a patch spans"
    );
    assert!(
        p.process(&[picture(20, 20, 0), picture(20, 21, 0)])
            .is_err()
    );
    assert!(p.sample(10, Some(0.0)).is_err() && p.sample(10, Some(f64::NAN)).is_err());
    assert!(p.sample(0, None).unwrap().is_empty());
    assert!(matches!(
        qwen(json!({"cap_pixels_per_frame": true})),
        Err(Error::Unsupported(_))
    ));
    let other = json!({"video_processor_type": "SmolVLMVideoProcessor"}).to_string();
    assert!(matches!(
        VideoProcessor::from_config(&other),
        Err(Error::Unsupported(_))
    ));
}
