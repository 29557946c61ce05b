//! Recurrent states: what cannot be taken back is gone back to or computed again, whatever happens to a sequence.

#[path = "support/opened.rs"]
mod opened;

use firelight_kernels::Holder;
use firelight_kernels::sample::SampleSettings;
use firelight_runtime::{
    CancelToken, Engine, EngineOptions, Event, Finish, GenerateOptions, LoadedModel, Message,
    Rendering, Session, State,
};
use firelight_testing::gpu_or_skip;
use opened::{cpu, engine, gpu, load};
use pollster::block_on;
use std::pin::pin;
use std::task::{Context, Waker};

const FAMILY: &str = "qwen3_5";

const GREEDY: SampleSettings = SampleSettings {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    seed: 0,
};

fn fresh(model: &LoadedModel) -> State {
    State::new(&model.device, &model.model).expect("a state")
}

fn prompt(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 37 + 5) % 380).collect()
}

fn begin(state: &mut State, prompt: &[u32], n: usize) -> usize {
    block_on(state.begin(prompt, GREEDY, n, usize::MAX, &CancelToken::new())).expect("begins")
}

fn answer(state: &mut State, prompt: &[u32], n: usize) -> Vec<u32> {
    begin(state, prompt, n);
    rest(state)
}

fn rest(state: &mut State) -> Vec<u32> {
    let mut ids = Vec::new();
    while let Some(id) = block_on(state.next()).expect("a token") {
        ids.push(id);
    }
    state.stop();
    ids
}

/// How many tokens are processed for a prompt that shares a beginning with what was there, and that it makes no difference.
fn goes_back(engine: &Engine) {
    let model = load(engine, FAMILY);
    let mut used = fresh(&model);
    let changed_from = |n: u32, at: usize| {
        let mut ids = prompt(n);
        ids[at..].iter_mut().for_each(|id| *id = (*id + 1) % 380);
        ids
    };
    // (prompt, tokens processed): copies of the states are made where a step ends and 16 tokens before a prompt's end.
    let cases = [
        (prompt(300), 300, "new"),
        (prompt(300), 16, "the same again"),
        (changed_from(300, 290), 16, "another end"),
        (changed_from(300, 270), 300 - 256, "other from 270 on"),
        (changed_from(300, 100), 300, "other from 100 on"),
        (prompt(9), 9, "nothing kept so early"),
        (prompt(40), 40, "nothing kept of so short a prompt"),
        (prompt(400), 400 - 24, "longer"),
    ];
    for (ids, processed, what) in cases {
        let expected = answer(&mut fresh(&model), &ids, 6);
        assert_eq!(begin(&mut used, &ids, 6), processed, "{what}");
        assert_eq!(rest(&mut used), expected, "{what}");
    }
    // Many turns: no more copies are kept than a few.
    let mut held = 0;
    for round in 0..2 {
        for n in (30..400).step_by(13) {
            let expected = answer(&mut fresh(&model), &prompt(n), 3);
            assert_eq!(answer(&mut used, &prompt(n), 3), expected, "{n}");
        }
        if round == 0 {
            held = used.cache_bytes();
        }
    }
    assert_eq!(used.cache_bytes(), held);
    drop(used);
}

#[test]
fn a_sequence_goes_back_on_the_cpu() {
    goes_back(&cpu());
}

#[test]
fn a_sequence_goes_back_on_a_gpu() {
    if let Some(engine) = gpu("a_sequence_goes_back_on_a_gpu") {
        goes_back(&engine);
    }
}

/// A caller that stops listening in mid-token leaves a step behind that nobody knows of.
fn is_dropped_in_mid_token(engine: &Engine) {
    let model = load(engine, FAMILY);
    let ids = prompt(40);
    let expected = answer(&mut fresh(&model), &ids, 12);
    let mut used = fresh(&model);
    for known in [0, 1, 5] {
        begin(&mut used, &ids, 12);
        let mut said = Vec::new();
        for _ in 0..known {
            said.extend(block_on(used.next()).expect("a token"));
        }
        {
            let next = pin!(used.next());
            let _ = next.poll(&mut Context::from_waker(Waker::noop()));
        }
        used.stop();
        assert_eq!(said, expected[..known]);
        // Going on from what is known, and starting over.
        let mut longer = ids.clone();
        longer.extend(&said);
        let after = answer(&mut used, &longer, 12 - known);
        assert_eq!(after, expected[known..], "after {known}");
        assert_eq!(answer(&mut used, &ids, 12), expected, "after {known}");
    }
}

#[test]
fn a_dropped_token_does_no_harm_on_the_cpu() {
    is_dropped_in_mid_token(&cpu());
}

#[test]
fn a_dropped_token_does_no_harm_on_a_gpu() {
    if let Some(engine) = gpu("a_dropped_token_does_no_harm_on_a_gpu") {
        is_dropped_in_mid_token(&engine);
    }
}

fn is_cancelled(engine: &Engine) {
    let model = load(engine, FAMILY);
    let options = GenerateOptions {
        max_tokens: 30,
        ignore_eos: true,
        ..Default::default()
    };
    let whole = answer(&mut fresh(&model), &prompt(50), 30);
    let mut session = Session::new(engine, &model).expect("a session");
    let cancel = CancelToken::new();
    for stop_at in [1, 4] {
        let mut seen = 0;
        let mut count = |_: Event| {
            seen += 1;
            if seen == stop_at {
                cancel.cancel();
            }
        };
        let cut = block_on(session.generate(&prompt(50), &options, &cancel, &mut count));
        let cut = cut.expect("an answer");
        assert_eq!(cut.finish, Finish::Cancelled);
        assert!(whole.starts_with(&cut.ids) && cut.ids.len() < 30);
        cancel.reset();
        let again = block_on(session.generate(&prompt(50), &options, &cancel, &mut |_| ()));
        assert_eq!(again.expect("an answer").ids, whole);
    }
    // Cancelled before it began: nothing of the prompt is taken for processed.
    cancel.cancel();
    let none = block_on(session.generate(&prompt(300), &options, &cancel, &mut |_| ()));
    assert_eq!(none.expect("an answer").finish, Finish::Cancelled);
    cancel.reset();
    let after = block_on(session.generate(&prompt(300), &options, &cancel, &mut |_| ()));
    let expected = answer(&mut fresh(&model), &prompt(300), 30);
    assert_eq!(after.expect("an answer").ids, expected);
}

#[test]
fn a_cancel_does_no_harm_on_the_cpu() {
    is_cancelled(&cpu());
}

#[test]
fn a_cancel_does_no_harm_on_a_gpu() {
    if let Some(engine) = gpu("a_cancel_does_no_harm_on_a_gpu") {
        is_cancelled(&engine);
    }
}

#[test]
fn a_decoded_token_makes_nothing_new_and_costs_one_pass() {
    let Some(engine) = gpu("a_decoded_token_makes_nothing_new_and_costs_one_pass") else {
        return;
    };
    let model = load(&engine, FAMILY);
    let mut state = fresh(&model);
    begin(&mut state, &prompt(16), 64);
    for _ in 0..4 {
        block_on(state.next()).expect("a token");
    }
    let before = model.device.memory();
    for _ in 0..40 {
        assert!(block_on(state.next()).expect("a token").is_some());
    }
    let after = model.device.memory();
    let made = |m: &firelight_kernels::MemoryReport| {
        (
            m.buffers_created,
            m.bind_groups_created,
            m.pipelines_created,
        )
    };
    assert_eq!(made(&before), made(&after));
    let (cost, _) = state.decode_cost();
    assert_eq!((cost.passes, cost.submits, cost.readback_bytes), (1, 1, 4));
}

/// The device is lost in mid-answer: the states are computed again further down.
#[test]
fn a_lost_device_leads_down_the_ladder() {
    let expected = answer(&mut fresh(&load(&cpu(), FAMILY)), &prompt(30), 30);
    let options = EngineOptions {
        adapter: Some(0),
        ..Default::default()
    };
    let Some(engine) = gpu_or_skip("a_lost_device_leads_down_the_ladder", || {
        let engine = engine(options).map_err(|e| e.to_string())?;
        let found = engine.device().is_gpu();
        found
            .then_some(engine)
            .ok_or_else(|| "no GPU adapter".to_owned())
    }) else {
        return;
    };
    let model = load(&engine, FAMILY);
    let mut session = Session::new(&engine, &model).expect("a session");
    let options = GenerateOptions {
        max_tokens: 30,
        ignore_eos: true,
        ..Default::default()
    };
    let (device, mut moves, mut pieces) = (engine.device(), 0, 0);
    let mut on_event = |event: Event| match event {
        Event::Token(_) => (),
        Event::Moved { .. } => moves += 1,
        Event::Scaled { .. } | Event::Call(_) => {}
        Event::Text(_) => {
            pieces += 1;
            if pieces == 4 {
                device.simulate_loss();
            }
        }
    };
    let made =
        block_on(session.generate(&prompt(30), &options, &CancelToken::new(), &mut on_event));
    assert_eq!(made.expect("the answer goes on").ids, expected);
    assert!(moves >= 1, "the loss was not noticed");
}

#[test]
fn snapshots_are_given_back_with_the_rest() {
    let engine = cpu();
    let device = engine.device();
    let model = load(&engine, FAMILY);
    let mut state = fresh(&model);
    answer(&mut state, &prompt(20), 2);
    let few = state.cache_bytes();
    assert!(few <= device.memory().bytes(Holder::Cache));
    answer(&mut state, &prompt(250), 2);
    assert!(state.cache_bytes() > few);
    drop(state);
    engine.dispose(model);
    assert_eq!(device.memory().total_bytes(), 0);
}

/// Thinking is off unless it is asked for, and the template is told so either way.
#[test]
fn a_template_hears_whether_to_think() {
    let model = load(&cpu(), FAMILY);
    let messages = [Message::user("Hi")];
    let text = &model.text;
    let quiet = text.render(&messages, true).expect("renders");
    assert!(quiet.ends_with("<think>\n\n</think>\n\n"), "{quiet:?}");
    let aloud = Rendering {
        thinking: true,
        ..Rendering::default()
    };
    let aloud = text.render_with(&messages, true, aloud).expect("renders");
    assert!(aloud.ends_with("assistant\n<think>\n"), "{aloud:?}");
}
