//! Any bytes as a recording: decoded block by block and whole, strictly and with what is there, resampled, and made features of.
#![no_main]

use firelight_audio::{DecodeOptions, Decoder, LogMel, Preset, Whisper, decode_with};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static FRONT: LazyLock<LogMel> =
    LazyLock::new(|| LogMel::preset(Preset::Gemma4).expect("a preset"));

/// Windows of a second.
static WINDOWS: LazyLock<Whisper> =
    LazyLock::new(|| Whisper::from_config(r#"{"chunk_length": 1}"#).expect("a front end"));

/// Seconds of sound may hide in a few bytes.
const MOST: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    for keep_truncated in [false, true] {
        let options = DecodeOptions {
            max_samples: MOST,
            keep_truncated,
            ..DecodeOptions::default()
        };
        let Ok(mut decoder) = Decoder::new(data, &options) else {
            continue;
        };
        assert!(decoder.channels() > 0 && decoder.rate() > 0);
        let mut blocks = Vec::new();
        let ended = loop {
            match decoder.next_block() {
                Ok(Some(block)) => blocks.extend_from_slice(block),
                Ok(None) => break true,
                Err(_) => break false,
            }
            if blocks.len() as u64 > MOST {
                return;
            }
        };
        assert!(blocks.iter().all(|v| v.is_finite()));
        let whole = decode_with(data, None, &options);
        assert_eq!(whole.is_ok(), ended);
        if let Ok(whole) = whole {
            assert_eq!(whole.samples, blocks);
        }
        if let Ok(audio) = decode_with(data, Some(FRONT.rate()), &options) {
            let windows: Vec<&[f32]> = audio.samples.chunks(WINDOWS.window()).take(3).collect();
            let all = [FRONT.features(&audio.samples), WINDOWS.batch(&windows)];
            for features in all.into_iter().flatten() {
                let values = features.to_f32_vec().expect("f32");
                assert!(values.iter().all(|v| v.is_finite()));
            }
        }
    }
});
