//! Drafts change how many steps an answer takes, and nothing else: right, wrong and half-right ones, greedy and drawn, on CPU and GPU.

#[path = "support/opened.rs"]
mod opened;

use firelight_kernels::sample::SampleSettings;
use firelight_runtime::{CancelToken, DRAFT, Draft, Engine, GenerateOptions, Session, State};
use opened::{cpu, gpu, load};
use pollster::block_on;

/// The answer with the drafts that `draft` makes of the answer so far; with it the number of steps.
fn answer(
    state: &mut State,
    prompt: &[u32],
    settings: SampleSettings,
    n: usize,
    mut draft: impl FnMut(&[u32], usize) -> Vec<u32>,
) -> Vec<u32> {
    block_on(async {
        let cancel = CancelToken::new();
        let begun = state.begin(prompt, settings, n, usize::MAX, &cancel).await;
        begun.expect("begins");
        let mut ids = Vec::new();
        loop {
            let room = state.draft_room();
            let guess = draft(&ids, room);
            match state.next_of(&guess).await.expect("a token") {
                Some(id) => ids.push(id),
                None => break,
            }
        }
        state.stop();
        ids
    })
}

fn settings() -> [SampleSettings; 2] {
    [
        SampleSettings::default(),
        SampleSettings {
            temperature: 0.9,
            top_p: 0.95,
            seed: 11,
            ..Default::default()
        },
    ]
}

fn drafts_change_nothing(engine: &Engine) {
    for family in [
        "llama",
        "gemma3_text",
        "qwen3",
        "phi3_longrope",
        "gpt2",
        "gemma4",
    ] {
        let model = load(engine, family);
        let fresh = || State::new(&model.device, &model.model).expect("a state");
        for (settings, n) in settings().into_iter().zip([40, 23]) {
            let prompt: Vec<u32> = (0..30).map(|i| (i * 37 + 5) % 380).collect();
            let plain = answer(&mut fresh(), &prompt, settings, n, |_, _| Vec::new());
            assert_eq!(plain.len(), n, "{family}");
            let ahead = |ids: &[u32], k: usize| -> Vec<u32> {
                // The token under way comes first on some devices: the draft is for after `ids`.
                plain[ids.len()..].iter().copied().take(k).collect()
            };
            let mut state = fresh();
            let right = answer(&mut state, &prompt, settings, n, ahead);
            assert_eq!(right, plain, "{family}, right drafts");
            let (drafted, agreed) = state.drafts();
            assert!(
                drafted as usize > n / 2 && agreed == drafted,
                "{family}: {agreed} of {drafted}"
            );

            let wrong =
                |ids: &[u32], k: usize| ahead(ids, k).iter().map(|id| (id + 1) % 380).collect();
            let mut state = fresh();
            assert_eq!(
                answer(&mut state, &prompt, settings, n, wrong),
                plain,
                "{family}, wrong drafts"
            );
            let (drafted, agreed) = state.drafts();
            assert!(
                drafted > 0 && agreed == 0,
                "{family}: {agreed} of {drafted}"
            );

            // Of every length, right up to a point that moves; in a state that was used before.
            let mut turn = 0;
            let half = |ids: &[u32], k: usize| {
                turn += 1;
                let mut draft = ahead(ids, k.min(turn % (DRAFT + 1)));
                if let Some(id) = draft.get_mut(turn % 4) {
                    *id = (*id + 7) % 380;
                }
                draft
            };
            assert_eq!(
                answer(&mut state, &prompt, settings, n, half),
                plain,
                "{family}, half-right drafts"
            );
            // A longer prompt goes on from what was computed with drafts.
            let mut longer = prompt.clone();
            longer.extend_from_slice(&plain[..n - 3]);
            let again = answer(&mut state, &longer, settings, 3, |_, _| Vec::new());
            assert_eq!(again, plain[n - 3..], "{family}, the next turn");
        }
    }
}

#[test]
fn drafts_change_nothing_cpu() {
    drafts_change_nothing(&cpu());
}

#[test]
fn drafts_change_nothing_gpu() {
    if let Some(engine) = gpu("drafts_change_nothing_gpu") {
        drafts_change_nothing(&engine);
    }
}

fn generate(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
) -> firelight_runtime::Answer {
    let cancel = CancelToken::new();
    block_on(session.generate(prompt, options, &cancel, &mut |_| ())).expect("an answer")
}

fn sessions_draft(engine: &Engine) {
    let model = load(engine, "llama");
    let small = load(engine, "llama");
    let prompt: Vec<u32> = [vec![5; 12], vec![9, 17, 3], vec![5; 9]].concat();
    for sampling in settings() {
        let plain = GenerateOptions {
            sampling,
            max_tokens: 48,
            ignore_eos: true,
            ..Default::default()
        };
        let mut session = Session::new(engine, &model).expect("a session");
        let expected = generate(&mut session, &prompt, &plain);
        assert_eq!((expected.drafted, expected.drafts_right), (0, 0));
        for draft in [Draft::Lookup, Draft::Model(small.clone())] {
            let options = GenerateOptions {
                draft: Some(draft.clone()),
                ..plain.clone()
            };
            let answer = generate(&mut session, &prompt, &options);
            assert_eq!(answer.ids, expected.ids, "{draft:?}");
            assert_eq!(answer.text, expected.text, "{draft:?}");
            if let Draft::Model(_) = draft {
                // The same model draws the same tokens.
                assert!(answer.drafted >= 40, "{}", answer.drafted);
                assert_eq!(answer.drafted, answer.drafts_right);
            }
        }
        // Penalties depend on every token before: nothing is drafted, and the answer is right.
        let mut penalised = plain.clone();
        penalised.sampling.repetition_penalty = 1.3;
        let expected = generate(&mut session, &prompt, &penalised);
        penalised.draft = Some(Draft::Model(small.clone()));
        let answer = generate(&mut session, &prompt, &penalised);
        assert_eq!((answer.ids, answer.drafted), (expected.ids, 0));
    }
}

#[test]
fn sessions_draft_cpu() {
    sessions_draft(&cpu());
}

#[test]
fn sessions_draft_gpu() {
    if let Some(engine) = gpu("sessions_draft_gpu") {
        sessions_draft(&engine);
    }
}

#[test]
fn what_repeats_itself_is_looked_up() {
    let engine = cpu();
    let model = load(&engine, "llama");
    let mut session = Session::new(&engine, &model).expect("a session");
    // An answer that came before is in the prompt: most of it is guessed.
    let options = GenerateOptions {
        max_tokens: 60,
        ignore_eos: true,
        draft: Some(Draft::Lookup),
        ..Default::default()
    };
    let first = generate(&mut session, &[5, 9, 17, 3], &options);
    let mut prompt = vec![5, 9, 17, 3];
    prompt.extend_from_slice(&first.ids);
    let second = generate(&mut session, &prompt, &options);
    assert!(
        first.drafted + second.drafted > 0,
        "a tiny model's greedy answer runs in circles"
    );
}

#[test]
fn a_draft_model_must_share_the_vocabulary() {
    let engine = cpu();
    let model = load(&engine, "llama");
    let mut session = Session::new(&engine, &model).expect("a session");
    for (family, why) in [("gemma3_text", "vocabulary"), ("qwen3_5", "recurrent")] {
        let options = GenerateOptions {
            draft: Some(Draft::Model(load(&engine, family))),
            ..Default::default()
        };
        let cancel = CancelToken::new();
        let refused = block_on(session.generate(&[1, 2, 3], &options, &cancel, &mut |_| ()));
        let why_not = refused.expect_err("another vocabulary").to_string();
        assert!(why_not.contains(why), "{family}: {why_not}");
    }
}

#[test]
fn recurrent_models_take_no_drafts() {
    let engine = cpu();
    let model = load(&engine, "qwen3_5");
    let mut session = Session::new(&engine, &model).expect("a session");
    let mut options = GenerateOptions {
        max_tokens: 12,
        ignore_eos: true,
        ..Default::default()
    };
    let prompt: Vec<u32> = vec![5, 6, 7, 5, 6, 7, 5, 6];
    let expected = generate(&mut session, &prompt, &options);
    options.draft = Some(Draft::Lookup);
    let answer = generate(&mut session, &prompt, &options);
    assert_eq!((answer.ids, answer.drafted), (expected.ids, 0));
}
