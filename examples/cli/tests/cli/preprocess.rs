//! `firelight preprocess`.

use crate::common::{arg, run};
use std::path::{Path, PathBuf};

fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates/vision/tests/data/decode")
        .join(name)
}

fn config(dir: &Path, json: &str) -> PathBuf {
    let file = dir.join("preprocessor_config.json");
    std::fs::write(&file, json).unwrap();
    file
}

#[test]
fn tensors_are_written_under_the_references_names() {
    let dir = tempfile::tempdir().unwrap();
    let qwen = config(
        dir.path(),
        r#"{"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 8, "size": {"shortest_edge": 1024, "longest_edge": 9216}}"#,
    );
    let (a, b, out) = (
        picture("rgb8.png"),
        picture("444.jpg"),
        dir.path().join("x.safetensors"),
    );
    let views = dir.path().join("views");
    let ran = run(&[
        "preprocess",
        arg(&a),
        arg(&b),
        "--processor",
        arg(dir.path()),
        "--out",
        arg(&out),
        "--views",
        arg(&views),
        "--json",
    ])
    .ended(0)
    .last();
    let tokens: Vec<u64> = ran["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(ran["images"][0]["width"], 19);
    assert_eq!(ran["tensors"][1]["name"], "image_grid_thw");
    assert_eq!(ran["tensors"][1]["dtype"], "i64");
    let file = std::fs::read(&out).unwrap();
    let header = String::from_utf8_lossy(&file[8..400]);
    assert!(
        header.contains("pixel_values") && header.contains("image_grid_thw"),
        "{header}"
    );
    assert_eq!(
        ran["tensors"][0]["shape"][0].as_u64().unwrap(),
        tokens.iter().sum::<u64>() * 4
    );
    assert_eq!(std::fs::read_dir(&views).unwrap().count(), 2);
    // A smaller budget makes fewer tokens; headers alone are enough to tell.
    let less = run(&[
        "preprocess",
        arg(&b),
        "-p",
        arg(&qwen),
        "--budget",
        "6",
        "--json",
    ])
    .ended(0)
    .last();
    assert!(
        less["images"][0]["tokens"].as_u64().unwrap() + 2 <= 6,
        "{less}"
    );
    assert_eq!(less["tensors"].as_array().unwrap().len(), 0);
    let text = run(&["preprocess", arg(&a), "-p", arg(&qwen)]).ended(0).out;
    assert!(text.contains("patches") && text.contains("--out"), "{text}");
}

#[test]
fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let good = picture("rgb8.png");
    let ran = run(&["preprocess", arg(&good), "-p", arg(dir.path())]).ended(1);
    assert!(ran.err.contains("preprocessor_config.json"), "{}", ran.err);
    let clip = config(
        dir.path(),
        r#"{"image_processor_type": "CLIPImageProcessor"}"#,
    );
    let missing = dir.path().join("none.png");
    let ran = run(&["preprocess", arg(&missing), "-p", arg(&clip)]).ended(1);
    assert!(ran.err.contains("none.png"), "{}", ran.err);
    let text = dir.path().join("text.png");
    std::fs::write(&text, "not a picture").unwrap();
    let ran = run(&["preprocess", arg(&text), "-p", arg(&clip), "--json"]).ended(1);
    assert!(
        ran.last()["message"]
            .as_str()
            .unwrap()
            .contains("PNG, JPEG"),
        "{}",
        ran.out
    );
    let ran = run(&[
        "preprocess",
        arg(&good),
        "-p",
        arg(&clip),
        "--max-pixels",
        "9",
    ])
    .ended(2);
    assert!(ran.err.contains("max_pixels"), "{}", ran.err);
    config(
        dir.path(),
        r#"{"image_processor_type": "NobodysImageProcessor"}"#,
    );
    let ran = run(&["preprocess", arg(&good), "-p", arg(&clip)]).ended(1);
    assert!(ran.err.contains("NobodysImageProcessor"), "{}", ran.err);
}
