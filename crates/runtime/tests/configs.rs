//! Configurations that are wrong: the error names the field, and nothing is computed with a guess.

use firelight_runtime::{DeviceChoice, Engine, EngineOptions};
use pollster::block_on;
use serde_json::{Value, json};
use std::path::Path;

/// What loading a fixture says whose `file` (`config.json` or `config.v5.json`) was changed.
fn refusal(engine: &Engine, family: &str, file: &str, change: impl FnOnce(&mut Value)) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(family);
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["model.safetensors", "tokenizer.json"] {
        std::fs::copy(from.join(name), dir.path().join(name)).expect("a copy");
    }
    let text = std::fs::read(from.join(file)).expect("a configuration");
    let mut config: Value = serde_json::from_slice(&text).expect("JSON");
    let before = config.clone();
    change(&mut config);
    assert_ne!(config, before, "{family}: nothing was changed");
    std::fs::write(dir.path().join("config.json"), config.to_string()).expect("written");
    match block_on(engine.load(dir.path(), &mut |_, _| ())) {
        Ok(_) => format!("{family} was loaded"),
        Err(e) => e.to_string(),
    }
}

fn remove(config: &mut Value, key: &str) {
    config.as_object_mut().expect("an object").remove(key);
}

#[test]
fn the_wrong_field_is_named() {
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        self_test: false,
        ..Default::default()
    };
    let engine = block_on(Engine::new(options)).expect("a CPU");
    let (old, new) = ("config.json", "config.v5.json");
    type Change = fn(&mut Value);
    let cases: &[(&str, &str, Change, &str)] = &[
        // An activation that is not there.
        (
            "llama",
            old,
            |c| c["hidden_act"] = json!("relu2"),
            "`hidden_act`",
        ),
        (
            "qwen2",
            old,
            |c| c["hidden_act"] = json!("gelu"),
            "`hidden_act`",
        ),
        (
            "phi3",
            new,
            |c| c["hidden_act"] = json!("gelu"),
            "`hidden_act`",
        ),
        (
            "gemma3_text",
            old,
            |c| c["hidden_activation"] = json!("silu"),
            "`hidden_activation`",
        ),
        (
            "gpt2",
            old,
            |c| c["activation_function"] = json!("mish"),
            "`activation_function`",
        ),
        (
            "gemma4",
            old,
            |c| c["hidden_activation"] = json!("silu"),
            "`hidden_activation`",
        ),
        // Heads that do not divide.
        (
            "qwen2",
            old,
            |c| c["num_attention_heads"] = json!(5),
            "`num_attention_heads` 5",
        ),
        (
            "qwen3",
            old,
            |c| c["num_key_value_heads"] = json!(3),
            "`num_key_value_heads` 3",
        ),
        (
            "phi3",
            old,
            |c| c["num_key_value_heads"] = json!(3),
            "`num_key_value_heads` 3",
        ),
        (
            "gemma3_text",
            old,
            |c| c["num_attention_heads"] = json!(0),
            "`num_attention_heads`",
        ),
        ("qwen3", old, |c| c["head_dim"] = json!(30), "`head_dim` 30"),
        (
            "llama",
            old,
            |c| c["head_dim"] = json!(1024),
            "`head_dim` 1024",
        ),
        ("gpt2", old, |c| c["n_head"] = json!(5), "`n_head` 5"),
        (
            "gemma4",
            old,
            |c| c["global_head_dim"] = json!(30),
            "`head_dim` 30",
        ),
        (
            "gemma4_large",
            old,
            |c| c["num_global_key_value_heads"] = json!(3),
            "`num_key_value_heads` 3",
        ),
        // Rotary embeddings that are not said in full.
        (
            "phi3_longrope",
            old,
            |c| remove(&mut c["rope_scaling"], "type"),
            "`rope_type`",
        ),
        (
            "llama",
            new,
            |c| remove(&mut c["rope_parameters"], "rope_type"),
            "`rope_type`",
        ),
        (
            "llama",
            old,
            |c| c["rope_scaling"]["rope_type"] = json!("yarn"),
            "`yarn`",
        ),
        (
            "llama",
            old,
            |c| remove(&mut c["rope_scaling"], "factor"),
            "`factor`",
        ),
        (
            "phi3_longrope",
            new,
            |c| remove(&mut c["rope_parameters"], "long_factor"),
            "`long_factor`",
        ),
        (
            "phi3_longrope",
            old,
            |c| c["rope_scaling"]["short_factor"] = json!([1.0, 1.0, 1.0]),
            "`short_factor`",
        ),
        (
            "phi3_longrope",
            old,
            |c| c["partial_rotary_factor"] = json!(1.5),
            "`partial_rotary_factor`",
        ),
        (
            "qwen2",
            old,
            |c| c["rope_theta"] = json!(-1.0),
            "`rope_theta`",
        ),
        // Lists of another length than the layers', or with a layer that is not there.
        (
            "qwen3",
            new,
            |c| c["layer_types"] = json!(["full_attention"]),
            "`layer_types`",
        ),
        (
            "gemma3_text",
            new,
            |c| c["layer_types"] = json!([]),
            "`layer_types`",
        ),
        (
            "qwen3",
            new,
            |c| c["layer_types"][1] = json!("linear_attention"),
            "`layer_types`",
        ),
        (
            "qwen3",
            old,
            |c| c["num_hidden_layers"] = json!(1025),
            "num_hidden_layers",
        ),
        (
            "gemma4",
            old,
            |c| c["layer_types"] = json!(["full_attention"]),
            "`layer_types`",
        ),
        (
            "gemma4",
            old,
            |c| c["num_kv_shared_layers"] = json!(6),
            "`num_kv_shared_layers`",
        ),
        (
            "gemma4",
            old,
            |c| c["use_bidirectional_attention"] = json!("all"),
            "`use_bidirectional_attention`",
        ),
        (
            "gemma4_large",
            old,
            |c| remove(c, "num_experts"),
            "`num_experts`",
        ),
        (
            "gemma4_large",
            old,
            |c| c["top_k_experts"] = json!(7),
            "`top_k_experts`",
        ),
        (
            "gemma4_large",
            new,
            |c| c["per_layer_config"]["2"]["rope_theta"] = json!(1.0),
            "`per_layer_config`",
        ),
        (
            "gemma4",
            old,
            |c| remove(&mut c["rope_parameters"]["full_attention"], "rope_type"),
            "`rope_type`",
        ),
        // Another vocabulary than the weights'.
        (
            "gpt2",
            old,
            |c| c["n_positions"] = json!(300),
            "`n_positions` is 300",
        ),
        (
            "gemma4",
            old,
            |c| c["vocab_size_per_layer_input"] = json!(7),
            "`vocab_size_per_layer_input` is 7",
        ),
        (
            "qwen2",
            old,
            |c| c["vocab_size"] = json!(400),
            "`vocab_size` is 400",
        ),
        (
            "phi3",
            old,
            |c| c["vocab_size"] = json!(5),
            "`vocab_size` is 5",
        ),
        (
            "gemma3_text",
            old,
            |c| c["vocab_size"] = json!(1),
            "`vocab_size` is 1",
        ),
        // Sizes that the weights do not have.
        (
            "phi3",
            old,
            |c| c["intermediate_size"] = json!(96),
            "[192, 64]",
        ),
        ("qwen3", old, |c| remove(c, "hidden_size"), "`hidden_size`"),
        (
            "llama",
            old,
            |c| c["num_hidden_layers"] = json!("three"),
            "`num_hidden_layers`",
        ),
    ];
    for (family, file, change, named) in cases {
        let message = refusal(&engine, family, file, change);
        assert!(
            message.contains(named),
            "{family} {file}: expected {named} in: {message}"
        );
    }
}
