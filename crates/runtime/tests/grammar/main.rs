//! Answers under a grammar: what comes out parses and is valid, or the error says why not.
//!
//! Always on: the tiny fixture models, whose weights know nothing, so that every token is chance. With
//! `FIRELIGHT_REAL_MODELS=1` (and `--release`): 200 schemas against SmolLM2 at temperature 1, and what the masks cost.

mod schemas;

use firelight_kernels::sample::SampleSettings;
use firelight_runtime::source::{Options, Resolver};
use firelight_runtime::{
    Answer, CancelToken, DeviceChoice, Engine, EngineOptions, Error, Finish, GenerateOptions,
    Grammar, LoadedModel, Message, Result, Rung, Session, State,
};
use firelight_testing::{gpu_or_skip, skip};
use pollster::block_on;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

fn cpu() -> Engine {
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        self_test: false,
        ..Default::default()
    };
    block_on(Engine::new(options)).expect("a CPU")
}

fn gpu(test: &str) -> Option<Engine> {
    let options = EngineOptions {
        device: DeviceChoice::Gpu,
        self_test: false,
        rung: Some(Rung::GpuF32),
        ..Default::default()
    };
    gpu_or_skip(test, || block_on(Engine::new(options)))
}

fn load(engine: &Engine, family: &str) -> LoadedModel {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(family);
    block_on(engine.load(path, &mut |_, _| ())).expect("the fixture loads")
}

fn warm(seed: u64) -> SampleSettings {
    SampleSettings {
        temperature: 1.0,
        seed,
        ..Default::default()
    }
}

fn ask(session: &mut Session, prompt: &str, options: &GenerateOptions) -> Result<Answer> {
    let ids = session.model().text.encode_text(prompt)?;
    let mut streamed = String::new();
    let answer = block_on(
        session.generate(&ids, options, &CancelToken::new(), &mut |event| {
            if let firelight_runtime::Event::Text(text) = event {
                streamed.push_str(&text);
            }
        }),
    )?;
    assert_eq!(streamed, answer.text);
    Ok(answer)
}

/// The ids of a plain run, or under a mask that allows everything, or all but `without`.
fn ids(state: &mut State, settings: SampleSettings, mask: Option<&[u32]>, n: usize) -> Vec<u32> {
    let prompt: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 380).collect();
    block_on(async {
        state.set_mask(mask).expect("a mask");
        state
            .begin(&prompt, settings, n, usize::MAX, &CancelToken::new())
            .await
            .expect("begins");
        let mut ids = Vec::new();
        while let Some(id) = state.next().await.expect("a token") {
            ids.push(id);
            state.set_mask(mask).expect("a mask");
        }
        state.stop();
        ids
    })
}

fn masks(engine: &Engine) {
    for family in ["llama", "gemma3_text", "phi3_longrope"] {
        let model = load(engine, family);
        let vocab = model.model.spec().vocab;
        let mut state = State::new(&model.device, &model.model).expect("a state");
        let all = vec![u32::MAX; vocab.div_ceil(32)];
        let penalised = SampleSettings {
            repetition_penalty: 1.3,
            top_k: 30,
            ..warm(5)
        };
        for settings in [SampleSettings::default(), warm(3), penalised] {
            let plain = ids(&mut state, settings, None, 12);
            assert_eq!(plain.len(), 12);
            // Everything allowed is as without, and the state goes back and forth between the two.
            assert_eq!(ids(&mut state, settings, Some(&all), 12), plain, "{family}");
            assert_eq!(ids(&mut state, settings, None, 12), plain, "{family}");
            // What is not allowed never comes; the rest is as likely as before.
            let mut less = all.clone();
            for id in &plain {
                less[*id as usize / 32] &= !(1 << (id % 32));
            }
            let other = ids(&mut state, settings, Some(&less), 12);
            assert!(other.iter().all(|id| !plain.contains(id)), "{family}");
            let mut one = vec![0; all.len()];
            one[7] = 1 << 9;
            assert_eq!(ids(&mut state, settings, Some(&one), 5), [7 * 32 + 9; 5]);
        }
        assert!(state.set_mask(Some(&all[1..])).is_err());
        let mut beyond = vec![0; all.len()];
        assert!(state.set_mask(Some(&beyond)).is_err());
        if let (Some(last), 1..) = (beyond.last_mut(), vocab % 32) {
            *last = 1 << 31;
            assert!(
                state.set_mask(Some(&beyond)).is_err(),
                "a token that is none"
            );
        }
    }
}

fn answers(engine: &Engine, few: bool) {
    for family in ["llama", "llama2", "gemma3_text"] {
        let model = load(engine, family);
        let mut session = Session::new(engine, &model).expect("a session");
        let mut try_one = |grammar: Grammar, seed: u64, max_tokens: usize| {
            let options = GenerateOptions {
                sampling: warm(seed),
                max_tokens,
                grammar: Some(grammar),
                ..Default::default()
            };
            ask(&mut session, "The quick brown fox", &options)
        };
        let choices = ["yes", "no", "né \"maybe\""].map(String::from).to_vec();
        for seed in 0..if few { 2 } else { 6 } {
            let answer = try_one(Grammar::Choices(choices.clone()), seed, 40).expect("an answer");
            assert!(
                choices.contains(&answer.text),
                "{family}: {:?}",
                answer.text
            );
            assert_eq!(answer.finish, Finish::Eos);
            assert!(answer.masking > Duration::ZERO);
            let answer = try_one(Grammar::Regex("[a-f]{3}(-[0-9]{2}){1,3}".into()), seed, 40);
            let text = answer.expect("an answer").text;
            assert!(
                text.len() >= 6 && text[..3].bytes().all(|b| b.is_ascii_lowercase()),
                "{text:?}"
            );
        }
        let (step, most) = if few { (29, 64) } else { (7, 160) };
        for (i, schema) in schemas::all().into_iter().enumerate().step_by(step) {
            let validator = jsonschema::validator_for(&schema).expect("a schema");
            let answer = try_one(Grammar::JsonSchema(schema.clone()), i as u64, most);
            match answer {
                Ok(answer) => {
                    let value: Value = serde_json::from_str(&answer.text)
                        .unwrap_or_else(|e| panic!("{family} {i}: {e}: {:?}", answer.text));
                    if let Err(e) = validator.validate(&value) {
                        panic!("{family} {i}: {schema}\n{value}\n{e}");
                    }
                }
                // Chance writes long texts, and a schema may demand more than there is room for.
                Err(Error::Unfinished { tokens, why, .. }) => {
                    assert_eq!(tokens, most);
                    assert!(why.contains("max_tokens"), "{why}");
                    eprintln!("{family}: schema {i} did not fit into {most} tokens");
                }
                Err(e) => panic!("{family} {i}: {e}"),
            }
        }
    }
}

#[test]
fn masks_on_the_cpu() {
    masks(&cpu());
}

#[test]
fn masks_on_the_gpu() {
    if let Some(engine) = gpu("masks_on_the_gpu") {
        masks(&engine);
    }
}

#[test]
fn answers_on_the_cpu() {
    answers(&cpu(), false);
}

#[test]
fn answers_on_the_gpu() {
    if let Some(engine) = gpu("answers_on_the_gpu") {
        answers(&engine, true);
    }
}

#[test]
fn what_cannot_be_is_said() {
    let engine = cpu();
    let model = load(&engine, "llama");
    let mut session = Session::new(&engine, &model).expect("a session");
    let grammar = |schema: Value| GenerateOptions {
        grammar: Some(Grammar::JsonSchema(schema)),
        max_tokens: 12,
        ..Default::default()
    };
    // No room for what is demanded: the error has what there is, and the session goes on.
    let long = grammar(
        json!({"const": "a text that is much longer than twelve tokens of this model can be"}),
    );
    match ask(&mut session, "Hi", &long) {
        Err(Error::Unfinished { why, tokens, text }) => {
            assert!(why.contains("max_tokens 12"), "{why}");
            assert!(tokens == 12 && text.starts_with("\"a "), "{text:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        ask(&mut session, "Hi", &grammar(json!({"const": 5})))
            .expect("fits")
            .text,
        "5"
    );
    let plain = ask(
        &mut session,
        "Hi",
        &GenerateOptions {
            max_tokens: 5,
            ..Default::default()
        },
    );
    assert!(plain.expect("without").masking.is_zero());

    let stop = GenerateOptions {
        stop: vec!["}".into()],
        ..grammar(json!({}))
    };
    assert!(ask(&mut session, "Hi", &stop).is_err_and(|e| e.to_string().contains("stop")));
    let unknown = ask(&mut session, "Hi", &grammar(json!({"not": {}})));
    assert!(unknown.is_err_and(|e| e.to_string().contains("not")));
    // A cancelled answer is what there is of it.
    let cancel = CancelToken::new();
    cancel.cancel();
    let ids = session.model().text.encode_text("Hi").expect("ids");
    let cancelled =
        block_on(session.generate(&ids, &long, &cancel, &mut |_| ())).expect("cancelled");
    assert_eq!(cancelled.finish, Finish::Cancelled);
}

#[test]
fn the_judge_judges() {
    let all = schemas::all();
    assert_eq!(all.len(), 200);
    let mut refused = 0;
    for schema in &all {
        let validator =
            jsonschema::validator_for(schema).unwrap_or_else(|e| panic!("{schema}: {e}"));
        refused += usize::from(!validator.is_valid(&json!({"no": ["such", "thing", 1e9]})));
    }
    assert!(refused > 190, "{refused}");
}

/// What a real model does with 200 schemas at temperature 1, and what the masks cost. `FIRELIGHT_SCHEMAS=N` takes the first `N` after
/// spreading.
#[test]
fn two_hundred_schemas() {
    let test = "two_hundred_schemas";
    if std::env::var_os("FIRELIGHT_REAL_MODELS").is_none() {
        skip!(
            test,
            "smollm2-135m-instruct",
            "FIRELIGHT_REAL_MODELS is not set"
        );
        return;
    }
    let resolver = Resolver::new(Options::from_env().expect("options"));
    let path = match resolver.path("smollm2-135m-instruct") {
        Ok(path) => path,
        Err(e) => {
            skip!(test, "smollm2-135m-instruct", e);
            return;
        }
    };
    let engine = cpu();
    let model = block_on(engine.load(path, &mut |_, _| ())).expect("loads");
    let mut session = Session::new(&engine, &model).expect("a session");
    let (mut masking, mut generating, mut tokens) = (Duration::ZERO, Duration::ZERO, 0);
    let (mut failed, mut compile) = (Vec::new(), Duration::ZERO);
    for (i, schema) in schemas::all().into_iter().enumerate() {
        let mut shown = schema.to_string();
        shown.truncate(
            (0..=600.min(shown.len()))
                .rev()
                .find(|&at| shown.is_char_boundary(at))
                .unwrap_or(0),
        );
        let messages = [Message::user(format!(
            "Write a JSON example for this schema:\n{shown}"
        ))];
        let options = GenerateOptions {
            sampling: warm(i as u64),
            max_tokens: 400,
            grammar: Some(Grammar::JsonSchema(schema.clone())),
            ..Default::default()
        };
        let vocabulary = model
            .text
            .vocabulary(model.model.spec().vocab)
            .expect("a vocabulary");
        let start = std::time::Instant::now();
        vocabulary
            .matcher(&Grammar::JsonSchema(schema.clone()))
            .unwrap_or_else(|e| panic!("{i} {schema}: {e}"));
        compile += start.elapsed();
        let start = std::time::Instant::now();
        let answer = block_on(session.chat(&messages, &options, &CancelToken::new(), &mut |_| ()));
        match answer {
            Ok(answer) => {
                masking += answer.masking;
                generating += answer.decode;
                tokens += answer.ids.len();
                let valid = serde_json::from_str::<Value>(&answer.text)
                    .map_err(|e| e.to_string())
                    .and_then(|value| {
                        jsonschema::validate(&schema, &value).map_err(|e| e.to_string())
                    });
                if let Err(e) = valid {
                    failed.push(format!("{i}: {schema}\n    {:?}\n    {e}", answer.text));
                }
                if i % 20 == 0 {
                    eprintln!(
                        "{i}: {} tokens, {:.1?}: {}",
                        answer.ids.len(),
                        start.elapsed(),
                        answer.text
                    );
                }
            }
            Err(e) => failed.push(format!("{i}: {schema}\n    {e:?}")),
        }
    }
    let share = masking.as_secs_f64() / generating.as_secs_f64();
    let per = |time: Duration| time.as_secs_f64() * 1e3 / tokens as f64;
    eprintln!(
        "200 schemas, {tokens} tokens, {} failed; a token {:.2} ms, of it masks {:.3} ms ({:.1} %); compiling a schema {:.1} ms",
        failed.len(),
        per(generating),
        per(masking),
        100.0 * share,
        compile.as_secs_f64() * 1e3 / 200.0
    );
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
