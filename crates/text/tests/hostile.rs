//! Files and templates made to break things: a clear error, soon, in little memory.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use firelight_text::{ChatInput, ChatTemplate, Error, GgufVocab, Message, RenderLimits, Tokenizer};

/// What a template may take here; tests run unoptimised, beside others.
const SOON: Duration = Duration::from_secs(20);

fn render(source: &str) -> firelight_text::Result<String> {
    let messages = [Message::user("Hi"), Message::assistant("Hello")];
    ChatTemplate::new(source)?.render(&ChatInput {
        messages: &messages,
        ..ChatInput::default()
    })
}

#[test]
fn limits_can_be_set_and_are_named() {
    let messages = [Message::user("Hi")];
    let input = ChatInput {
        messages: &messages,
        ..ChatInput::default()
    };
    let mut limits = RenderLimits::default();
    (limits.output, limits.steps) = (1000, 1000);
    let run = |source: &str| {
        ChatTemplate::with_limits(source, limits)
            .unwrap()
            .render(&input)
    };
    assert_eq!(
        run("{% for i in range(10) %}{{ 'x' * 99 }}{% endfor %}")
            .unwrap()
            .len(),
        990
    );
    let error = run("{% for i in range(12) %}{{ 'x' * 99 }}{% endfor %}").unwrap_err();
    assert!(matches!(error, Error::Limit { max: 1000, .. }), "{error}");
    let error = run("{% for i in range(1000) %}{% endfor %}").unwrap_err();
    assert!(
        matches!(
            error,
            Error::Limit {
                what: "steps of a chat template",
                ..
            }
        ),
        "{error}"
    );
    // What goes in does not count against the limit of what is made of it.
    let long = "y".repeat(100_000);
    let messages = [Message::user(long.as_str())];
    let input = ChatInput {
        messages: &messages,
        ..ChatInput::default()
    };
    let template = ChatTemplate::with_limits("{{ messages[0].content | trim }}", limits).unwrap();
    assert_eq!(template.render(&input).unwrap(), long);
}

#[test]
fn errors_say_where() {
    for (source, wanted) in [
        ("a\nb {% if %}", "line 2"),
        ("{{ 'unfinished", ""),
        ("{% for x in y %}", ""),
        ("{{ x | no_such_filter }}", "no_such_filter"),
    ] {
        let error = render(source).unwrap_err().to_string();
        assert!(
            error.contains("chat template") && error.contains(wanted),
            "{error}"
        );
    }
    let error = ChatTemplate::new("abc {{ 1 + }}").unwrap_err();
    assert!(
        matches!(error, Error::Malformed { offset: 4..=12, .. }),
        "{error}"
    );
    let error = render("\n\n{{ messages.x.y }}").unwrap_err().to_string();
    assert!(error.contains("line 3"), "{error}");
}

/// Pseudo-random numbers that are the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

fn use_it(tokenizer: &Tokenizer) {
    for text in [
        "",
        "Hello <s> wörld 🙂\n\n  x 123",
        "<|end|>▁<0x41>\u{fffd}\0",
    ] {
        for special in [false, true] {
            if let Ok(ids) = tokenizer.encode(text, special) {
                let _ = tokenizer.decode(&ids, special);
            }
            let _ = tokenizer.encode_plain(text, special);
        }
    }
    let mut stream = tokenizer.stream(true);
    for id in [0, 1, 2, 3, 77, 300, 4_000_000, u32::MAX] {
        let _ = stream.push(id);
        let _ = tokenizer.id_to_token_bytes(id);
    }
    let _ = stream.finish();
}

#[test]
fn broken_tokenizer_files() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers");
    let mut random = Random(1);
    let (mut refused, mut taken) = (0, 0);
    for name in [
        "llama2",
        "qwen",
        "bert",
        "t5",
        "clip",
        "words_fixed",
        "gpt2_added",
    ] {
        let whole = std::fs::read(dir.join(format!("{name}.json"))).unwrap();
        for at in (0..whole.len() - 1).step_by(whole.len() / 60) {
            assert!(
                Tokenizer::from_json(&whole[..at]).is_err(),
                "{name} cut at {at}"
            );
        }
        for _ in 0..400 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => {
                        bytes.remove(at);
                    }
                    _ => bytes[at] = *random_byte(&mut random),
                }
            }
            match Tokenizer::from_json(&bytes) {
                Ok(tokenizer) => {
                    taken += 1;
                    use_it(&tokenizer);
                }
                Err(e) => {
                    refused += 1;
                    assert!(!e.to_string().is_empty());
                }
            }
        }
    }
    assert!(
        refused > 500 && taken > 100,
        "{refused} refused, {taken} taken"
    );
}

fn random_byte(random: &mut Random) -> &'static u8 {
    let bytes = b"{}[]\",:0129-.eE\\ntfux<>|";
    &bytes[random.below(bytes.len())]
}

#[test]
fn tokenizer_files_with_a_purpose() {
    let model = r#""model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}"#;
    let deep = format!(
        "{{{model},\"x\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let nested = |kind: &str, field: &str| {
        let open = format!(r#"{{"type":"Sequence","{field}":["#).repeat(60);
        format!("{{{model},\"{kind}\":{open}{}}}", "]}".repeat(60))
    };
    let cases: Vec<(&str, String)> = vec![
        ("nothing", String::new()),
        ("no object", "[1, 2]".into()),
        ("no model", "{}".into()),
        ("no vocabulary", r#"{"model":{"type":"BPE"}}"#.into()),
        (
            "an id of 2^60",
            r#"{"model":{"type":"BPE","vocab":{"a":1152921504606846976},"merges":[]}}"#.into(),
        ),
        (
            "an id of 2^32-1",
            r#"{"model":{"type":"BPE","vocab":{"a":4294967295},"merges":[]}}"#.into(),
        ),
        (
            "a negative id",
            r#"{"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}"#.into(),
        ),
        (
            "an added id of 2^31",
            format!(r#"{{{model},"added_tokens":[{{"id":2147483648,"content":"x"}}]}}"#),
        ),
        (
            "a merge of three",
            r#"{"model":{"type":"BPE","vocab":{"a":0},"merges":["a a a"]}}"#.into(),
        ),
        (
            "a merge of unknown pieces",
            r#"{"model":{"type":"BPE","vocab":{"a":0},"merges":[["a","z"]]}}"#.into(),
        ),
        (
            "dropout",
            r#"{"model":{"type":"BPE","dropout":0.1,"vocab":{"a":0},"merges":[]}}"#.into(),
        ),
        (
            "an unknown model",
            r#"{"model":{"type":"Oracle","vocab":{}}}"#.into(),
        ),
        (
            "an unknown normalizer",
            format!(r#"{{{model},"normalizer":{{"type":"Polish"}}}}"#),
        ),
        (
            "an unknown decoder",
            format!(r#"{{{model},"decoder":{{"type":"Polish"}}}}"#),
        ),
        (
            "an unknown pre-tokenizer",
            format!(r#"{{{model},"pre_tokenizer":{{"type":"Polish"}}}}"#),
        ),
        (
            "a broken pattern",
            format!(
                r#"{{{model},"pre_tokenizer":{{"type":"Split","pattern":{{"Regex":"(a"}},"behavior":"Isolated"}}}}"#
            ),
        ),
        (
            "an empty pattern",
            format!(
                r#"{{{model},"normalizer":{{"type":"Replace","pattern":{{"String":""}},"content":"x"}}}}"#
            ),
        ),
        (
            "a pattern of a million states",
            format!(
                r#"{{{model},"normalizer":{{"type":"Replace","pattern":{{"Regex":"((\\w{{100}}){{100}}){{100}}"}},"content":"x"}}}}"#
            ),
        ),
        (
            "length 0",
            format!(r#"{{{model},"pre_tokenizer":{{"type":"FixedLength","length":0}}}}"#),
        ),
        (
            "a template without a text",
            format!(r#"{{{model},"post_processor":{{"type":"TemplateProcessing","single":[]}}}}"#),
        ),
        ("brackets 100 000 deep", deep),
        (
            "sequences 60 deep, empty",
            nested("normalizer", "normalizers").replace("]}]}]}]}", "]}]}]}"),
        ),
    ];
    for (name, json) in cases {
        let start = Instant::now();
        let result = Tokenizer::from_json(json.as_bytes());
        assert!(start.elapsed() < SOON, "{name}");
        match result {
            Err(Error::Malformed { .. } | Error::Limit { .. } | Error::Unsupported(_)) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn texts_that_would_grow_without_end() {
    let replace = r#"{"type":"Replace","pattern":{"String":"a"},"content":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#;
    let json = format!(
        r#"{{"model":{{"type":"WordLevel","unk_token":"u","vocab":{{"u":0}}}},
            "normalizer":{{"type":"Sequence","normalizers":[{replace},{replace},{replace},{replace},{replace},{replace}]}}}}"#
    );
    let tokenizer = Tokenizer::from_json(json.as_bytes()).unwrap();
    assert!(matches!(
        tokenizer.encode("aaaa", false),
        Err(Error::Limit { .. })
    ));
    assert_eq!(tokenizer.encode("bbb", false).unwrap(), [0]);
    let long = "b".repeat((64 << 20) + 1);
    assert!(matches!(
        tokenizer.encode(&long, false),
        Err(Error::Limit { .. })
    ));
}

#[test]
fn patterns_that_look_around_are_bounded() {
    // Exponential for a naive engine.
    let json = r#"{"model":{"type":"WordLevel","unk_token":"u","vocab":{"u":0}},
        "pre_tokenizer":{"type":"Split","pattern":{"Regex":"(?=(a+)+$)(a+)+b|x"},"behavior":"Isolated","invert":false}}"#;
    let tokenizer = Tokenizer::from_json(json.as_bytes()).unwrap();
    let start = Instant::now();
    let _ = tokenizer.encode(&"a".repeat(5000), false);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn broken_gguf_vocabularies() {
    let good = || GgufVocab {
        model: "llama".into(),
        tokens: ["<unk>", "<s>", "▁", "a", "▁a"].map(String::from).to_vec(),
        token_types: vec![2, 3, 1, 1, 1],
        scores: vec![0.0, 0.0, -1.0, -2.0, -0.5],
        bos: Some(1),
        unk: Some(0),
        ..GgufVocab::default()
    };
    assert_eq!(
        Tokenizer::from_gguf(good())
            .unwrap()
            .encode("a a", true)
            .unwrap(),
        [1, 4, 4]
    );
    let refuse = |name: &str, change: &dyn Fn(&mut GgufVocab)| {
        let mut vocab = good();
        change(&mut vocab);
        match Tokenizer::from_gguf(vocab) {
            Err(Error::Malformed { .. } | Error::Unsupported(_)) => {}
            other => panic!("{name}: {other:?}"),
        }
    };
    refuse("no tokens", &|v| v.tokens.clear());
    refuse("too few types", &|v| v.token_types.truncate(3));
    refuse("too many scores", &|v| v.scores.push(0.0));
    refuse("no scores", &|v| v.scores.clear());
    refuse("no model", &|v| v.model.clear());
    refuse("an unknown model", &|v| v.model = "rwkv".into());
    refuse("an unknown kind", &|v| {
        v.model = "gpt2".into();
        v.pre = Some("mystery".into());
    });
    refuse("a merge that is none", &|v| {
        v.model = "gpt2".into();
        v.merges = vec!["a".into()];
    });
    // Strange, but no reason to fail: ids out of range, NaN scores, one piece twice, empty pieces, odd types.
    let mut vocab = good();
    vocab.bos = Some(77);
    vocab.scores = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::NAN];
    vocab.tokens = ["", "", "a", "a", "▁a"].map(String::from).to_vec();
    vocab.token_types = vec![-5, 99, 6, 1, 4];
    let tokenizer = Tokenizer::from_gguf(vocab).unwrap();
    assert_eq!(tokenizer.bos(), None);
    use_it(&tokenizer);
}
