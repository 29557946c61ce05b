//! The encoder checkpoints in `tests/data`: goldens on every device there is, batches, pooling, pairs, entities, bad files.

use firelight_runtime::encoder::{EncoderRun, Tokens, Want};
use firelight_runtime::pipelines::classify::{Classifier, ClassifyOptions, zero_shot};
use firelight_runtime::pipelines::embed::{EmbedOptions, Embedder, Long, cosine};
use firelight_runtime::pipelines::ner::{Ner, NerOptions};
use firelight_runtime::pipelines::verify::verify;
use firelight_runtime::sentence::Pooling;
use firelight_runtime::{CancelToken, DeviceChoice, Engine, EngineOptions, Error, Rung};
use firelight_testing::golden::Golden;
use firelight_testing::{gpu_or_skip, skip};
use pollster::block_on;
use serde_json::Value;
use std::path::{Path, PathBuf};

const FAMILIES: [&str; 5] = ["bert", "bert_rank", "bert_ner", "distilbert", "nomic_bert"];

fn data(family: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/data").join(family)
}

fn engine(options: EngineOptions) -> Result<Engine, Error> {
    block_on(Engine::new(options))
}

fn cpu() -> Engine {
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        self_test: false,
        ..Default::default()
    };
    engine(options).expect("a CPU")
}

fn passes(engine: &Engine, dir: &Path) {
    let report = block_on(verify(engine, dir, &mut |_| ())).expect("runs");
    let failed: Vec<_> = report.checks.iter().filter(|c| !c.passed).collect();
    assert!(
        failed.is_empty() && report.checks.len() >= 15,
        "{} on {} ({}), {} checks: {failed:#?}",
        report.family,
        report.device,
        report.rung,
        report.checks.len()
    );
    assert_eq!(report.atol, 1e-3, "on every rung");
}

#[test]
fn cpu_equals_the_reference_on_every_rung() {
    for rung in [Rung::CpuThreads, Rung::CpuSimd, Rung::CpuScalar] {
        let options = EngineOptions {
            device: DeviceChoice::Cpu,
            rung: Some(rung),
            ..Default::default()
        };
        let engine = engine(options).expect("a CPU");
        for family in FAMILIES {
            passes(&engine, &data(family));
        }
    }
}

#[test]
fn gpu_equals_the_reference_on_every_rung() {
    let name = "gpu_equals_the_reference_on_every_rung";
    for rung in [Rung::GpuF32, Rung::GpuF16, Rung::GpuF16Subgroups] {
        let options = EngineOptions {
            device: DeviceChoice::Gpu,
            rung: Some(rung),
            ..Default::default()
        };
        let opened = if rung == Rung::GpuF32 {
            gpu_or_skip(name, || engine(options))
        } else {
            engine(options).map_err(|e| skip!(name, rung, e)).ok()
        };
        let Some(engine) = opened else { continue };
        for family in FAMILIES {
            passes(&engine, &data(family));
        }
    }
}

/// A copy of a fixture in which `change` may break something.
fn altered(family: &str, change: impl FnOnce(&Path)) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).expect("the fixture").flatten() {
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                std::fs::create_dir(&to).expect("a folder");
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).expect("a copy");
            }
        }
    }
    let dir = tempfile::tempdir().expect("a folder");
    copy(&data(family), dir.path());
    change(dir.path());
    dir
}

fn edit_config(dir: &Path, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let path = dir.join("config.json");
    let text = std::fs::read(&path).expect("config");
    let mut value: Value = serde_json::from_slice(&text).expect("JSON");
    edit(value.as_object_mut().expect("an object"));
    std::fs::write(&path, value.to_string()).expect("written");
}

#[test]
fn the_published_spelling_of_nomic_bert_says_the_same() {
    let published = |dir: &Path| {
        edit_config(dir, |c| {
            let names = [
                ("hidden_size", "n_embd"),
                ("num_hidden_layers", "n_layer"),
                ("num_attention_heads", "n_head"),
                ("intermediate_size", "n_inner"),
                ("max_position_embeddings", "n_positions"),
                ("layer_norm_eps", "layer_norm_epsilon"),
            ];
            for (new, old) in names {
                let value = c.remove(new).expect("a number");
                c.insert(old.into(), value);
            }
            for key in ["hidden_act", "head_dim", "rope_parameters"] {
                c.remove(key);
            }
            c.insert("rotary_emb_base".into(), 700.into());
            c.insert("rotary_emb_fraction".into(), 1.0.into());
            c.insert("activation_function".into(), "swiglu".into());
            c.insert("qkv_proj_bias".into(), false.into());
        });
    };
    let dir = altered("nomic_bert", published);
    passes(&cpu(), dir.path());
    let dir = altered("nomic_bert", |dir| {
        published(dir);
        edit_config(dir, |c| {
            c.insert("rotary_emb_base".into(), 1000.into());
        });
    });
    let report = block_on(verify(&cpu(), dir.path(), &mut |_| ())).expect("runs");
    assert!(!report.passed(), "the base has to matter");
}

#[test]
fn a_wrong_constant_fails() {
    for (family, key, value) in [
        ("bert", "layer_norm_eps", Value::from(1e-12)),
        ("bert", "hidden_act", "quick_gelu".into()),
        ("distilbert", "n_heads", 10.into()),
        ("distilbert", "activation", "relu".into()),
    ] {
        let dir = altered(family, |dir| {
            edit_config(dir, |c| {
                c.insert(key.into(), value);
            });
        });
        // Ten heads of four elements load as well as five of eight.
        let report = block_on(verify(&cpu(), dir.path(), &mut |_| ())).expect("runs");
        assert!(!report.passed(), "{family}: {key}");
    }
}

const TEXTS: [&str; 5] = [
    "What is in this picture?",
    "Ada Lovelace and Charles Babbage lived in London; Marie Curie worked in Paris.",
    "the",
    "Naïve café, 3.14 and punctuation: please! It's easy, isn't it?",
    "",
];

#[test]
fn a_batch_of_different_lengths_equals_each_text_alone() {
    for family in ["bert", "distilbert", "nomic_bert"] {
        let engine = cpu();
        let model = block_on(engine.load_encoder(data(family), &mut |_, _| ())).expect("loads");
        let tokenizer = model.text.clone();
        let inputs: Vec<Tokens> = TEXTS
            .iter()
            .map(|text| Tokens {
                ids: tokenizer.encode_text(text).expect("encodes"),
                types: Vec::new(),
            })
            .collect();
        let run = EncoderRun::new(&engine, model);
        let cancel = CancelToken::new();
        let all = |inputs: &[Tokens], batch: usize| {
            block_on(run.run(inputs, Want::Hidden, batch, &cancel, &mut |_, _| ())).expect("runs")
        };
        let together = all(&inputs, 4096);
        // A product of few rows adds in another order than one of many.
        for (a, b) in together.concat().iter().zip(all(&inputs, 40).concat()) {
            assert!((a - b).abs() <= 1e-5, "{family}: cut into batches");
        }
        for (i, input) in inputs.iter().enumerate() {
            let alone = all(std::slice::from_ref(input), 4096);
            assert_eq!(alone[0].len(), input.ids.len() * 40);
            for (a, b) in alone[0].iter().zip(&together[i]) {
                assert!((a - b).abs() <= 1e-5, "{family}: text {i}: {a} and {b}");
            }
        }
        cancel.cancel();
        let ended = block_on(run.run(&inputs, Want::First, 8, &cancel, &mut |_, _| ()));
        assert!(matches!(ended, Err(Error::Cancelled)));
    }
}

fn embedder(family: &str) -> Embedder {
    block_on(Embedder::load(&cpu(), data(family), &mut |_, _| ())).expect("loads")
}

fn embed(embedder: &Embedder, text: &str, options: &EmbedOptions) -> Vec<f32> {
    let found = block_on(embedder.embed(&[text], options)).expect("embeds");
    found.rows[0].vector.clone()
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn what_sentence_transformers_says_is_followed() {
    let embedder = embedder("bert");
    let golden = Golden::open(data("bert")).expect("goldens");
    let (_, expected) = golden.f32("batch.mean_pooled_normalized").expect("rows");
    let texts: Vec<String> = block_on(async {
        let json = std::fs::read(data("bert").join("golden.json")).expect("goldens");
        let json: Value = serde_json::from_slice(&json).expect("JSON");
        serde_json::from_value(json["cases"]["batch"]["texts"].clone()).expect("texts")
    });
    let found = block_on(embedder.embed(&texts, &EmbedOptions::default())).expect("embeds");
    assert_eq!((found.dims, found.max_tokens), (40, 48));
    for (row, expected) in found.rows.iter().zip(expected.chunks(40)) {
        assert!(close(&row.vector, expected), "{:?}", row.text);
    }
    // Each pooling is another vector, and each of the computed ones what it says.
    let of = |pooling, normalize| EmbedOptions {
        pooling: Some(pooling),
        normalize: Some(normalize),
        ..EmbedOptions::default()
    };
    let mut seen: Vec<Vec<f32>> = Vec::new();
    for (name, pooling) in Pooling::ALL {
        let v = embed(&embedder, &texts[1], &of(pooling, true));
        let length: f32 = v.iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-5, "{name}");
        let twin = seen.iter().filter(|other| close(other, &v)).count();
        // The sum over √n has the direction of the mean.
        assert_eq!(twin, usize::from(pooling == Pooling::MeanSqrtLen), "{name}");
        seen.push(v);
    }
    let (mean, sqrt) = (of(Pooling::Mean, false), of(Pooling::MeanSqrtLen, false));
    let (mean, sqrt) = (
        embed(&embedder, &texts[0], &mean),
        embed(&embedder, &texts[0], &sqrt),
    );
    assert!(!close(&mean, &sqrt));
    // Prompts by their name, or as they are.
    let prompt = |prompt: &str| EmbedOptions {
        prompt: Some(prompt.into()),
        ..EmbedOptions::default()
    };
    let by_hand = embed(&embedder, "search query: the fox", &EmbedOptions::default());
    assert!(close(
        &embed(&embedder, "the fox", &prompt("query")),
        &by_hand
    ));
    assert!(close(
        &embed(&embedder, "the fox", &prompt("search query: ")),
        &by_hand
    ));
    assert!(!close(
        &embed(&embedder, "the fox", &EmbedOptions::default()),
        &by_hand
    ));
}

#[test]
fn long_texts_are_cut_in_pieces_or_refused_as_asked() {
    let embedder = embedder("bert");
    let model = embedder.model();
    let long = TEXTS[1].repeat(4);
    let ids = model.text.encode_text(&long).expect("encodes");
    assert!(ids.len() > 60, "{}", ids.len());
    let with = |long| EmbedOptions {
        long,
        max_tokens: Some(20),
        ..EmbedOptions::default()
    };
    let run = |options: &EmbedOptions| block_on(embedder.embed(&["the", long.as_str()], options));
    let cut = run(&with(Long::Truncate)).expect("embeds");
    assert_eq!(cut.truncated(), 1);
    assert_eq!(
        (cut.rows[1].tokens, cut.rows[1].truncated),
        (20, ids.len() - 20)
    );

    // The same by hand: special tokens stay, the text loses its end.
    let by_hand = Tokens {
        ids: [&ids[..19], &ids[ids.len() - 1..]].concat(),
        types: Vec::new(),
    };
    let run_by_hand = EncoderRun::new(&cpu(), model.clone());
    let cancel = CancelToken::new();
    let want = Want::Pooled(firelight_kernels::span_pool::Pool::Mean);
    let expected = block_on(run_by_hand.run(&[by_hand], want, 512, &cancel, &mut |_, _| ()));
    assert!((cosine(&expected.expect("runs")[0], &cut.rows[1].vector) - 1.0).abs() < 1e-5);

    let chunks = run(&with(Long::Chunks { overlap: 6 })).expect("embeds");
    assert_eq!((chunks.rows[0].text, chunks.rows[0].chunk), (0, 0));
    let pieces = &chunks.rows[1..];
    assert!(
        pieces
            .iter()
            .enumerate()
            .all(|(i, row)| (row.text, row.chunk) == (1, i))
    );
    // 18 tokens of text a piece, 12 further on each time.
    assert_eq!(pieces.len(), (ids.len() - 2 - 18).div_ceil(12) + 1);
    assert_eq!(chunks.truncated(), 0);
    let mean = run(&with(Long::Mean { overlap: 6 })).expect("embeds");
    assert_eq!(mean.rows.len(), 2);
    assert!(!close(&mean.rows[1].vector, &cut.rows[1].vector));

    let refused = run(&with(Long::Refuse)).expect_err("too long");
    assert!(matches!(refused, Error::Limit { max: 20, .. }), "{refused}");
    assert!(run(&with(Long::Chunks { overlap: 18 })).is_err());
    let none = EmbedOptions {
        max_tokens: Some(2),
        ..EmbedOptions::default()
    };
    assert!(run(&none).is_err(), "no room for the text");
}

fn classifier(family: &str) -> Classifier {
    block_on(Classifier::load(&cpu(), data(family), &mut |_, _| ())).expect("loads")
}

#[test]
fn a_cross_encoder_ranks_as_the_reference() {
    let classifier = classifier("bert_rank");
    let golden = Golden::open(data("bert_rank")).expect("goldens");
    let (_, logits) = golden.f32("pairs.logits").expect("logits");
    let query = "Who lived in London?";
    let passages = [
        "Ada Lovelace lived in London.",
        "The fox runs away from the river.",
    ];
    let options = ClassifyOptions::default();
    let rank = |passages: &[&str], options: &ClassifyOptions| {
        block_on(classifier.rerank(query, passages, options, &mut |_, _| ())).expect("ranks")
    };
    let ranked = rank(&passages, &options);
    let mut expected = [0, 1];
    expected.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    assert_eq!([ranked[0].index, ranked[1].index], expected);
    for r in &ranked {
        assert!((r.score - logits[r.index]).abs() < 1e-3, "{r:?}");
    }
    assert!(ranked[0].score > ranked[1].score);
    // A pair that is too long loses of its longer text.
    let long = passages[0].repeat(9);
    let cut = ClassifyOptions {
        max_tokens: Some(40),
        ..ClassifyOptions::default()
    };
    let ranked = rank(&[&long, passages[1]], &cut);
    assert!(ranked.iter().any(|r| r.index == 0 && r.truncated > 0));
    let one = block_on(classifier.classify(&["the fox"], &options, &mut |_, _| ())).expect("runs");
    assert!((0.0..=1.0).contains(&one[0].labels[0].score));
}

#[test]
fn a_classifier_gives_the_probabilities_of_its_labels() {
    let classifier = classifier("distilbert");
    assert_eq!(classifier.labels(), ["NEGATIVE", "POSITIVE"]);
    let golden = Golden::open(data("distilbert")).expect("goldens");
    let (_, logits) = golden.f32("single.logits").expect("logits");
    let options = ClassifyOptions::default();
    let found = block_on(classifier.classify(&TEXTS[..1], &options, &mut |_, _| ())).expect("runs");
    let labels = &found[0].labels;
    let positive = 1.0 / (1.0 + (logits[0] - logits[1]).exp());
    let found = labels
        .iter()
        .find(|l| l.label == "POSITIVE")
        .expect("there");
    assert!((found.score - positive).abs() < 1e-3);
    assert!(labels[0].score >= labels[1].score);
    let two_labels = block_on(classifier.rerank("a", &["b"], &options, &mut |_, _| ()));
    assert!(
        two_labels
            .expect_err("no ranking")
            .to_string()
            .contains("POSITIVE")
    );
    // Without a head for texts.
    for family in ["bert", "bert_ner", "nomic_bert"] {
        let Err(error) = block_on(Classifier::load(&cpu(), data(family), &mut |_, _| ())) else {
            panic!("{family} classifies");
        };
        assert!(
            error.to_string().contains("no head for whole texts"),
            "{error}"
        );
    }
}

#[test]
fn labels_of_ones_own_by_their_embeddings() {
    let embedder = embedder("bert");
    let labels = ["the fox".to_owned(), "Ada Lovelace".to_owned()];
    let options = EmbedOptions::default();
    let texts = ["Ada Lovelace", "the fox"];
    let shot = |labels: &[String], template: &str| {
        block_on(zero_shot(
            &embedder,
            &texts,
            labels,
            template,
            &options,
            &mut |_, _| (),
        ))
    };
    let found = shot(&labels, "{}").expect("runs");
    assert_eq!(found[0].labels[0].label, "Ada Lovelace");
    assert_eq!(found[1].labels[0].label, "the fox");
    assert!((found[1].labels[0].score - 1.0).abs() < 1e-4);
    assert!(shot(&[], "{}").is_err());
    assert!(shot(&labels, "about").is_err());
}

#[test]
fn entities_are_those_of_the_reference_with_their_places() {
    let json = std::fs::read(data("bert_ner").join("golden.json")).expect("goldens");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    let case = &json["cases"]["people"];
    let texts: Vec<String> = serde_json::from_value(case["texts"].clone()).expect("texts");
    let ner = block_on(Ner::load(&cpu(), data("bert_ner"), &mut |_, _| ())).expect("loads");
    assert_eq!(ner.labels().len(), 5);
    let options = NerOptions::default();
    let found = block_on(ner.entities(&texts, &options, &mut |_, _| ())).expect("runs");
    let mut compared = 0;
    for ((text, found), expected) in texts
        .iter()
        .zip(&found)
        .zip(case["entities"].as_array().expect("lists"))
    {
        let expected = expected.as_array().expect("a list");
        assert_eq!(found.len(), expected.len(), "{text:?}: {found:?}");
        for (entity, expected) in found.iter().zip(expected) {
            assert_eq!(entity.label, expected["label"].as_str().expect("a label"));
            assert_eq!(
                entity.chars.start as u64,
                expected["start"].as_u64().expect("a place"),
                "{entity:?}"
            );
            assert_eq!(
                entity.chars.end as u64,
                expected["end"].as_u64().expect("a place"),
                "{entity:?}"
            );
            assert_eq!(text[entity.bytes.clone()], entity.text);
            let score = expected["score"].as_f64().expect("a score");
            assert!((f64::from(entity.score) - score).abs() < 1e-3, "{entity:?}");
            compared += 1;
        }
    }
    assert!(compared >= 4);
    // Windows: every word of a text far beyond the model's context has a label, at its place.
    let long = texts[0].repeat(30);
    let found = block_on(ner.entities(&[&long], &options, &mut |_, _| ())).expect("runs");
    assert!(found[0].iter().all(|e| long[e.bytes.clone()] == e.text));
    assert!(
        found[0]
            .last()
            .is_some_and(|e| e.bytes.end > long.len() - 60)
    );
}

#[test]
fn bad_files_are_refused_by_the_name_of_the_field() {
    type Change = Box<dyn FnOnce(&Path)>;
    let set = |key: &'static str, value: Value| -> Change {
        Box::new(move |dir: &Path| {
            edit_config(dir, |c| {
                c.insert(key.into(), value);
            });
        })
    };
    let cases: Vec<(&str, Change, &str)> = vec![
        (
            "bert",
            set("hidden_act", "gelu_9000".into()),
            "`hidden_act` `gelu_9000`",
        ),
        (
            "bert",
            set("num_attention_heads", 7.into()),
            "num_attention_heads",
        ),
        (
            "bert",
            set("num_attention_heads", 0.into()),
            "num_attention_heads",
        ),
        ("bert", set("hidden_size", 44.into()), "hidden_size"),
        ("bert", set("hidden_size", Value::from("40")), "hidden_size"),
        ("bert", set("vocab_size", 301.into()), "word_embeddings"),
        (
            "bert",
            set("num_hidden_layers", 3.into()),
            "encoder.layer.2",
        ),
        ("bert", set("num_hidden_layers", 4000.into()), "4000 layers"),
        ("bert", set("intermediate_size", 64.into()), "intermediate"),
        ("bert", set("type_vocab_size", 3.into()), "token_type"),
        (
            "bert",
            set("position_embedding_type", "relative_key".into()),
            "relative_key",
        ),
        ("bert", set("is_decoder", true.into()), "is_decoder"),
        ("bert", set("model_type", "roberta".into()), "roberta"),
        (
            "bert_rank",
            set("id2label", serde_json::json!({"0": "a", "1": "b"})),
            "classifier",
        ),
        (
            "distilbert",
            set("activation", "sine".into()),
            "`activation` `sine`",
        ),
        ("distilbert", set("dim", 36.into()), "dim"),
        ("distilbert", set("n_heads", 3.into()), "n_heads"),
        (
            "nomic_bert",
            set("hidden_act", "relu".into()),
            "`hidden_act` `relu`",
        ),
        ("nomic_bert", set("head_dim", 16.into()), "head_dim"),
        (
            "nomic_bert",
            set("num_attention_heads", 10.into()),
            "head_dim",
        ),
        (
            "nomic_bert",
            set("rope_parameters", serde_json::json!({"rope_type": "yarn"})),
            "yarn",
        ),
        ("nomic_bert", set("n_embd", 40.into()), "n_head"),
    ];
    for (family, change, fault) in cases {
        let dir = altered(family, change);
        let message = match block_on(cpu().load_encoder(dir.path(), &mut |_, _| ())) {
            Ok(_) => panic!("{family} loaded, expected `{fault}`"),
            Err(e) => e.to_string(),
        };
        assert!(message.contains(fault), "expected `{fault}` in: {message}");
    }
    // A language model is no encoder, and the other way round.
    let Err(error) = block_on(cpu().load_encoder(data("llama"), &mut |_, _| ())) else {
        panic!("a llama embeds");
    };
    assert!(error.to_string().contains("bert"), "{error}");
    let Err(error) = block_on(cpu().load(data("bert"), &mut |_, _| ())) else {
        panic!("a bert writes");
    };
    assert!(error.to_string().contains("embed"), "{error}");
    // Steps of sentence-transformers that are not there.
    let dir = altered("bert", |dir| {
        let dense =
            serde_json::json!([{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]);
        std::fs::write(dir.join("modules.json"), dense.to_string()).expect("written");
    });
    let Err(error) = block_on(Embedder::load(&cpu(), dir.path(), &mut |_, _| ())) else {
        panic!("a dense layer was ignored");
    };
    assert!(error.to_string().contains("Dense"), "{error}");
}

#[test]
fn inputs_the_model_has_no_row_for_are_refused() {
    let engine = cpu();
    let model = block_on(engine.load_encoder(data("bert"), &mut |_, _| ())).expect("loads");
    let run = EncoderRun::new(&engine, model);
    let cancel = CancelToken::new();
    let refused = |ids: Vec<u32>, types: Vec<u32>| {
        let text = [Tokens { ids, types }];
        block_on(run.run(&text, Want::First, 64, &cancel, &mut |_, _| ())).expect_err("refused")
    };
    assert!(matches!(refused(vec![], vec![]), Error::InvalidInput(_)));
    assert!(matches!(
        refused(vec![1; 97], vec![]),
        Error::Limit {
            max: 96,
            got: 97,
            ..
        }
    ));
    assert!(matches!(refused(vec![300], vec![]), Error::InvalidInput(_)));
    assert!(matches!(refused(vec![1], vec![2]), Error::InvalidInput(_)));
    assert!(matches!(
        refused(vec![1], vec![0, 0]),
        Error::InvalidInput(_)
    ));
    let none = block_on(run.run(&[], Want::First, 64, &cancel, &mut |_, _| ())).expect("nothing");
    assert!(none.is_empty());
    let head = block_on(run.run(
        &[Tokens {
            ids: vec![1],
            types: vec![],
        }],
        Want::Logits,
        64,
        &cancel,
        &mut |_, _| (),
    ));
    assert!(matches!(head, Err(Error::Unsupported(_))));
}
