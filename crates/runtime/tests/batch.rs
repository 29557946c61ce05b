//! Prompts answered together get the answers that each gets alone.

use firelight_kernels::Rung;
use firelight_runtime::{
    CancelToken, DeviceChoice, Engine, EngineOptions, Finish, GenerateOptions, LoadedModel,
    SampleSettings, State, generate_batch,
};
use firelight_testing::gpu_or_skip;
use pollster::block_on;
use std::path::Path;

fn load(engine: &Engine, family: &str) -> LoadedModel {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(family);
    block_on(engine.load(dir, &mut |_, _| ())).expect("the fixture loads")
}

fn engine(device: DeviceChoice, rung: Option<Rung>) -> EngineOptions {
    EngineOptions {
        device,
        rung,
        self_test: false,
        ..Default::default()
    }
}

fn prompt(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 37 + n) % 380).collect()
}

fn alone(model: &LoadedModel, prompt: &[u32], sampling: SampleSettings, n: usize) -> Vec<u32> {
    let mut state = State::new(&model.device, &model.model).expect("a state");
    block_on(async {
        state
            .begin(prompt, sampling, n, usize::MAX, &CancelToken::new())
            .await
            .expect("begins");
        let mut ids = Vec::new();
        while let Some(id) = state.next().await.expect("a token") {
            ids.push(id);
        }
        ids
    })
}

fn together_as_alone(engine: &Engine) {
    // LongRoPE's prompts are on both sides of its switch at 48 and cross it.
    // Recurrent states, windows shorter than a prompt, and experts are among them.
    let families = [
        "llama",
        "qwen2",
        "gemma3_text",
        "gemma4",
        "gemma4_large",
        "qwen3_5",
        "gpt2",
        "phi3_longrope",
    ];
    for family in families {
        let mut model = load(engine, family);
        let prompts: Vec<_> = [7, 300, 45, 1].map(prompt).to_vec();
        let greedy = SampleSettings::default();
        let warm = SampleSettings {
            temperature: 0.8,
            repetition_penalty: 1.3,
            seed: 5,
            ..Default::default()
        };
        for sampling in [greedy, warm] {
            let options = GenerateOptions {
                sampling,
                max_tokens: 9,
                ignore_eos: true,
                ..Default::default()
            };
            let answers = block_on(generate_batch(
                engine,
                &mut model,
                &prompts,
                &options,
                &CancelToken::new(),
            ));
            let answers = answers.expect("answers");
            assert_eq!(answers.len(), prompts.len());
            for (i, (answer, prompt)) in answers.iter().zip(&prompts).enumerate() {
                let own = SampleSettings {
                    seed: sampling.seed + i as u64,
                    ..sampling
                };
                let expected = alone(&model, prompt, own, 9);
                assert_eq!(answer.ids, expected, "{family}, prompt {i}, {sampling:?}");
                assert_eq!(answer.finish, Finish::MaxTokens);
                assert_eq!(answer.text, model.text.tokenizer.decode(&answer.ids, true));
            }
        }
    }
}

#[test]
fn a_batch_is_its_runs_on_the_cpu() {
    let engine = block_on(Engine::new(engine(DeviceChoice::Cpu, None))).expect("a CPU");
    together_as_alone(&engine);
}

#[test]
fn a_batch_is_its_runs_on_a_gpu() {
    let options = engine(DeviceChoice::Gpu, Some(Rung::GpuF32));
    let name = "a_batch_is_its_runs_on_a_gpu";
    if let Some(engine) = gpu_or_skip(name, || block_on(Engine::new(options))) {
        together_as_alone(&engine);
    }
}

#[test]
fn sequences_end_each_in_their_way() {
    let engine = block_on(Engine::new(engine(DeviceChoice::Cpu, None))).expect("a CPU");
    let mut model = load(&engine, "llama");
    let prompts = vec![prompt(30), prompt(9), prompt(508)];
    let mut run = |options: &GenerateOptions, prompts: &[Vec<u32>]| {
        block_on(generate_batch(
            &engine,
            &mut model,
            prompts,
            options,
            &CancelToken::new(),
        ))
    };
    let options = GenerateOptions {
        max_tokens: 12,
        ignore_eos: true,
        ..Default::default()
    };
    let free = run(&options, &prompts).expect("answers");
    // The context of 512 is full before the answer of the longest prompt is.
    assert_eq!(free[2].finish, Finish::Context);
    assert_eq!(free[2].ids.len(), 4);
    assert_eq!(free[0].ids.len(), 12);

    // One ends early, the others are as before.
    let stop = free[0].ids[5];
    let first = |ids: &[u32]| ids.iter().position(|&id| id == stop);
    let stopping = GenerateOptions {
        stop_ids: vec![stop],
        ..options.clone()
    };
    let stopped = run(&stopping, &prompts).expect("answers");
    for (s, f) in stopped.iter().zip(&free) {
        let end = first(&f.ids).unwrap_or(f.ids.len());
        assert_eq!(s.ids, f.ids[..end]);
        if first(&f.ids).is_some() {
            assert_eq!(s.finish, Finish::Stop);
        }
    }

    // A text ends an answer and is not part of it.
    let text = &free[1].text;
    let stop: String = text
        .chars()
        .skip(text.chars().count() / 2)
        .take(2)
        .collect();
    let stopping = GenerateOptions {
        stop: vec![stop.clone()],
        ..options.clone()
    };
    let stopped = run(&stopping, &prompts).expect("answers");
    assert_eq!(stopped[1].finish, Finish::Stop);
    assert!(!stopped[1].text.contains(&stop) && text.starts_with(&stopped[1].text));

    let nothing = GenerateOptions {
        max_tokens: 0,
        ..options.clone()
    };
    assert!(
        run(&nothing, &prompts)
            .expect("answers")
            .iter()
            .all(|a| a.ids.is_empty())
    );
    assert!(run(&options, &[]).expect("no answers").is_empty());
    for (bad, named) in [
        (vec![prompt(3), vec![]], "empty"),
        (vec![vec![100_000]], "100000"),
        (vec![prompt(512)], "prompt"),
        (vec![prompt(2); 300], "sequences"),
    ] {
        let error = run(&options, &bad).expect_err(named).to_string();
        assert!(error.contains(named), "{named}: {error}");
    }
    let cancel = CancelToken::new();
    cancel.cancel();
    let answers = block_on(generate_batch(
        &engine, &mut model, &prompts, &options, &cancel,
    ));
    let answers = answers.expect("what there is");
    assert!(answers.iter().all(|a| a.finish == Finish::Cancelled));
}

/// The device is lost in the middle of a batch: its answers go on from their tokens on the next rung.
#[test]
fn a_batch_goes_on_where_its_device_is_lost() {
    let name = "a_batch_goes_on_where_its_device_is_lost";
    let options = EngineOptions {
        adapter: Some(0),
        self_test: false,
        ..Default::default()
    };
    let Some(gpu) = gpu_or_skip(name, || {
        let engine = block_on(Engine::new(options)).map_err(|e| e.to_string())?;
        let found = engine.device().is_gpu();
        found.then_some(engine).ok_or("no GPU adapter".to_owned())
    }) else {
        return;
    };
    let prompts = vec![prompt(30), prompt(9), prompt(45)];
    let options = GenerateOptions {
        max_tokens: 24,
        ignore_eos: true,
        ..Default::default()
    };
    let cpu = block_on(Engine::new(engine(DeviceChoice::Cpu, None))).expect("a CPU");
    let answers = |engine: &Engine, model: &mut LoadedModel, cancel: &CancelToken| {
        let answers = block_on(generate_batch(engine, model, &prompts, &options, cancel));
        let ids = |a: firelight_runtime::BatchAnswer| a.ids;
        answers
            .expect("answers")
            .into_iter()
            .map(ids)
            .collect::<Vec<_>>()
    };
    let expected = answers(&cpu, &mut load(&cpu, "llama"), &CancelToken::new());
    let mut model = load(&gpu, "llama");
    // Lost before the first step, and while the answers are under way.
    let device = gpu.device();
    // In the middle, or before the second batch if the first is fast: the answers are the same.
    let loss = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(40));
        device.simulate_loss();
    });
    assert_eq!(answers(&gpu, &mut model, &CancelToken::new()), expected);
    loss.join().expect("lost");
    // The caller has the model where it is now.
    assert_eq!(answers(&gpu, &mut model, &CancelToken::new()), expected);
    assert!(gpu.report().attempts.len() >= 2);
}
