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
    let loaded = match family.contains("bert") {
        true => block_on(engine.load_encoder(dir.path(), &mut |_, _| ())).map(|_| ()),
        false => block_on(engine.load(dir.path(), &mut |_, _| ())).map(|_| ()),
    };
    match loaded {
        Ok(()) => format!("{family} was loaded"),
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

/// Every family with every kind of fault that its configuration can have.
#[test]
fn every_family_names_its_field() {
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        self_test: false,
        ..Default::default()
    };
    let engine = block_on(Engine::new(options)).expect("a CPU");
    // Family; its names for the activation, the heads, and where the kind of rotation is said.
    let families: [(&str, &str, &str, &str); 15] = [
        ("llama", "hidden_act", "num_attention_heads", "rope_scaling"),
        (
            "llama2",
            "hidden_act",
            "num_attention_heads",
            "rope_scaling",
        ),
        ("qwen2", "hidden_act", "num_attention_heads", "rope_scaling"),
        ("qwen3", "hidden_act", "num_attention_heads", "rope_scaling"),
        ("phi3", "hidden_act", "num_attention_heads", "rope_scaling"),
        (
            "phi3_longrope",
            "hidden_act",
            "num_attention_heads",
            "rope_scaling",
        ),
        ("gpt2", "activation_function", "n_head", ""),
        (
            "gemma3_text",
            "hidden_activation",
            "num_key_value_heads",
            "rope_scaling",
        ),
        (
            "gemma4",
            "hidden_activation",
            "num_key_value_heads",
            "rope_parameters/sliding_attention",
        ),
        (
            "gemma4_large",
            "hidden_activation",
            "num_attention_heads",
            "rope_parameters/full_attention",
        ),
        (
            "qwen3_5",
            "hidden_act",
            "num_attention_heads",
            "rope_parameters",
        ),
        ("bert", "hidden_act", "num_attention_heads", ""),
        ("bert_ner", "hidden_act", "num_attention_heads", ""),
        ("distilbert", "activation", "n_heads", ""),
        (
            "nomic_bert",
            "hidden_act",
            "num_attention_heads",
            "rope_parameters",
        ),
    ];
    let mut wrong = Vec::new();
    let mut faults = 0;
    for (family, activation, heads, rope) in families {
        let mut check = |field: &str, change: &dyn Fn(&mut Value)| {
            faults += 1;
            let message = refusal(&engine, family, "config.json", change);
            if !message.contains(&format!("`{field}`")) {
                wrong.push(format!("{family}, `{field}`: {message}"));
            }
        };
        check(activation, &|c| c[activation] = json!("softsign_of_old"));
        // Eleven divides nothing that there is.
        check(heads, &|c| c[heads] = json!(11));
        check("vocab_size", &|c| c["vocab_size"] = json!(5));
        if !rope.is_empty() {
            check("rope_type", &|c| {
                let place = rope.split('/').fold(&mut *c, |c, key| &mut c[key]);
                match place.as_object_mut() {
                    Some(map) => {
                        map.retain(|key, _| key != "rope_type" && key != "type");
                        map.insert("factor".into(), json!(2.0));
                    }
                    None => *place = json!({ "factor": 2.0 }),
                }
            });
        }
        let config = std::fs::read(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{family}/config.json")),
        );
        let config: Value = serde_json::from_slice(&config.expect("a file")).expect("JSON");
        if config.get("layer_types").is_some() {
            check("layer_types", &|c| {
                c["layer_types"].as_array_mut().expect("a list").truncate(1);
            });
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {faults}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(faults > 55);
}
