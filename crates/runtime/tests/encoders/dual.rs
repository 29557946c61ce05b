//! Models of texts and pictures: vectors of both, labels for pictures, folders searched by words.

use super::{altered, cpu, data, edit_config};
use firelight_runtime::encoder::{EncoderRun, Texts, Want};
use firelight_runtime::pipelines::embed::{EmbedOptions, Embedder, cosine, normalize};
use firelight_runtime::pipelines::pictures::PictureOptions;
use firelight_runtime::pipelines::search::PictureIndex;
use firelight_runtime::pipelines::verify::verify;
use firelight_runtime::{CancelToken, Error};
use firelight_testing::golden::Golden;
use firelight_vision::Image;
use pollster::block_on;
use serde_json::Value;
use std::path::Path;

const FAMILIES: [&str; 2] = ["clip", "siglip"];

fn embedder(dir: impl AsRef<Path>) -> Embedder {
    block_on(Embedder::load(&cpu(), dir, &mut |_, _| ())).expect("loads")
}

fn picture(family: &str, name: &str) -> Image {
    let bytes = std::fs::read(data(family).join(name)).expect("a picture");
    firelight_vision::decode(&bytes).expect("decodes")
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4)
}

fn texts(family: &str) -> Vec<String> {
    let json = std::fs::read(data(family).join("golden.json")).expect("goldens");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    serde_json::from_value(json["cases"]["pair"]["texts"].clone()).expect("texts")
}

#[test]
fn vectors_and_labels_equal_the_reference() {
    for family in FAMILIES {
        let embedder = embedder(data(family));
        let golden = Golden::open(data(family)).expect("goldens");
        let (_, text_embeds) = golden.f32("pair.text_embeds").expect("rows");
        let (_, image_embeds) = golden.f32("pair.image_embeds").expect("rows");
        let (_, logits) = golden.f32("pair.logits_per_image").expect("rows");
        let labels = texts(family);
        let found = block_on(embedder.embed(&labels, &EmbedOptions::default())).expect("embeds");
        assert_eq!(found.dims, embedder.dims());
        // Longer ones are cut as the reference cuts them, and said to be.
        assert_eq!(found.max_tokens, 32);
        assert!(close(&found.vectors().concat(), text_embeds), "{family}");
        let pictures = ["input.png", "input2.png"].map(|name| picture(family, name));
        let options = PictureOptions::default();
        let vectors = block_on(embedder.embed_pictures(&pictures, &options)).expect("embeds");
        assert!(close(&vectors.concat(), image_embeds), "{family}");
        let raw = PictureOptions {
            raw: true,
            batch: Some(1),
            ..PictureOptions::default()
        };
        let mut raw = block_on(embedder.embed_pictures(&pictures, &raw)).expect("embeds");
        assert!(!close(&raw.concat(), &vectors.concat()), "{family}");
        raw.iter_mut().for_each(|v| normalize(v));
        assert!(close(&raw.concat(), &vectors.concat()), "one by one");
        let ranked = block_on(embedder.label_pictures(&pictures, &labels, "{}", &options));
        for (ranked, logits) in ranked
            .expect("labels")
            .iter()
            .zip(logits.chunks(labels.len()))
        {
            let probability = |i: usize| match family {
                "siglip" => 1.0 / (1.0 + (-logits[i]).exp()),
                _ => logits[i].exp() / logits.iter().map(|x| x.exp()).sum::<f32>(),
            };
            assert!(ranked.windows(2).all(|w| w[0].score >= w[1].score));
            for label in ranked {
                let i = labels
                    .iter()
                    .position(|l| *l == label.label)
                    .expect("known");
                assert!(
                    (label.score - probability(i)).abs() < 1e-4,
                    "{family} {label:?}"
                );
            }
        }
    }
}

#[test]
fn a_batch_of_pictures_equals_each_alone() {
    for family in FAMILIES {
        let engine = cpu();
        let model = block_on(engine.load_encoder(data(family), &mut |_, _| ())).expect("loads");
        let sizes = [(1, 1), (61, 7), (48, 48), (3, 97), (200, 150)];
        let pictures: Vec<Image> = sizes
            .iter()
            .map(|&(w, h)| {
                let rgb = (0..w * h * 3).map(|i| (i * 37 % 251) as u8).collect();
                Image::new(w, h, rgb).expect("a picture")
            })
            .collect();
        let prepared: Vec<_> = pictures
            .iter()
            .map(|p| model.prepare(p).expect("prepares"))
            .collect();
        let run = EncoderRun::new(&engine, model);
        for want in [Want::Hidden, Want::Pooler] {
            let all = |batch| {
                let cancel = CancelToken::new();
                block_on(run.run_pictures(&prepared, want, batch, &cancel, &mut |_, _| ()))
                    .expect("runs")
            };
            let (one, two, five) = (all(1), all(2), all(5));
            for i in 0..5 {
                assert!(
                    close(&one[i], &two[i]) && close(&one[i], &five[i]),
                    "{family} {i}"
                );
            }
            assert!(!close(&one[0], &one[1]));
        }
        let cancel = CancelToken::new();
        cancel.cancel();
        let ended = block_on(run.run_pictures(&prepared, Want::Pooler, 1, &cancel, &mut |_, _| ()));
        assert!(matches!(ended, Err(Error::Cancelled)));
    }
}

#[test]
fn every_constant_matters() {
    let set = |tower: &'static str, key: &'static str, value: Value| {
        move |dir: &Path| {
            edit_config(dir, |c| {
                let tower = c.get_mut(tower).and_then(Value::as_object_mut);
                tower.expect("a tower").insert(key.into(), value);
            });
        }
    };
    for family in FAMILIES {
        for (tower, key, value) in [
            ("text_config", "hidden_act", Value::from("relu")),
            ("vision_config", "hidden_act", "relu".into()),
            ("text_config", "num_attention_heads", 8.into()),
            ("vision_config", "num_attention_heads", 2.into()),
            ("vision_config", "layer_norm_eps", 0.05.into()),
        ] {
            let dir = altered(family, set(tower, key, value));
            let report = block_on(verify(&cpu(), dir.path(), &mut |_| ())).expect("runs");
            assert!(!report.passed(), "{family} {tower} {key}");
        }
    }
}

#[test]
fn damaged_checkpoints_are_refused_with_their_fault() {
    let fault = |family: &str, change: &dyn Fn(&Path)| {
        let dir = altered(family, |dir| change(dir));
        match block_on(Embedder::load(&cpu(), dir.path(), &mut |_, _| ())) {
            Ok(_) => panic!("loaded"),
            Err(e) => e.to_string(),
        }
    };
    let tower = |tower: &'static str, key: &'static str, value: Value| {
        move |dir: &Path| {
            edit_config(dir, |c| {
                let tower = c.get_mut(tower).and_then(Value::as_object_mut);
                tower.expect("a tower").insert(key.into(), value.clone());
            });
        }
    };
    let remove = |name: &'static str| {
        move |dir: &Path| std::fs::remove_file(dir.join(name)).expect("removed")
    };
    for (family, change, part) in [
        (
            "clip",
            &remove("preprocessor_config.json") as &dyn Fn(&Path),
            "preprocessor_config.json",
        ),
        (
            "clip",
            &tower("vision_config", "image_size", 0.into()),
            "image_size",
        ),
        (
            "clip",
            &tower("vision_config", "patch_size", 49.into()),
            "patch_size",
        ),
        (
            "clip",
            &tower("vision_config", "patch_size", 8.into()),
            "shape",
        ),
        (
            "clip",
            &tower("vision_config", "num_channels", 4.into()),
            "num_channels",
        ),
        (
            "clip",
            &tower("text_config", "max_position_embeddings", 31.into()),
            "max_position_embeddings",
        ),
        (
            "clip",
            &tower("text_config", "hidden_act", "mish".into()),
            "mish",
        ),
        (
            "siglip",
            &tower("vision_config", "vision_use_head", false.into()),
            "vision_use_head",
        ),
        (
            "siglip",
            &tower("text_config", "projection_size", 32.into()),
            "agree",
        ),
    ] {
        let said = fault(family, change);
        assert!(said.contains(part), "{family} {part}: {said}");
    }
    // A processor of other sizes is noticed where a picture meets it.
    let dir = altered("clip", |dir| {
        let path = dir.join("preprocessor_config.json");
        let text = std::fs::read_to_string(&path).expect("a processor");
        std::fs::write(path, text.replace("48", "40")).expect("written");
    });
    let wrong = embedder(dir.path())
        .model()
        .prepare(&picture("clip", "input.png"));
    assert!(wrong.is_err_and(|e| e.to_string().contains("preprocessor_config.json")));
    // And a model of texts alone sees nothing.
    let bert = embedder(data("bert"));
    assert!(bert.pictures().is_none());
    assert_eq!(bert.model().model.spec().texts, Texts::Whole);
    let none = block_on(bert.embed_pictures(&[], &PictureOptions::default()));
    assert!(matches!(none, Err(Error::Unsupported(_))));
}

#[test]
fn a_folder_is_indexed_once_and_searched_by_words() {
    let embedder = embedder(data("clip"));
    let dir = tempfile::tempdir().expect("a folder");
    let (photos, file) = (
        dir.path().join("photos"),
        dir.path().join("cache/photos.index"),
    );
    let copy = |from: &str, to: &str| {
        let to = photos.join(to);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        std::fs::copy(data("clip").join(from), to).expect("copied");
    };
    copy("input.png", "a.png");
    copy("input2.png", "deep/er/b.PNG");
    copy("config.json", "broken.jpg");
    copy("config.json", "notes.txt");
    copy("input.png", ".hidden/c.png");
    let open = || PictureIndex::open(&file, &photos, &embedder.model()).expect("opens");
    let update = |index: &mut PictureIndex| {
        block_on(index.update(&embedder, &CancelToken::new(), &mut |_, _| ())).expect("updates")
    };
    let counts = |u: firelight_runtime::pipelines::search::Update| {
        (u.pictures, u.encoded, u.failed, u.removed)
    };

    let mut index = open();
    assert_eq!(counts(update(&mut index)), (2, 2, 1, 0));
    let paths: Vec<&str> = index.entries().iter().map(|e| e.path.as_str()).collect();
    assert_eq!(paths, ["a.png", "broken.jpg", "deep/er/b.PNG"]);
    let (path, why) = index.failed().next().expect("a failure");
    assert!(path == "broken.jpg" && why.contains("PNG, JPEG"), "{why}");

    // The vectors are those of the pictures, and the order is that of the cosines.
    let words = block_on(embedder.embed(&["red bicycle"], &EmbedOptions::default()));
    let query = words.expect("embeds").vectors().remove(0);
    let pictures = ["input.png", "input2.png"].map(|name| picture("clip", name));
    let vectors = block_on(embedder.embed_pictures(&pictures, &PictureOptions::default()));
    let mut expected: Vec<(f32, &str)> = vectors
        .expect("embeds")
        .iter()
        .zip(["a.png", "deep/er/b.PNG"])
        .map(|(v, path)| (cosine(&query, v), path))
        .collect();
    expected.sort_by(|a, b| b.0.total_cmp(&a.0));
    let hits = index.search(&query, 5);
    assert_eq!(hits.len(), 2);
    for (hit, (similarity, path)) in hits.iter().zip(expected) {
        assert_eq!(hit.path, path);
        assert!((hit.similarity - similarity).abs() < 1e-5);
    }
    assert_eq!(index.search(&query, 1), hits[..1]);

    // Nothing is encoded again: not a second time, not when a file moved, was copied or only touched.
    let saved = std::fs::read(&file).expect("the index");
    let mut again = open();
    assert_eq!(counts(update(&mut again)), (2, 0, 1, 0));
    assert_eq!(again.entries(), index.entries());
    assert_eq!(std::fs::read(&file).expect("the index"), saved);
    std::fs::rename(photos.join("a.png"), photos.join("z.png")).expect("renamed");
    copy("input2.png", "copy.png");
    assert_eq!(counts(update(&mut again)), (3, 0, 1, 1));
    assert_eq!(again.search(&query, 9).len(), 3);
    // A file whose content changed is encoded, one that is gone is forgotten, a mended one is tried.
    std::fs::remove_file(photos.join("copy.png")).expect("removed");
    copy("input.png", "broken.jpg");
    let grey = Image::filled(50, 40, [120, 130, 140]).expect("a picture");
    std::fs::write(photos.join("z.png"), grey.to_png().expect("a PNG")).expect("written");
    let mut third = open();
    // The mended one has the content that z.png had, and z.png is new.
    assert_eq!(counts(update(&mut third)), (3, 1, 0, 1));

    // Another model's index is not used, nor a broken one; both are said and made anew.
    let siglip = self::embedder(data("siglip"));
    let mut other = PictureIndex::open(&file, &photos, &siglip.model()).expect("opens");
    assert!(
        other
            .discarded()
            .is_some_and(|why| why.contains("another model"))
    );
    let made = block_on(other.update(&siglip, &CancelToken::new(), &mut |_, _| ()));
    assert_eq!(made.expect("updates").encoded, 3);
    let whole = std::fs::read(&file).expect("the index");
    for cut in [0, 7, 40, whole.len() - 9] {
        std::fs::write(&file, &whole[..cut]).expect("written");
        let index = PictureIndex::open(&file, &photos, &siglip.model()).expect("opens");
        assert!(
            index.discarded().is_some() && index.entries().is_empty(),
            "{cut}"
        );
    }
    let missing = PictureIndex::open(&file, dir.path().join("nowhere"), &siglip.model());
    assert!(missing.is_err_and(|e| e.to_string().contains("nowhere")));
    // What is done when the work is cancelled is kept.
    let cancel = CancelToken::new();
    cancel.cancel();
    let mut index = open();
    let ended = block_on(index.update(&embedder, &cancel, &mut |_, _| ()));
    assert!(matches!(ended, Err(Error::Cancelled)));
    assert!(open().discarded().is_none());
}

#[test]
fn pictures_that_cannot_be_read_do_not_stop_the_others() {
    let embedder = embedder(data("clip"));
    let good = picture("clip", "input.png");
    let open = move |i: usize| match i % 3 {
        1 => Err(Error::invalid(format!("number {i}"))),
        _ => Ok(good.clone()),
    };
    let options = PictureOptions {
        batch: Some(4),
        ..PictureOptions::default()
    };
    let mut seen = vec![0; 20];
    let mut each = |i: usize, vector: Result<Vec<f32>, Error>| {
        assert_eq!(vector.is_err(), i % 3 == 1);
        seen[i] += 1;
        Ok(())
    };
    block_on(embedder.embed_each(20, open, &options, &mut each)).expect("runs");
    assert_eq!(seen, [1; 20]);
}
