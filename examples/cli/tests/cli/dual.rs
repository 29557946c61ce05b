//! `firelight embed --image`, `classify` with pictures, `search`, on the tiny CLIP and SigLIP checkpoints.

use crate::common::{arg, fixture, run, tensor};
use serde_json::Value;
use std::path::Path;

fn cpu<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &["--device", "cpu"]].concat()
}

fn floats(value: &Value) -> Vec<f32> {
    let list = value.as_array().expect("a list").iter();
    list.map(|v| v.as_f64().expect("a number") as f32).collect()
}

fn golden(family: &str, name: &str) -> Vec<f32> {
    let (bytes, range) = tensor(&fixture(family).join("golden.safetensors"), name);
    let numbers = bytes[range].chunks_exact(4);
    numbers
        .map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")))
        .collect()
}

#[test]
fn pictures_and_texts_become_the_references_vectors() {
    for (family, dims) in [("clip", 40), ("siglip", 64)] {
        let model = fixture(family);
        let pictures = ["input.png", "input2.png"].map(|name| model.join(name));
        let args = [
            "embed",
            "What is in this picture?",
            "--model",
            arg(&model),
            "--json",
            "--image",
            arg(&pictures[0]),
            arg(&pictures[1]),
        ];
        let json = run(&cpu(&args)).ended(0).last();
        assert_eq!(json["dims"], dims);
        let rows = json["embeddings"].as_array().expect("rows");
        let mut found = floats(&rows[0]["vector"]);
        let mut expected = golden(family, "pair.text_embeds")[..dims].to_vec();
        for row in &rows[1..] {
            found.extend(floats(&row["vector"]));
        }
        expected.extend(golden(family, "pair.image_embeds"));
        assert_eq!(found.len(), expected.len());
        let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f32::max) < 1e-4, "{family}");
        assert!(
            rows[1]["image"]
                .as_str()
                .expect("a path")
                .ends_with("input.png")
        );
    }
    // A broken picture does not stop the others, and the exit code tells.
    let (model, dir) = (fixture("clip"), tempfile::tempdir().expect("a folder"));
    let npy = dir.path().join("out.npy");
    let args = [
        "embed",
        "--image",
        arg(&model.join("config.json")),
        arg(&model.join("input.png")),
        "--model",
        arg(&model),
        "--out",
        arg(&npy),
    ]
    .map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ran = run(&cpu(&args)).ended(1);
    assert!(
        ran.err.contains("config.json") && ran.err.contains("PNG, JPEG"),
        "{}",
        ran.err
    );
    let file = std::fs::read(&npy).expect("vectors");
    assert!(String::from_utf8_lossy(&file[..80]).contains("(1, 40)"));
    // A model of texts alone says so, and none is guessed.
    let bert = fixture("bert");
    let picture = model.join("input.png");
    let ran = run(&cpu(&[
        "embed",
        "--image",
        arg(&picture),
        "--model",
        arg(&bert),
    ]))
    .ended(1);
    assert!(ran.err.contains("texts alone"), "{}", ran.err);
    let ran = run(&cpu(&["embed", "--image", arg(&picture)])).ended(2);
    assert!(ran.err.contains("--model"), "{}", ran.err);
}

#[test]
fn pictures_get_labels_and_texts_still_do() {
    let probability = |logits: &[f32], i: usize, sigmoid: bool| match sigmoid {
        true => 1.0 / (1.0 + (-logits[i]).exp()),
        false => logits[i].exp() / logits.iter().map(|x| x.exp()).sum::<f32>(),
    };
    for family in ["clip", "siglip"] {
        let model = fixture(family);
        let (a, b) = (model.join("input.png"), model.join("input2.png"));
        // The goldens' texts have commas in them: one has none.
        let labels = "What is in this picture?,the fox";
        let args = [
            "classify",
            "--labels",
            labels,
            "--template",
            "{}",
            arg(&a),
            arg(&b),
            "--model",
            arg(&model),
            "--json",
        ];
        let json = run(&cpu(&args)).ended(0).last();
        let results = json["results"].as_array().expect("results");
        assert_eq!(results.len(), 2);
        let logits = golden(family, "pair.logits_per_image");
        for (result, logits) in results.iter().zip(logits.chunks(3)) {
            let labels = result["labels"].as_array().expect("labels");
            let first = labels
                .iter()
                .find(|l| l["label"] == "What is in this picture?");
            let score = first.expect("there")["score"].as_f64().expect("a number") as f32;
            let sum: f64 = labels.iter().filter_map(|l| l["score"].as_f64()).sum();
            match family {
                "siglip" => assert!((score - probability(logits, 0, true)).abs() < 1e-4),
                _ => assert!((sum - 1.0).abs() < 1e-5),
            }
        }
        let shown = run(&cpu(&[
            "classify",
            "--labels",
            "cat,dog",
            arg(&a),
            "--model",
            arg(&model),
        ]))
        .ended(0)
        .out;
        assert!(
            shown.contains("cat 0.") && shown.contains("input.png"),
            "{shown}"
        );
    }
    // A text is a text.
    let model = fixture("clip");
    let args = [
        "classify",
        "--labels",
        "the fox,Paris",
        "the fox",
        "--model",
        arg(&model),
        "--json",
    ];
    let json = run(&cpu(&args)).ended(0).last();
    assert_eq!(json["results"][0]["labels"][0]["label"], "the fox");
    let ran = run(&cpu(&[
        "classify",
        "--labels",
        "a,b",
        "gone.png",
        "--model",
        arg(&model),
    ]))
    .ended(1);
    assert!(ran.err.contains("gone.png"), "{}", ran.err);
    let ran = run(&cpu(&["classify", "--labels", "a,b", "gone.png"])).ended(2);
    assert!(ran.err.contains("--model"), "{}", ran.err);
}

#[test]
fn a_folder_is_searched() {
    let model = fixture("clip");
    let dir = tempfile::tempdir().expect("a folder");
    let (photos, index) = (dir.path().join("photos"), dir.path().join("my.index"));
    std::fs::create_dir_all(photos.join("deep")).expect("made");
    let copy = |from: &str, to: &str| {
        std::fs::copy(model.join(from), photos.join(to)).expect("copied");
    };
    copy("input.png", "one.png");
    copy("input2.png", "deep/two.png");
    copy("config.json", "bad.jpg");
    let search = |folder: &Path, more: &[&str]| {
        let args = [
            &["search", arg(folder)],
            more,
            &[
                "--model",
                arg(&model),
                "--index",
                arg(&index),
                "--device",
                "cpu",
            ],
        ]
        .concat();
        run(&args)
    };
    let json = search(&photos, &["red bicycle", "--json"]).ended(0).last();
    assert_eq!(json["index"]["encoded"], 2);
    assert_eq!(json["failed"][0]["path"], "bad.jpg");
    let matches = json["matches"].as_array().expect("matches");
    assert_eq!(matches.len(), 2);
    assert!(matches[0]["similarity"].as_f64() >= matches[1]["similarity"].as_f64());
    // The second time nothing is encoded, and the answer is the same.
    let again = search(&photos, &["red bicycle", "--json"]).ended(0).last();
    assert_eq!(again["index"]["encoded"], 0);
    assert_eq!(again["matches"], json["matches"]);
    // A picture finds itself.
    let itself = model.join("input2.png");
    let found = search(&photos, &["--image", arg(&itself), "-k", "1"]).ended(0);
    assert!(
        found.out.starts_with("1.0000") && found.out.contains("two.png"),
        "{}",
        found.out
    );
    assert!(found.err.contains("bad.jpg"), "{}", found.err);
    let only = search(&photos, &[]).ended(0);
    assert!(
        only.out.is_empty() && only.err.contains("2 pictures"),
        "{}",
        only.err
    );

    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).expect("made");
    let ran = search(&empty, &["x"]).ended(1);
    assert!(ran.err.contains("no picture"), "{}", ran.err);
    let ran = search(&dir.path().join("nowhere"), &["x"]).ended(1);
    assert!(ran.err.contains("nowhere"), "{}", ran.err);
    let ran = run(&["search", arg(&photos), "x"]).ended(2);
    assert!(ran.err.contains("--model"), "{}", ran.err);
}
