//! What a session has read, kept in a file: the answers are those of a session that reads it again, for every kind of cache, and a file
//! that is damaged or another model's is refused.

#[path = "support/opened.rs"]
mod opened;

use firelight_kernels::DType;
use firelight_runtime::{
    CancelToken, DeviceChoice, Engine, EngineOptions, Error, GenerateOptions, LoadedModel,
    SampleSettings, Session,
};
use opened::{cpu, engine, gpu, load};
use pollster::block_on;
use std::path::Path;

fn prompt(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 37 + 5) % 300).collect()
}

fn session(engine: &Engine, model: &LoadedModel) -> Session {
    Session::new(engine, model).expect("a session")
}

/// Eight greedy tokens, and how many of the prompt were processed.
fn answer(session: &mut Session, prompt: &[u32]) -> (Vec<u32>, usize) {
    let options = GenerateOptions {
        sampling: SampleSettings {
            temperature: 0.0,
            ..Default::default()
        },
        max_tokens: 8,
        ignore_eos: true,
        ..Default::default()
    };
    let cancel = CancelToken::new();
    let answer = block_on(session.generate(prompt, &options, &cancel, &mut |_| ()));
    let answer = answer.expect("an answer");
    (answer.ids, answer.prefilled)
}

fn save(session: &mut Session, file: &Path) -> usize {
    block_on(session.save_prompt_cache(file)).expect("a file")
}

fn kept(engine: &Engine, family: &str) {
    let model = load(engine, family);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("read.cache");
    let mut first = session(engine, &model);
    assert_eq!(save(&mut first, &file), 0, "nothing was read");
    assert!(!file.exists());
    // More than a step, and than a sliding window.
    let text = prompt(300);
    let (said, _) = answer(&mut first, &text);
    let tokens = save(&mut first, &file);
    assert!(tokens >= 256, "{family}: {tokens}");
    // The conversation goes on, and another question about the same text.
    let goes_on: Vec<u32> = text.iter().chain(&said).copied().chain(prompt(9)).collect();
    let mut asks_again = text.clone();
    asks_again[280..].iter_mut().for_each(|id| *id += 1);
    for next in [goes_on, asks_again, text] {
        let (expected, all) = answer(&mut session(engine, &model), &next);
        let mut again = session(engine, &model);
        assert_eq!(
            block_on(again.load_prompt_cache(&file)).expect("loads"),
            tokens
        );
        let (said, processed) = answer(&mut again, &next);
        assert_eq!(said, expected, "{family}");
        assert!(processed <= all - 256, "{family}: {processed} of {all}");
        // What was loaded can be kept again.
        let second = folder.path().join("again.cache");
        assert!(save(&mut again, &second) >= 256, "{family}");
    }
}

const FAMILIES: [&str; 4] = ["llama", "gemma3_text", "phi3_longrope", "qwen3_5"];

#[test]
fn the_same_answers_without_reading_again_on_the_cpu() {
    FAMILIES.iter().for_each(|family| kept(&cpu(), family));
}

#[test]
fn the_same_answers_without_reading_again_on_a_gpu() {
    if let Some(engine) = gpu("the_same_answers_without_reading_again_on_a_gpu") {
        FAMILIES.iter().for_each(|family| kept(&engine, family));
    }
}

fn with_caches(kv: DType) -> Engine {
    let device = DeviceChoice::Cpu;
    let options = EngineOptions {
        device,
        kv: Some(kv),
        ..Default::default()
    };
    engine(options).expect("a CPU")
}

#[test]
fn caches_of_other_types_are_kept() {
    kept(&with_caches(DType::F16), "gemma3_text");
}

fn refused(result: Result<usize, Error>, other: bool, what: &str) {
    match result {
        Err(Error::Unsupported(_)) if other => {}
        Err(Error::Malformed { .. }) if !other => {}
        result => panic!("{what}: {result:?}"),
    }
}

#[test]
fn another_models_file_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("read.cache");
    let mut first = session(&cpu(), &load(&cpu(), "llama"));
    let expected = answer(&mut first, &prompt(40)).0;
    save(&mut first, &file);
    // Another family, the same with other weights, and with caches of another type.
    let exact = engine(EngineOptions {
        device: DeviceChoice::Cpu,
        exact: true,
        ..Default::default()
    });
    for (engine, family) in [
        (cpu(), "qwen2"),
        (cpu(), "llama2"),
        (with_caches(DType::F16), "llama"),
        (exact.expect("a CPU"), "llama"),
    ] {
        let mut other = session(&engine, &load(&engine, family));
        let expected = answer(&mut other, &prompt(30)).0;
        refused(block_on(other.load_prompt_cache(&file)), true, family);
        assert_eq!(
            answer(&mut other, &prompt(30)).0,
            expected,
            "it goes on from nothing"
        );
    }
    let mut same = session(&cpu(), &load(&cpu(), "llama"));
    block_on(same.load_prompt_cache(&file)).expect("its own file");
    assert_eq!(answer(&mut same, &prompt(40)).0, expected);
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("read.cache");
    let engine = cpu();
    let mut session = session(&engine, &load(&engine, "qwen3_5"));
    let expected = answer(&mut session, &prompt(60)).0;
    save(&mut session, &file);
    let good = std::fs::read(&file).expect("the file");
    let mut bad = vec![
        ("nothing", Vec::new()),
        ("half a header", good[..100].to_vec()),
        ("without its end", good[..good.len() - 1].to_vec()),
        (
            "another file",
            std::fs::read(opened::data("qwen3_5/model.safetensors")).expect("the weights"),
        ),
    ];
    for at in [good.len() - 1, good.len() / 2, good.len() * 3 / 4] {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        bad.push(("a flipped bit", flipped));
    }
    // What the header says of the sequence is not covered by the sum over the data.
    let header = String::from_utf8_lossy(&good[8..4000]).into_owned();
    for (field, value) in [
        ("held", "9"),
        ("high", "9"),
        ("length", "9"),
        ("snapshots", "9"),
    ] {
        let at = 8
            + header
                .find(&format!("\\\"{field}\\\":"))
                .expect("the field")
            + field.len()
            + 5;
        let mut lying = good.clone();
        let digit = (at..)
            .find(|&i| lying[i].is_ascii_digit())
            .expect("a number");
        lying[digit] = value.as_bytes()[0];
        bad.push((field, lying));
    }
    for (what, bytes) in bad {
        std::fs::write(&file, bytes).expect("a file");
        let loaded = block_on(session.load_prompt_cache(&file));
        // A longer reach of the windows or tables is as good as the true one.
        if !(matches!(what, "high" | "length") && loaded.is_ok()) {
            refused(loaded, false, what);
        }
        assert_eq!(answer(&mut session, &prompt(60)).0, expected, "{what}");
    }
    let missing = block_on(session.load_prompt_cache(&folder.path().join("none")));
    assert!(matches!(missing, Err(Error::Io { .. })), "{missing:?}");
}
