//! The commands on a GPU, real or imitated.

use crate::common::{arg, fixture, ids, numbers, run};
use serde_json::Value;

/// What doctor knows of every rung, or why there is no GPU.
fn doctor(test: &str) -> Option<Value> {
    firelight_testing::gpu_or_skip(test, || {
        let ran = run(&["doctor", "--device", "gpu", "--all", "--json"]);
        let json = ran.last();
        match (ran.code, json["error"].as_str()) {
            (Some(0), None) => Ok(json),
            (_, Some(error)) => Err(error.to_owned()),
            _ => panic!("doctor failed: {json}"),
        }
    })
}

/// The GPU rungs that are here.
fn rungs(doctor: &Value) -> Vec<&str> {
    let proofs = doctor["self_test"].as_array().expect("self_test");
    let here = proofs.iter().filter(|p| !p["device"].is_null());
    here.filter_map(|p| p["rung"].as_str())
        .filter(|r| r.starts_with("gpu"))
        .collect()
}

#[test]
fn every_rung_of_the_gpu_passes_verification() {
    let Some(doctor) = doctor("every_rung_of_the_gpu_passes_verification") else {
        return;
    };
    let rungs = rungs(&doctor);
    assert!(rungs.contains(&"gpu-f32"), "{rungs:?}");
    for rung in rungs {
        let ran = run(&["verify", arg(&fixture("llama")), "--rung", rung, "--json"]).ended(0);
        let json = ran.last();
        assert_eq!(
            (json["rung"].as_str(), &json["passed"]),
            (Some(rung), &true.into())
        );
    }
}

#[test]
fn doctor_describes_the_adapter() {
    let Some(doctor) = doctor("doctor_describes_the_adapter") else {
        return;
    };
    let adapter = &doctor["adapters"][0];
    assert!(adapter["name"].as_str().is_some_and(|n| !n.is_empty()));
    assert!(adapter["software"].is_boolean() && adapter["max_binding"].as_u64() >= Some(128 << 20));
    let absent = run(&["doctor", "--device", "gpu", "--adapter", "99"]).ended(1);
    assert!(absent.out.contains("no adapter 99"), "{}", absent.out);
}

#[test]
fn a_gpu_in_f32_says_what_the_reference_says() {
    if doctor("a_gpu_in_f32_says_what_the_reference_says").is_none() {
        return;
    }
    let model = fixture("llama");
    let args = [
        "chat",
        "-m",
        arg(&model),
        "--rung",
        "gpu-f32",
        "--json",
        "--greedy",
        "--ignore-eos",
    ];
    let question = [
        "-n",
        "16",
        "--system",
        "You are a helpful model.",
        "What is in this picture?",
    ];
    let done = run(&[&args[..], &question].concat()).ended(0).last();
    assert_eq!(done["rung"], "gpu-f32");
    assert_eq!(
        numbers(&done["ids"]),
        ids(&model.join("golden.safetensors"), "chat.greedy_ids")
    );
}
