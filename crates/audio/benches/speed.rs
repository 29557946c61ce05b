//! How long the log-mels of a window take.
//!
//! `cargo bench -p firelight-audio --bench speed -- [SAMPLES.f32] [--threads N] [--repeat N]` prints one JSON object: milliseconds of
//! Whisper's 80 bands over a window of 30 s, sample rate 16 kHz, median and best of the repetitions. The file holds little-endian f32 samples, at most 30 s; without one, noise.
//! `scripts/bench_speech.py --mels` runs it beside the reference implementations.

use firelight_audio::Whisper;
use std::time::{Duration, Instant};

fn main() {
    let (mut file, mut threads, mut repeat) = (None, 1, 20);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().and_then(|v| v.parse().ok());
            value.unwrap_or_else(|| panic!("{arg} takes a whole number"))
        };
        match arg.as_str() {
            // Cargo says it.
            "--bench" => {}
            "--threads" => threads = number(),
            "--repeat" => repeat = number().max(1),
            _ => file = Some(arg),
        }
    }
    let front = Whisper::new(80).expect("a front end").with_threads(threads);
    let samples = match file {
        Some(path) => {
            let bytes = std::fs::read(&path).expect("the file is readable");
            let numbers = bytes.as_chunks().0.iter();
            numbers.map(|&b| f32::from_le_bytes(b)).collect()
        }
        None => noise(front.window()),
    };
    let run = || front.window_of(&samples).expect("features");
    // Until the processor is awake.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(50) {
        run();
    }
    let mut times: Vec<f64> = (0..repeat)
        .map(|_| {
            let start = Instant::now();
            let values = run();
            let took = start.elapsed().as_secs_f64() * 1e3;
            assert_eq!(values.len(), front.mels() * front.frames());
            took
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "{{\"threads\": {threads}, \"median\": {:.3}, \"best\": {:.3}}}",
        times[repeat / 2],
        times[0]
    );
}

fn noise(samples: usize) -> Vec<f32> {
    let mut state = 7u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..samples).map(|_| 0.2 * next()).collect()
}
