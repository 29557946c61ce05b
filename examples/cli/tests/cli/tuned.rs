//! `firelight tune`: what it measures is kept and used, what is broken is told and done without.

use crate::common::{Ran, firelight};
use serde_json::Value;
use std::path::Path;

fn run(cache: &Path, args: &[&str]) -> Ran {
    let mut command = firelight(args);
    command.env("FIRELIGHT_CACHE", cache);
    command.output().expect("the program starts").into()
}

/// What a run of one second measured; one number at least, whatever the time.
fn tune(cache: &Path, more: &[&str]) -> Value {
    let args = [
        "tune", "--device", "cpu", "-t", "2", "--budget", "1", "--json",
    ];
    run(cache, &[&args[..], more].concat()).ended(0).last()
}

fn used(cache: &Path) -> Value {
    let ran = run(cache, &["doctor", "--device", "cpu", "-t", "2", "--json"]);
    ran.ended(0).last()["tuning"].take()
}

#[test]
fn tuning_is_kept_and_used_until_its_file_breaks() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dry = tune(dir.path(), &["--dry-run"]);
    assert!(dry["file"].is_null(), "{dry}");
    assert!(!dir.path().join("tuning").exists());

    let told = tune(dir.path(), &[]);
    let measured = told["measured"].as_array().expect("a list");
    assert!(!measured.is_empty(), "{told}");
    for number in measured {
        assert!(number["wrong"].as_array().expect("a list").is_empty());
        let speeds = number["speeds"].as_array().expect("a list");
        // The fastest is taken, and how much faster than the default that is.
        let speed = |of: &Value| speeds.iter().find(|s| s[0] == *of).map(|s| s[1].clone());
        assert_eq!(speed(&number["value"]), Some(number["gain"].clone()));
        assert_eq!(speed(&number["default"]), Some(1.0.into()));
    }
    let others = measured.iter().filter(|n| n["value"] != n["default"]);
    let others = others.count();

    let file = Path::new(told["file"].as_str().expect("a file was kept"));
    assert!(file.starts_with(dir.path()) && file.is_file(), "{told}");
    let tuning = used(dir.path());
    assert_eq!(tuning["state"], "used", "{tuning}");
    assert_eq!(tuning["file"], told["file"]);
    assert_eq!(tuning["chosen"], others);

    std::fs::write(file, "{\"format\": 1, \"measured_on\": 7").expect("written");
    let tuning = used(dir.path());
    assert_eq!(tuning["state"], "ignored", "{tuning}");
    assert_eq!(tuning["file"], told["file"]);
}
