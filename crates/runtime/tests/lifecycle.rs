//! What must hold while models come and go: laws of the cache, costs per token, memory given back, the ladder in mid-answer.

#[path = "support/opened.rs"]
mod opened;

use firelight_kernels::Holder;
use firelight_kernels::sample::SampleSettings;
use firelight_runtime::{
    CancelToken, Engine, EngineOptions, Event, Finish, GenerateOptions, Session, State,
};
use firelight_testing::gpu_or_skip;
use opened::{cpu, gpu, load};
use pollster::block_on;

fn prompt(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 37 + 5) % 380).collect()
}

/// Tokens of a fresh or used state.
fn answer(state: &mut State, prompt: &[u32], settings: SampleSettings, n: usize) -> Vec<u32> {
    block_on(async {
        state
            .begin(prompt, settings, n, usize::MAX, &CancelToken::new())
            .await
            .expect("begins");
        let mut ids = Vec::new();
        while let Some(id) = state.next().await.expect("a token") {
            ids.push(id);
        }
        state.stop();
        ids
    })
}

fn laws(engine: &Engine) {
    for family in [
        "llama",
        "llama2",
        "gemma3_text",
        "qwen3",
        "phi3_longrope",
        "qwen3_5",
        "gpt2",
        "gemma4",
    ] {
        let model = load(engine, family);
        let vocab = model.model.spec().vocab;
        let fresh = || State::new(&model.device, &model.model).expect("a state");
        let ids = prompt(70);

        // prefill(n) = prefill(n-1) + decode(1)
        let (mut whole, mut split) = (fresh(), fresh());
        let mut last = Vec::new();
        block_on(whole.logits(&ids, |_, chunk| {
            last = chunk[chunk.len() - vocab..].to_vec();
            Ok(())
        }))
        .expect("logits");
        block_on(split.logits(&ids[..69], |_, _| Ok(()))).expect("logits");
        let stepped = block_on(split.step_logits(ids[69])).expect("logits");
        let worst = last
            .iter()
            .zip(&stepped)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-3, "{family}: {worst}");

        // A reused prefix, a longer and a shorter prompt, give what a fresh state gives; so does a prompt of many chunks.
        let mut used = fresh();
        for (n, new) in [(20, 9), (60, 5), (33, 7), (33, 7), (300, 4), (10, 12)] {
            let ids = prompt(n);
            let settings = SampleSettings::default();
            let expected = answer(&mut fresh(), &ids, settings, new);
            assert_eq!(expected.len(), new);
            assert_eq!(
                answer(&mut used, &ids, settings, new),
                expected,
                "{family} after reuse, {n}"
            );
        }
        // The conversation's own answer is reused too: only the new tokens are processed.
        let mut ids = prompt(20);
        ids.extend(answer(&mut used, &prompt(20), SampleSettings::default(), 8));
        ids.extend([7, 8, 9]);
        let done = block_on(used.begin(
            &ids,
            SampleSettings::default(),
            1,
            usize::MAX,
            &CancelToken::new(),
        ));
        assert!(
            done.expect("begins") <= 5,
            "{family}: the prefix was not reused"
        );

        // The same seed gives the same answer, another one differs; a penalty changes it and is forgotten afterwards.
        let warm = SampleSettings {
            temperature: 1.5,
            seed: 11,
            ..Default::default()
        };
        let first = answer(&mut fresh(), &prompt(12), warm, 24);
        assert_eq!(
            first,
            answer(&mut used, &prompt(12), warm, 24),
            "{family}: same seed"
        );
        assert_ne!(
            first,
            answer(
                &mut used,
                &prompt(12),
                SampleSettings { seed: 12, ..warm },
                24
            )
        );
        let greedy = answer(&mut used, &prompt(12), SampleSettings::default(), 24);
        let penalised = SampleSettings {
            repetition_penalty: 5.0,
            ..Default::default()
        };
        let distinct = |ids: &[u32]| ids.iter().collect::<std::collections::HashSet<_>>().len();
        assert!(distinct(&answer(&mut used, &prompt(12), penalised, 24)) >= distinct(&greedy));
        assert_eq!(
            answer(&mut used, &prompt(12), SampleSettings::default(), 24),
            greedy
        );
    }
}

#[test]
fn laws_of_the_cache_hold_on_the_cpu() {
    laws(&cpu());
}

#[test]
fn laws_of_the_cache_hold_on_a_gpu() {
    if let Some(engine) = gpu("laws_of_the_cache_hold_on_a_gpu") {
        laws(&engine);
    }
}

#[test]
fn wrong_prompts_and_settings_are_named() {
    let model = load(&cpu(), "llama");
    let mut state = State::new(&model.device, &model.model).expect("a state");
    let mut error = |ids: &[u32], settings| {
        let begun = block_on(state.begin(ids, settings, 4, usize::MAX, &CancelToken::new()));
        begun.expect_err("refused").to_string()
    };
    let greedy = SampleSettings::default();
    assert!(error(&[], greedy).contains("empty prompt"));
    assert!(error(&[1, 389], greedy).contains("389"));
    assert!(error(&vec![1; 600], greedy).contains("511"));
    assert!(
        error(
            &[1],
            SampleSettings {
                top_p: 2.0,
                ..greedy
            }
        )
        .contains("top_p")
    );
}

#[test]
fn a_decoded_token_costs_one_pass_one_submit_and_four_bytes() {
    let Some(engine) = gpu("a_decoded_token_costs_one_pass_one_submit_and_four_bytes") else {
        return;
    };
    let model = load(&engine, "llama");
    let mut state = State::new(&model.device, &model.model).expect("a state");
    block_on(async {
        let greedy = SampleSettings::default();
        state
            .begin(&prompt(16), greedy, 64, usize::MAX, &CancelToken::new())
            .await
            .expect("begins");
        for _ in 0..4 {
            state.next().await.expect("a token");
        }
        let before = model.device.memory();
        for _ in 0..40 {
            assert!(state.next().await.expect("a token").is_some());
        }
        let after = model.device.memory();
        assert_eq!(before.buffers_created, after.buffers_created, "buffers");
        assert_eq!(
            before.bind_groups_created, after.bind_groups_created,
            "bind groups"
        );
        assert_eq!(
            before.pipelines_created, after.pipelines_created,
            "pipelines"
        );
        let (cost, _) = state.decode_cost();
        assert_eq!((cost.passes, cost.submits, cost.readback_bytes), (1, 1, 4));
    });
}

fn comes_and_goes(engine: &Engine) {
    let device = engine.device();
    let round = || {
        let model = load(engine, "gemma3_text");
        let mut session = Session::new(engine, &model).expect("a session");
        let options = GenerateOptions {
            max_tokens: 8,
            ignore_eos: true,
            ..Default::default()
        };
        let made =
            block_on(session.generate(&prompt(9), &options, &CancelToken::new(), &mut |_| ()));
        assert_eq!(made.expect("an answer").ids.len(), 8);
        assert!(
            device.memory().bytes(Holder::Weights) > 0 && device.memory().bytes(Holder::Cache) > 0
        );
        drop(session);
        engine.dispose(model);
    };
    round();
    let start = device.memory().total_bytes();
    assert_eq!(start, 0, "{:?}", device.memory());
    for _ in 0..20 {
        round();
        assert_eq!(device.memory().total_bytes(), 0, "{:?}", device.memory());
    }
}

#[test]
fn twenty_rounds_on_the_cpu_give_all_memory_back() {
    comes_and_goes(&cpu());
}

#[test]
fn twenty_rounds_on_a_gpu_give_all_memory_back() {
    if let Some(engine) = gpu("twenty_rounds_on_a_gpu_give_all_memory_back") {
        comes_and_goes(&engine);
    }
}

#[test]
fn a_cancel_ends_the_answer_and_not_the_session() {
    let engine = cpu();
    let model = load(&engine, "llama");
    let mut session = Session::new(&engine, &model).expect("a session");
    let cancel = CancelToken::new();
    let options = GenerateOptions {
        max_tokens: 100,
        ignore_eos: true,
        ..Default::default()
    };
    let mut seen = 0;
    let answer = block_on(session.generate(&prompt(9), &options, &cancel, &mut |_| {
        seen += 1;
        if seen == 3 {
            cancel.cancel();
        }
    }))
    .expect("an answer");
    assert_eq!(answer.finish, Finish::Cancelled);
    assert!(answer.ids.len() < 100 && !answer.ids.is_empty());
    cancel.reset();
    let options = GenerateOptions {
        max_tokens: 5,
        ..options
    };
    let answer =
        block_on(session.generate(&prompt(9), &options, &cancel, &mut |_| ())).expect("an answer");
    assert_eq!((answer.finish, answer.ids.len()), (Finish::MaxTokens, 5));
}

#[test]
fn a_full_context_and_stop_texts_end_an_answer() {
    let engine = cpu();
    let model = load(&engine, "llama");
    let mut session = Session::new(&engine, &model).expect("a session");
    let (cancel, go_on) = (CancelToken::new(), true);
    let options = GenerateOptions {
        context: Some(20),
        ignore_eos: go_on,
        ..Default::default()
    };
    let full =
        block_on(session.generate(&prompt(9), &options, &cancel, &mut |_| ())).expect("an answer");
    assert_eq!((full.finish, full.ids.len()), (Finish::Context, 11));
    let text = full.text.clone();
    let at = text.char_indices().nth(3).map_or(0, |(i, _)| i);
    let stop: String = text[at..].chars().take(2).collect();
    let options = GenerateOptions {
        stop: vec![stop.clone()],
        ignore_eos: go_on,
        max_tokens: 11,
        ..Default::default()
    };
    let mut streamed = String::new();
    let stopped = block_on(session.generate(&prompt(9), &options, &cancel, &mut |e| {
        if let Event::Text(t) = e {
            streamed.push_str(&t);
        }
    }))
    .expect("an answer");
    assert_eq!(stopped.finish, Finish::Stop);
    assert_eq!(streamed, stopped.text);
    assert!(text.starts_with(&streamed) && !streamed.contains(&stop));
}

/// The device is lost in mid-answer: it goes on further down, and ends as if nothing had happened.
#[test]
fn a_lost_device_leads_down_the_ladder_and_the_answer_goes_on() {
    let name = "a_lost_device_leads_down_the_ladder_and_the_answer_goes_on";
    let expected = {
        let engine = cpu();
        let model = load(&engine, "llama");
        answer(
            &mut State::new(&model.device, &model.model).expect("a state"),
            &prompt(9),
            SampleSettings::default(),
            40,
        )
    };
    // An adapter named explicitly may be software; the CPU stays allowed below it.
    let options = EngineOptions {
        adapter: Some(0),
        self_test: false,
        ..Default::default()
    };
    let Some(engine) = gpu_or_skip(name, || {
        let engine = block_on(Engine::new(options)).map_err(|e| e.to_string())?;
        if engine.device().is_gpu() {
            Ok(engine)
        } else {
            Err("no GPU adapter".to_owned())
        }
    }) else {
        return;
    };
    let model = load(&engine, "llama");
    let mut session = Session::new(&engine, &model).expect("a session");
    let options = GenerateOptions {
        max_tokens: 40,
        ignore_eos: true,
        ..Default::default()
    };
    let (mut moves, mut pieces) = (0, 0);
    let device = engine.device();
    let made = block_on(session.generate(
        &prompt(9),
        &options,
        &CancelToken::new(),
        &mut |event| match event {
            Event::Token(_) => {}
            Event::Moved { .. } => moves += 1,
            Event::Scaled { .. } | Event::Call(_) => {}
            Event::Text(_) => {
                pieces += 1;
                if pieces == 5 {
                    device.simulate_loss();
                }
            }
        },
    ))
    .expect("the answer goes on");
    assert!(moves >= 1, "the loss was not noticed");
    assert_eq!(made.ids, expected);
    let report = engine.report();
    assert!(
        report.attempts.len() >= 2 && report.attempts[0].refused.is_some(),
        "{report:?}"
    );
}

/// A rung that was asked for is not left silently.
#[test]
fn an_explicit_rung_is_not_left() {
    let Some(engine) = gpu("an_explicit_rung_is_not_left") else {
        return;
    };
    let model = load(&engine, "llama");
    let mut session = Session::new(&engine, &model).expect("a session");
    engine.device().simulate_loss();
    let made = block_on(session.generate(
        &prompt(9),
        &GenerateOptions::default(),
        &CancelToken::new(),
        &mut |_| (),
    ));
    let error = made.expect_err("the device is gone").to_string();
    assert!(error.contains("no lower rung is allowed"), "{error}");
}
