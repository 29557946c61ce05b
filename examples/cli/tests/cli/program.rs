//! Every command: help, wrong use, exit codes, JSON keys.

use crate::common::{arg, fixture, run};

const COMMANDS: [&str; 6] = ["chat", "models", "doctor", "bench", "perplexity", "verify"];

#[test]
fn help_teaches() {
    let help = run(&["--help"]).ended(0);
    for command in COMMANDS {
        assert!(help.out.contains(command), "{command}");
        let own = run(&[command, "--help"]).ended(0);
        assert!(own.out.contains("Examples:"), "{command}: {}", own.out);
    }
    assert!(run(&["--version"]).ended(0).out.starts_with("firelight "));
}

#[test]
fn wrong_use_ends_with_2() {
    for args in [
        &[][..],
        &["sing"],
        &["chat", "--colour", "red", "x"],
        &["chat", "--threads", "0", "x"],
        &["chat", "--temperature", "-1", "x"],
        &["chat", "--top-p", "0", "x"],
        &["chat", "--stop", "", "x"],
        &["chat", "--raw", "--system", "s", "x"],
        &["chat", "--ctx", "0", "x"],
        &["chat", ""],
        &["perplexity"],
        &["perplexity", "--ids", "1,two"],
        &["bench", "--quant", "q8"],
        &["verify"],
        &["models", "rm"],
    ] {
        let ran = run(args).ended(2);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{args:?}");
    }
}

#[test]
fn an_unknown_rung_lists_the_known_ones() {
    let ran = run(&["chat", "--rung", "gpu-f64", "x"]).ended(2);
    for rung in [
        "gpu-f16-subgroups",
        "gpu-f16",
        "gpu-f32",
        "cpu",
        "cpu-simd",
        "cpu-scalar",
    ] {
        assert!(ran.err.contains(rung), "{}", ran.err);
    }
}

#[test]
fn an_unknown_model_suggests_a_known_one() {
    let ran = run(&["chat", "-m", "smolm2-135m-instruct", "hi"]).ended(1);
    assert!(
        ran.err.contains("did you mean \"smollm2-135m-instruct\""),
        "{}",
        ran.err
    );
    assert!(ran.out.is_empty());
    let json = run(&["chat", "-m", "smolm2-135m-instruct", "hi", "--json"])
        .ended(1)
        .last();
    assert_eq!(json["type"], "error");
    assert!(
        json["message"].as_str().unwrap().contains("did you mean"),
        "{json}"
    );
}

#[test]
fn device_flags_that_contradict_each_other_are_refused() {
    for (flags, why) in [
        (["--device", "cpu", "--rung", "gpu-f32"], "rung of the GPU"),
        (["--device", "gpu", "--rung", "cpu"], "rung of the CPU"),
        (["--device", "cpu", "--adapter", "0"], "no --adapter"),
    ] {
        for command in [&["chat", "x"][..], &["doctor"], &["bench"]] {
            let ran = run(&[command, &flags].concat()).ended(2);
            assert!(ran.err.contains(why), "{command:?} {flags:?}: {}", ran.err);
        }
    }
}

#[test]
fn offline_and_absent_says_what_to_do() {
    let ran = run(&["chat", "--device", "cpu", "hi"]).ended(1);
    assert!(ran.err.contains("FIRELIGHT_OFFLINE"), "{}", ran.err);
    let ran = run(&["chat", "--device", "cpu", "-m", "./absent.gguf", "hi"]).ended(1);
    assert!(ran.err.contains("absent.gguf"), "{}", ran.err);
}

#[test]
fn a_damaged_model_is_an_error_and_no_crash() {
    let dir = crate::common::copy_of("llama");
    let weights = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    for (what, damaged) in [
        ("cut", &bytes[..bytes.len() / 2]),
        ("empty", &[][..]),
        ("magic", &[0xff; 64][..]),
    ] {
        std::fs::write(&weights, damaged).unwrap();
        let ran = run(&[
            "chat",
            "--device",
            "cpu",
            "-m",
            arg(dir.path()),
            "hi",
            "--json",
        ])
        .ended(1);
        assert!(
            ran.err.starts_with("error: cannot load"),
            "{what}: {}",
            ran.err
        );
        assert_eq!(ran.last()["type"], "error");
    }
}

#[test]
fn models_without_any_fetched() {
    let list = run(&["models", "list"]).ended(0);
    assert!(
        list.out.contains("smollm2-135m-instruct") && list.out.contains("not fetched"),
        "{}",
        list.out
    );
    assert!(list.out.contains("Apache-2.0"), "{}", list.out);
    let json = run(&["models", "list", "--json"]).ended(0).last();
    let models = json["models"].as_array().unwrap();
    assert!(
        models
            .iter()
            .any(|m| m["name"] == "gemma-3-270m" && m["cached"] == false)
    );
    let path = run(&["models", "path", "smollm2"]).ended(1);
    assert!(
        path.out.is_empty() && path.err.contains("not found"),
        "{}",
        path.err
    );
    assert_eq!(
        run(&["models", "verify", "smollm2", "--json"])
            .ended(1)
            .last()["files"][0]["state"],
        "missing"
    );
    // The model in the program may be in the folder: other tests use it.
    let there = run(&["models", "verify", "--json"]).ended(0).last();
    let there = there["files"].as_array().unwrap();
    assert!(
        there.iter().all(|f| f["model"] == "firelight-spark"),
        "{there:?}"
    );
    assert!(
        run(&["models", "rm", "smollm2"])
            .ended(0)
            .out
            .contains("was not here")
    );
    assert!(
        run(&["models", "rm", "./file.gguf"])
            .ended(1)
            .err
            .contains("yours to delete")
    );
    assert_eq!(
        run(&["models", "fetch", "smollm2", "--json"])
            .ended(1)
            .last()["type"],
        "error"
    );
}

#[test]
fn doctor_proves_the_cpu() {
    let json = run(&["doctor", "--device", "cpu", "--threads", "1", "--json"])
        .ended(0)
        .last();
    assert_eq!(
        json["rung"],
        if json["cpu"]["isa"] == "scalar" {
            "cpu-scalar"
        } else {
            "cpu-simd"
        }
    );
    let proof = &json["self_test"][0];
    assert_eq!(proof["passed"], true);
    let kernels = proof["kernels"].as_array().unwrap();
    assert!(
        kernels.len() >= 8 && kernels.iter().all(|k| k["cases"].as_u64() > Some(0)),
        "{kernels:?}"
    );
    assert!(json["cache"]["free_bytes"].as_u64() > Some(0));
    let shown = run(&["doctor", "--rung", "cpu-scalar"]).ended(0).out;
    for part in [
        "GPU adapters",
        "Processor",
        "rung cpu-scalar",
        "computes right",
        "attention",
        "Models",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[test]
fn bench_has_the_keys() {
    let model = fixture("llama");
    let args = [
        "bench",
        "--device",
        "cpu",
        "-m",
        arg(&model),
        "-p",
        "20",
        "-n",
        "8",
        "-r",
        "2",
    ];
    let json = run(&[&args[..], &["--json"]].concat()).ended(0).last();
    for key in [
        "prefill_tps",
        "decode_tps",
        "dispatches",
        "passes",
        "submits",
        "readback_bytes",
        "encode_us",
    ] {
        assert!(
            json[key]
                .as_f64()
                .is_some_and(|n| n.is_finite() && n >= 0.0),
            "{key} of {json}"
        );
    }
    assert!(json["decode_tps"].as_f64() > Some(0.0));
    assert_eq!(
        (
            json["buffers_created"].as_f64(),
            json["bind_groups_created"].as_f64()
        ),
        (Some(0.0), Some(0.0))
    );
    assert_eq!(
        (&json["rung"], &json["model"]),
        (&json["rung"], &"llama".into())
    );
    assert!(run(&args).ended(0).out.contains("tok/s"));
    let beyond = run(&[
        "bench",
        "--device",
        "cpu",
        "-m",
        arg(&model),
        "-p",
        "100000",
    ])
    .ended(1);
    assert!(beyond.err.contains("512"), "{}", beyond.err);
}

#[test]
fn bench_runs_models_that_were_never_downloaded() {
    let config = fixture("gemma3_text").join("config.json");
    for quant in ["q4", "q8", "f16"] {
        let args = [
            "bench",
            "--device",
            "cpu",
            "--synthetic",
            arg(&config),
            "--quant",
            quant,
            "-p",
            "9",
            "-n",
            "4",
        ];
        let json = run(&[&args[..], &["-r", "1", "--json"]].concat())
            .ended(0)
            .last();
        assert!(json["decode_tps"].as_f64() > Some(0.0), "{quant}: {json}");
    }
    let ran = run(&["bench", "--synthetic", arg(&config), "--quant", "q99"]).ended(1);
    assert!(ran.err.contains("q99"), "{}", ran.err);
}

#[test]
fn perplexity_of_ids_and_text() {
    let model = fixture("llama");
    let base = ["perplexity", "--device", "cpu", "--json", "-m", arg(&model)];
    let of = |more: &[&str]| run(&[&base[..], more].concat()).ended(0).last();
    let json = of(&["--ids", "384,5,6,7,8,9"]);
    let (nll, ppl) = (json["nll"].as_f64().unwrap(), json["ppl"].as_f64().unwrap());
    assert!(nll > 0.0 && (nll.exp() / ppl - 1.0).abs() < 1e-9, "{json}");
    assert_eq!(json["tokens"], 5);
    // Two windows of three: the first of each is not predicted.
    assert_eq!(of(&["--ids", "384,5,6,7,8,9", "--ctx", "3"])["tokens"], 4);
    let text = crate::common::run_with_input(
        &[&base[..], &["-"]].concat(),
        b"Hello world, this is a test.",
    )
    .ended(0)
    .last();
    let same = of(&[
        "--ids",
        "384,39,68,342,278,265,75,67,11,295,280,256,257,285,13",
    ]);
    assert_eq!(text, same);
    let one = run(&[&base[..], &["--ids", "384"]].concat()).ended(1);
    assert!(one.err.contains("at least two"), "{}", one.err);
}
