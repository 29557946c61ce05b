//! Conversations with pictures, on the tiny vision-language model that ships with the program: its answers mean something.

use firelight_runtime::{
    Answer, CancelToken, DeviceChoice, Engine, EngineOptions, Event, GenerateOptions, LoadedModel,
    Medium, Message, Rung, Session,
};
use firelight_testing::gpu_or_skip;
use firelight_text::{Content, Part};
use firelight_vision::Image;
use pollster::block_on;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn spark() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/spark")
}

fn cpu() -> Engine {
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        ..Default::default()
    };
    block_on(Engine::new(options)).expect("a CPU")
}

fn gpu(options: EngineOptions) -> Result<Engine, String> {
    let engine = block_on(Engine::new(options)).map_err(|e| e.to_string())?;
    let found = engine.device().is_gpu();
    found
        .then_some(engine)
        .ok_or_else(|| "no GPU adapter".to_owned())
}

fn load(engine: &Engine) -> LoadedModel {
    block_on(engine.load(spark().join("model"), &mut |_, _| ())).expect("loads")
}

fn picture(name: &str) -> Medium {
    let bytes = std::fs::read(spark().join("samples").join(name)).expect("a sample");
    firelight_vision::decode(&bytes).expect("a picture").into()
}

fn question(text: &str, pictures: usize) -> Message {
    let mut parts = vec![Part::image(); pictures];
    parts.push(Part::text(text));
    Message::user(Content::Parts(parts))
}

fn options(media: Vec<Medium>) -> GenerateOptions {
    GenerateOptions {
        max_tokens: 64,
        media,
        ..Default::default()
    }
}

fn ask(
    session: &mut Session,
    messages: &[Message],
    options: &GenerateOptions,
) -> firelight_runtime::Result<Answer> {
    block_on(session.chat(messages, options, &CancelToken::new(), &mut |_| ()))
}

/// Every sample's reference tokens, `check(picture, question, ids with the one that ends the answer)`.
fn samples(mut check: impl FnMut(&str, &str, Vec<u32>)) {
    let text = std::fs::read(spark().join("samples/samples.json")).expect("the list");
    let json: Value = serde_json::from_slice(&text).expect("JSON");
    let list = json["samples"].as_array().expect("samples");
    assert!(list.len() >= 24);
    for sample in list {
        let text = |key: &str| sample[key].as_str().unwrap_or_else(|| panic!("{key}"));
        let ids = sample["greedy_ids"].as_array().expect("greedy_ids");
        let ids = ids.iter().map(|id| id.as_u64().expect("an id") as u32);
        check(text("file"), text("question"), ids.collect());
    }
}

fn all_samples(engine: &Engine) {
    let model = load(engine);
    let mut session = Session::new(engine, &model).expect("a session");
    samples(|file, text, mut expected| {
        let answer = ask(
            &mut session,
            &[question(text, 1)],
            &options(vec![picture(file)]),
        )
        .expect("an answer");
        assert_eq!(expected.pop(), Some(model.text.eos_ids[0]), "{file}");
        assert_eq!(answer.ids, expected, "{file}: {text} {}", answer.text);
    });
}

#[test]
fn every_sample_gets_the_reference_tokens() {
    all_samples(&cpu());
}

#[test]
fn every_sample_gets_the_reference_tokens_on_a_gpu() {
    let options = EngineOptions {
        device: DeviceChoice::Gpu,
        ..Default::default()
    };
    let open = || gpu(options);
    if let Some(engine) = gpu_or_skip("every_sample_gets_the_reference_tokens_on_a_gpu", open) {
        all_samples(&engine);
    }
}

#[test]
fn a_second_question_encodes_nothing_and_another_picture_is_not_taken_for_the_first() {
    let engine = cpu();
    let model = load(&engine);
    let mut session = Session::new(&engine, &model).expect("a session");
    let (two, one) = (picture("shape-two.png"), picture("shape-one.png"));
    let first = [question("Describe what you see.", 1)];
    let a = ask(&mut session, &first, &options(vec![two.clone()])).expect("an answer");
    assert_eq!(a.encoded, 1);
    assert!(
        a.text.contains("orange cross") && a.text.contains("red heart"),
        "{}",
        a.text
    );

    let mut talk = first.to_vec();
    talk.push(Message::assistant(a.text.as_str()));
    talk.push(Message::user("What colour is the heart?"));
    let b = ask(&mut session, &talk, &options(vec![two.clone()])).expect("an answer");
    assert_eq!(b.encoded, 0, "the tower ran again");
    // All of the first prompt, the picture's tokens among it, is still there.
    assert!(b.prefilled <= b.prompt_ids.len() - a.prompt_ids.len());

    // The same words about another picture: nothing of the first may be reused.
    let c = ask(&mut session, &first, &options(vec![one])).expect("an answer");
    assert_eq!(
        (c.encoded, c.text.trim()),
        (1, "A large purple ring at the top right.")
    );
    let d = ask(&mut session, &first, &options(vec![two])).expect("an answer");
    assert_eq!(d.ids, a.ids);
    let vocabulary = model.model.spec().vocab as u32;
    assert!(
        a.prompt_ids.iter().all(|&id| id < vocabulary),
        "soft ids leave the session"
    );
}

#[test]
fn pictures_and_their_places_have_to_agree() {
    let engine = cpu();
    let model = load(&engine);
    let mut session = Session::new(&engine, &model).expect("a session");
    let one = || vec![picture("shape-one.png")];
    for (messages, media) in [
        (vec![question("What is it?", 2)], one()),
        (vec![Message::user("What is it?")], one()),
        (vec![question("Is <image> a word?", 1)], one()),
        (vec![question("What is it?", 1)], Vec::new()),
    ] {
        let error = ask(&mut session, &messages, &options(media)).expect_err("refused");
        assert!(
            matches!(error, firelight_runtime::Error::InvalidInput(_)),
            "{error}"
        );
        assert!(error.to_string().contains("places for them"), "{error}");
    }
    let sound = vec![Medium::Audio(vec![0.0; 16_000].into())];
    let error = ask(&mut session, &[question("What?", 1)], &options(sound)).expect_err("refused");
    assert!(error.to_string().contains("takes no sounds"), "{error}");

    let llama = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/llama");
    let llama = block_on(engine.load(llama, &mut |_, _| ())).expect("loads");
    let mut blind = Session::new(&engine, &llama).expect("a session");
    let error =
        ask(&mut blind, &[Message::user("What is it?")], &options(one())).expect_err("refused");
    assert!(error.to_string().contains("takes no pictures"), "{error}");
}

#[test]
fn a_picture_is_made_smaller_where_the_context_is_short() {
    let engine = cpu();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/smolvlm");
    let model = block_on(engine.load(dir, &mut |_, _| ())).expect("loads");
    let mut session = Session::new(&engine, &model).expect("a session");
    let image: Medium = Image::filled(96, 96, [200, 30, 60])
        .expect("a picture")
        .into();
    let options = |context| GenerateOptions {
        max_tokens: 4,
        context: Some(context),
        media: vec![image.clone()],
        ..Default::default()
    };
    let mut run = |context| {
        let mut scaled = None;
        let mut note = |event| {
            if let Event::Scaled { from, to } = event {
                scaled = Some((from, to));
            }
        };
        let messages = [question("What is it?", 1)];
        let answer =
            block_on(session.chat(&messages, &options(context), &CancelToken::new(), &mut note));
        (answer, scaled)
    };
    let (whole, scaled) = run(500);
    assert_eq!(scaled, None);
    let (small, scaled) = run(60);
    let (from, to) = scaled.expect("it was made smaller");
    assert!(to < from && to > 0, "{from} → {to}");
    let (whole, small) = (whole.expect("an answer"), small.expect("an answer"));
    assert!(small.prompt_ids.len() < 60 && whole.prompt_ids.len() > 60);
    let (none, _) = run(8);
    assert!(none.is_err(), "8 tokens hold no picture");
}

#[test]
fn an_answer_about_a_picture_survives_its_device() {
    let on = || {
        gpu(EngineOptions {
            adapter: Some(0),
            ..Default::default()
        })
    };
    let Some(engine) = gpu_or_skip("an_answer_about_a_picture_survives_its_device", on) else {
        return;
    };
    let model = load(&engine);
    let expected = {
        let engine = cpu();
        let mut session = Session::new(&engine, &load(&engine)).expect("a session");
        let options = options(vec![picture("shape-three.png")]);
        ask(
            &mut session,
            &[question("Describe what you see.", 1)],
            &options,
        )
        .expect("an answer")
        .ids
    };
    let mut session = Session::new(&engine, &model).expect("a session");
    let (device, mut moves, mut tokens) = (engine.device(), 0, 0);
    let mut on_event = |event: Event| match event {
        Event::Moved { .. } => moves += 1,
        Event::Token(_) => {
            tokens += 1;
            if tokens == 6 {
                device.simulate_loss();
            }
        }
        Event::Text(_) | Event::Scaled { .. } | Event::Call(_) => {}
    };
    let options = options(vec![picture("shape-three.png")]);
    let messages = [question("Describe what you see.", 1)];
    let answer = block_on(session.chat(&messages, &options, &CancelToken::new(), &mut on_event))
        .expect("it goes on");
    assert_eq!(answer.ids, expected);
    assert!(moves >= 1 && session.model().device.rung() > Rung::GpuF16Subgroups);
}

/// Tokens of a picture that see each other are processed in one step, wherever in the prompt it is.
#[test]
fn a_picture_across_the_end_of_a_step_is_not_split() {
    let engine = cpu();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gemma4_large_vl");
    let model = block_on(engine.load(dir.clone(), &mut |_, _| ())).expect("loads");
    let bytes = std::fs::read(dir.join("input.png")).expect("a picture");
    let media: Medium = firelight_vision::decode(&bytes).expect("a picture").into();
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(8);
    let whole = Message::user(Content::Parts(vec![
        Part::text(text.as_str()),
        Part::image(),
        Part::text("What is it?"),
    ]));
    let options = |media| GenerateOptions {
        max_tokens: 12,
        media,
        ..Default::default()
    };
    let mut fresh = Session::new(&engine, &model).expect("a session");
    let a = ask(
        &mut fresh,
        std::slice::from_ref(&whole),
        &options(vec![media.clone()]),
    )
    .expect("an answer");
    let soft: Vec<usize> = (0..a.prompt_ids.len())
        .filter(|&i| a.prompt_ids[i] == 13)
        .collect();
    assert!(
        soft.contains(&255) && soft.contains(&256),
        "the picture is not across the end of the first step: {:?}",
        (soft.first(), soft.last())
    );

    let mut warm = Session::new(&engine, &model).expect("a session");
    let begun = Message::user(Content::Parts(vec![Part::text(text.as_str())]));
    ask(&mut warm, &[begun], &options(Vec::new())).expect("an answer");
    let b = ask(&mut warm, &[whole], &options(vec![media])).expect("an answer");
    assert!(
        b.prefilled < 120,
        "the text was processed again: {}",
        b.prefilled
    );
    assert_eq!(a.ids, b.ids);
}
