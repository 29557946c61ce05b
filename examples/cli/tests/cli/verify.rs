//! `firelight verify` on the tiny checkpoints, and on goldens that are wrong.

use crate::common::{arg, copy_of, fixture, run};
use std::path::Path;

fn verify(dir: &Path, more: &[&str]) -> crate::common::Ran {
    run(&[&["verify", arg(dir), "--device", "cpu"][..], more].concat())
}

#[test]
fn every_family_passes_on_the_cpu() {
    for family in ["llama", "llama2", "gemma3_text"] {
        let json = verify(&fixture(family), &["--json"]).ended(0).last();
        assert_eq!(json["passed"], true);
        let checks = json["checks"].as_array().unwrap();
        let find = |name: &str| {
            checks
                .iter()
                .find(|c| c["name"] == name)
                .unwrap_or_else(|| panic!("{name}"))
        };
        assert!(find("text.logits")["max_abs"].as_f64() < Some(1e-3));
        assert!(find("text.greedy_ids")["elements"].as_u64() >= Some(16));
        assert!(find("tokenizer.0.ids")["passed"] == true);
    }
    let table = verify(&fixture("llama"), &[]).ended(0).out;
    assert!(
        table.contains("chat.rendered") && table.contains("passed: ") && !table.contains("FAILED"),
        "{table}"
    );
}

#[test]
fn every_rung_of_the_cpu_passes() {
    for rung in ["cpu", "cpu-simd", "cpu-scalar"] {
        let json = run(&["verify", arg(&fixture("llama")), "--rung", rung, "--json"])
            .ended(0)
            .last();
        assert_eq!(json["passed"], true, "{rung}");
    }
}

#[test]
fn one_changed_number_fails() {
    let dir = copy_of("llama");
    let file = dir.path().join("golden.safetensors");
    for (name, at) in [
        ("text.logits", 4 * 1234),
        ("chat.step_logits", 0),
        ("text.greedy_ids", 8 * 15),
    ] {
        let (mut bytes, range) = crate::common::tensor(&file, name);
        let intact = bytes.clone();
        if name.ends_with("ids") {
            bytes[range.start + at] ^= 1;
        } else {
            let number = &mut bytes[range.start + at..][..4];
            let changed = f32::from_le_bytes(number.try_into().unwrap()) + 0.01;
            number.copy_from_slice(&changed.to_le_bytes());
        }
        std::fs::write(&file, &bytes).unwrap();
        let json = verify(dir.path(), &["--json"]).ended(1).last();
        let failed: Vec<_> = json["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|c| c["passed"] == false)
            .collect();
        assert!(
            failed.len() == 1 && failed[0]["name"] == name,
            "{name}: {failed:?}"
        );
        let table = verify(dir.path(), &[]).ended(1).out;
        assert!(table.contains("FAILED: 1 of"), "{table}");
        std::fs::write(&file, intact).unwrap();
    }
    verify(dir.path(), &[]).ended(0);
}

#[test]
fn a_changed_prompt_or_weight_fails() {
    let dir = copy_of("llama2");
    let json = dir.path().join("golden.json");
    let text = std::fs::read_to_string(&json).unwrap();
    let changed = text.replacen("\"prompt\": \"", "\"prompt\": \"So ", 1);
    assert_ne!(text, changed);
    std::fs::write(&json, changed).unwrap();
    verify(dir.path(), &[]).ended(1);
    std::fs::write(&json, text).unwrap();

    let weights = dir.path().join("model.safetensors");
    let (mut bytes, range) = crate::common::tensor(&weights, "model.norm.weight");
    // The exponent of one bf16 number.
    bytes[range.start + 1] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    verify(dir.path(), &[]).ended(1);
}

#[test]
fn what_is_missing_is_named() {
    let dir = copy_of("llama");
    std::fs::remove_file(dir.path().join("golden.json")).unwrap();
    assert!(verify(dir.path(), &[]).ended(1).err.contains("golden.json"));
    assert!(
        verify(Path::new("absent"), &["--json"]).ended(1).last()["message"]
            .as_str()
            .unwrap()
            .contains("absent")
    );
}

#[test]
fn the_dump_has_the_goldens_names() {
    let dir = tempfile::tempdir().unwrap();
    let dump = dir.path().join("out.safetensors");
    verify(&fixture("llama"), &["--dump", arg(&dump)]).ended(0);
    let golden = fixture("llama").join("golden.safetensors");
    for name in ["text.greedy_ids", "chat.input_ids"] {
        assert_eq!(
            crate::common::ids(&dump, name),
            crate::common::ids(&golden, name)
        );
    }
    let (a, of_a) = crate::common::tensor(&dump, "text.logits");
    let (b, of_b) = crate::common::tensor(&golden, "text.logits");
    let first = |bytes: &[u8]| f32::from_le_bytes(bytes[..4].try_into().unwrap());
    assert_eq!(of_a.len(), of_b.len());
    assert!((first(&a[of_a]) - first(&b[of_b])).abs() < 1e-3);
}
