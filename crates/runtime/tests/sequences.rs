//! Two sequences of different lengths in one step are two runs: for every kind of cache.

#[path = "support/opened.rs"]
mod opened;

use firelight_kernels::Recorder;
use firelight_runtime::cache::Cache;
use firelight_runtime::models::{Inputs, Logits};
use firelight_runtime::{Engine, LoadedModel, State};
use opened::{cpu, gpu, load};
use pollster::block_on;

/// One step of `(sequence, position, token)`s: logits of each.
fn step(model: &LoadedModel, cache: &mut Cache, tokens: &[[u32; 3]]) -> Vec<f32> {
    let mut rec = Recorder::new(&model.device);
    let n = tokens.len();
    let (ids, rows) = (
        rec.dynamic(n).expect("words"),
        rec.dynamic(2 * n).expect("words"),
    );
    let inputs = Inputs::text(ids.array(), rows.array(), Logits::All);
    let logits = model.model.forward(&mut rec, inputs, cache);
    let logits = logits.expect("records").expect("logits");
    let mut recording = rec.finish().expect("a recording");
    let words: Vec<u32> = tokens.iter().map(|t| t[2]).collect();
    recording.set(&ids, &words).expect("set");
    let words: Vec<u32> = tokens.iter().flat_map(|t| [t[0], t[1]]).collect();
    recording.set(&rows, &words).expect("set");
    block_on(recording.submit().expect("submits").wait()).expect("runs");
    for [sequence, position, _] in tokens {
        cache.advance(*sequence as usize, *position as usize + 1);
    }
    block_on(model.device.read_f32(&logits)).expect("floats")
}

/// Logits of all tokens of one sequence alone.
fn alone(model: &LoadedModel, ids: &[u32]) -> Vec<f32> {
    let mut state = State::new(&model.device, &model.model).expect("a state");
    let mut all = Vec::new();
    let keep = |_, chunk: &[f32]| {
        all.extend_from_slice(chunk);
        Ok(())
    };
    block_on(state.logits(ids, keep)).expect("logits");
    all
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert!(a.len() == b.len() && !a.is_empty());
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    apart.fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}

fn two_are_two_runs(engine: &Engine) {
    for family in ["llama", "gemma3_text", "qwen3", "phi3", "qwen3_5"] {
        let model = load(engine, family);
        let vocab = model.model.spec().vocab;
        let long: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 380).collect();
        let short: Vec<u32> = (0..23).map(|i| (i * 91 + 2) % 380).collect();
        let (first, second) = (alone(&model, &long), alone(&model, &short));
        let token = |sequence: u32, position: usize| {
            let ids = if sequence == 0 { &long } else { &short };
            [sequence, position as u32, ids[position]]
        };
        let mut cache = Cache::new(&model.device, 2);
        cache.reserve(model.model.spec(), 64).expect("room");
        // Prompts of 30 and 9 in one step; then one after the other, one alone, both together.
        let steps: [Vec<[u32; 3]>; 4] = [
            (0..30)
                .map(|p| token(0, p))
                .chain((0..9).map(|p| token(1, p)))
                .collect(),
            vec![token(1, 9), token(0, 30)],
            (10..17).map(|p| token(1, p)).collect(),
            vec![token(0, 31), token(1, 17)],
        ];
        for tokens in &steps {
            let logits = step(&model, &mut cache, tokens);
            for ([sequence, position, _], row) in tokens.iter().zip(logits.chunks(vocab)) {
                let expected = if *sequence == 0 { &first } else { &second };
                let expected = &expected[*position as usize * vocab..][..vocab];
                let apart = worst(row, expected);
                assert!(apart < 1e-3, "{family}: {sequence}, {position}: {apart}");
            }
        }
        // One sequence goes back to a copy of its state, the other stays where it is.
        let spec = model.model.spec();
        cache.snapshot(spec, 1).expect("a copy");
        step(&model, &mut cache, &[token(1, 18), token(0, 32)]);
        assert_eq!(cache.rewind(spec, 1, 18).expect("goes back"), 18);
        let logits = step(&model, &mut cache, &[token(1, 18), token(0, 33)]);
        let expected = [
            &second[18 * vocab..][..vocab],
            &first[33 * vocab..][..vocab],
        ]
        .concat();
        let apart = worst(&logits, &expected);
        assert!(apart < 1e-3, "{family}, gone back: {apart}");
        assert!(cache.rewind(spec, 2, 1).is_err());
    }
}

#[test]
fn two_sequences_are_two_runs_on_the_cpu() {
    two_are_two_runs(&cpu());
}

#[test]
fn two_sequences_are_two_runs_on_a_gpu() {
    let name = "two_sequences_are_two_runs_on_a_gpu";
    if let Some(engine) = gpu(name) {
        two_are_two_runs(&engine);
    }
}
