//! Embeddings, classes, rankings and entities, against the reference's.

use super::{TEXTS, cpu, data};
use firelight_runtime::encoder::{EncoderRun, Tokens, Want};
use firelight_runtime::pipelines::classify::{Classifier, ClassifyOptions, zero_shot};
use firelight_runtime::pipelines::embed::{EmbedOptions, Embedder, Long, cosine};
use firelight_runtime::pipelines::ner::{Ner, NerOptions};
use firelight_runtime::sentence::Pooling;
use firelight_runtime::{CancelToken, Error};
use firelight_testing::golden::Golden;
use pollster::block_on;
use serde_json::Value;

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
