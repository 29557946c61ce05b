//! The reference checkpoints as GGUF, under the names and keys of llama.cpp's converter: the same logits.

mod adapters;
#[cfg(feature = "vision")]
mod pairs;

use firelight_runtime::checkpoint::Checkpoint;
use firelight_runtime::{
    Adapter, AdapterUse, DeviceChoice, Engine, EngineOptions, LoadedModel, State,
};
use firelight_tensor::gguf::{Value, Writer};
use firelight_tensor::{DType, Tensor, Weights};
use pollster::block_on;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn data(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(family)
}

fn json(path: PathBuf) -> Json {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// One architecture: the fixture, its name in GGUF, and what its converter does beside the common part.
struct Arch {
    family: &'static str,
    name: &'static str,
    /// Rows of the golden logits that GGUF's metadata can say everything about.
    rows: usize,
    keys: fn(&mut Vec<(&'static str, Value)>, &Json),
    /// Name and tensor; `None`: the common name.
    tensor: fn(&str, Tensor, &Json) -> (Option<String>, Tensor),
    /// Tensors that are in no checkpoint.
    more: fn(&Json) -> Vec<(&'static str, Tensor)>,
}

const ARCHS: &[Arch] = &[
    Arch {
        family: "llama",
        name: "llama",
        rows: usize::MAX,
        keys: |keys, c| keys.push(("rope.dimension_count", size(c, "head_dim"))),
        tensor: permuted,
        more: |c| vec![("rope_freqs.weight", llama3_factors(c))],
    },
    Arch {
        family: "llama2",
        name: "llama",
        rows: usize::MAX,
        keys: |keys, c| keys.push(("rope.dimension_count", size(c, "head_dim"))),
        tensor: permuted,
        more: |_| Vec::new(),
    },
    Arch {
        family: "qwen2",
        name: "qwen2",
        rows: usize::MAX,
        keys: |_, _| (),
        tensor: |_, t, _| (None, t),
        more: |_| Vec::new(),
    },
    Arch {
        family: "qwen3",
        name: "qwen3",
        // GGUF's qwen3 has no windows: what a window of 11 does not change.
        rows: 11,
        keys: |keys, c| {
            keys.push(("attention.key_length", size(c, "head_dim")));
            keys.push(("attention.value_length", size(c, "head_dim")));
        },
        tensor: |_, t, _| (None, t),
        more: |_| Vec::new(),
    },
    Arch {
        family: "phi3",
        name: "phi3",
        rows: usize::MAX,
        keys: |keys, c| {
            keys.push(("rope.dimension_count", Value::U32(16)));
            keys.push(("attention.sliding_window", size(c, "sliding_window")));
        },
        tensor: |_, t, _| (None, t),
        more: |_| Vec::new(),
    },
    Arch {
        family: "phi3_longrope",
        name: "phi3",
        rows: usize::MAX,
        keys: |keys, c| {
            keys.push(("rope.dimension_count", Value::U32(12)));
            let original = size(c, "original_max_position_embeddings");
            keys.push(("rope.scaling.original_context_length", original));
        },
        tensor: |_, t, _| (None, t),
        more: |c| {
            let list = |key: &str| {
                let list = c["rope_scaling"][key].as_array().expect("a list");
                let list: Vec<f32> = list
                    .iter()
                    .filter_map(|v| Some(v.as_f64()? as f32))
                    .collect();
                Tensor::from_f32(&list, &[list.len()]).expect("a tensor")
            };
            vec![
                ("rope_factors_long.weight", list("long_factor")),
                ("rope_factors_short.weight", list("short_factor")),
            ]
        },
    },
    Arch {
        family: "qwen3_5",
        name: "qwen35",
        rows: usize::MAX,
        keys: |keys, c| {
            let n = |key: &str| c[key].as_u64().expect("a size") as u32;
            let heads = n("linear_num_value_heads");
            keys.push(("attention.key_length", size(c, "head_dim")));
            keys.push(("attention.value_length", size(c, "head_dim")));
            keys.push(("rope.dimension_count", Value::U32(n("head_dim") / 2)));
            keys.push(("ssm.conv_kernel", size(c, "linear_conv_kernel_dim")));
            keys.push(("ssm.state_size", size(c, "linear_key_head_dim")));
            keys.push(("ssm.group_count", size(c, "linear_num_key_heads")));
            keys.push(("ssm.time_step_rank", Value::U32(heads)));
            let inner = heads * n("linear_value_head_dim");
            keys.push(("ssm.inner_size", Value::U32(inner)));
            let types = c["layer_types"].as_array().expect("a list");
            let flags = types.iter().map(|t| u32::from(t == "linear_attention"));
            keys.push((
                "attention.recurrent_layers",
                flags.collect::<Vec<_>>().into(),
            ));
        },
        tensor: hybrid,
        more: |_| Vec::new(),
    },
    Arch {
        family: "gpt2",
        name: "gpt2",
        rows: usize::MAX,
        keys: |keys, c| {
            keys.push((
                "attention.layer_norm_epsilon",
                number(c, "layer_norm_epsilon"),
            ));
        },
        tensor: turned,
        more: |_| Vec::new(),
    },
    Arch {
        family: "gemma4",
        name: "gemma4",
        rows: usize::MAX,
        keys: |keys, c| {
            gemma4_keys(keys, c);
            let (layers, shared) = (6, 2);
            let widths = (0..layers).map(|i| if i < layers - shared { 96 } else { 192 });
            keys.push((
                "feed_forward_length",
                Value::from(widths.collect::<Vec<u32>>()),
            ));
            keys.push(("attention.shared_kv_layers", Value::U32(shared)));
        },
        tensor: gemma4_name,
        more: |_| vec![("rope_freqs.weight", gemma4_freqs())],
    },
    Arch {
        family: "gemma4_large",
        name: "gemma4",
        rows: usize::MAX,
        keys: |keys, c| {
            gemma4_keys(keys, c);
            keys.push(("feed_forward_length", size(c, "intermediate_size")));
            keys.push(("attention.head_count_kv", Value::from(vec![2u32, 2, 1])));
            keys.push(("attention.shared_kv_layers", Value::U32(0)));
            keys.push(("expert_count", size(c, "num_experts")));
            keys.push(("expert_used_count", size(c, "top_k_experts")));
            keys.push((
                "expert_feed_forward_length",
                size(c, "moe_intermediate_size"),
            ));
        },
        tensor: gemma4_name,
        more: |_| vec![("rope_freqs.weight", gemma4_freqs())],
    },
];

/// Qwen3.5: norms with their 1 added, `−exp(A_log)`, and value heads in the order `v mod NK`.
fn hybrid(name: &str, t: Tensor, c: &Json) -> (Option<String>, Tensor) {
    let n = |key: &str| c[key].as_u64().expect("a size") as usize;
    let (nk, nv) = (n("linear_num_key_heads"), n("linear_num_value_heads"));
    let (hk, hv) = (n("linear_key_head_dim"), n("linear_value_head_dim"));
    let mut values = t.to_f32_vec().expect("floats");
    // Moves value heads of `size` numbers each, `width` numbers after the other, from `first` on.
    let tile = |values: &mut [f32], first: usize, size: usize| {
        let old = values[first..].to_vec();
        for to in 0..nv {
            let from = to % nk * (nv / nk) + to / nk;
            values[first + to * size..][..size].copy_from_slice(&old[from * size..][..size]);
        }
    };
    let shape: Vec<usize> = t.shape().iter().copied().filter(|&d| d != 1).collect();
    let width = shape.get(1).copied().unwrap_or(1);
    let Some((layer, part)) = name
        .strip_prefix("model.layers.")
        .and_then(|r| r.split_once('.'))
    else {
        if name == "model.norm.weight" {
            values.iter_mut().for_each(|v| *v += 1.0);
        }
        return (None, Tensor::from_f32(&values, &shape).expect("a tensor"));
    };
    if part.ends_with("norm.weight") && part != "linear_attn.norm.weight" {
        values.iter_mut().for_each(|v| *v += 1.0);
    }
    match part {
        "linear_attn.in_proj_qkv.weight" | "linear_attn.conv1d.weight" => {
            tile(&mut values, 2 * nk * hk * width, hv * width);
        }
        "linear_attn.in_proj_z.weight" => tile(&mut values, 0, hv * width),
        "linear_attn.in_proj_a.weight" | "linear_attn.in_proj_b.weight" => {
            tile(&mut values, 0, width);
        }
        "linear_attn.A_log" => {
            values.iter_mut().for_each(|v| *v = -v.exp());
            tile(&mut values, 0, 1);
        }
        "linear_attn.dt_bias" => tile(&mut values, 0, 1),
        "linear_attn.out_proj.weight" => {
            values.chunks_mut(width).for_each(|row| tile(row, 0, hv));
        }
        _ => (),
    }
    let own = match part {
        "post_attention_layernorm.weight" => "post_attention_norm.weight",
        "linear_attn.in_proj_qkv.weight" => "attn_qkv.weight",
        "linear_attn.in_proj_z.weight" => "attn_gate.weight",
        "linear_attn.in_proj_b.weight" => "ssm_beta.weight",
        "linear_attn.in_proj_a.weight" => "ssm_alpha.weight",
        "linear_attn.conv1d.weight" => "ssm_conv1d.weight",
        "linear_attn.A_log" => "ssm_a",
        "linear_attn.dt_bias" => "ssm_dt.bias",
        "linear_attn.norm.weight" => "ssm_norm.weight",
        "linear_attn.out_proj.weight" => "ssm_out.weight",
        _ => return (None, Tensor::from_f32(&values, &shape).expect("a tensor")),
    };
    let tensor = Tensor::from_f32(&values, &shape).expect("a tensor");
    (Some(format!("blk.{layer}.{own}")), tensor)
}

fn number(config: &Json, key: &str) -> Value {
    Value::F32(config[key].as_f64().unwrap_or_else(|| panic!("{key}")) as f32)
}

/// GPT-2's names, and its `Conv1D` weights turned.
fn turned(name: &str, t: Tensor, _: &Json) -> (Option<String>, Tensor) {
    let name = name.strip_prefix("transformer.").unwrap_or(name);
    let fixed = match name {
        "wte.weight" => Some("token_embd.weight"),
        "wpe.weight" => Some("position_embd.weight"),
        "ln_f.weight" => Some("output_norm.weight"),
        "ln_f.bias" => Some("output_norm.bias"),
        _ => None,
    };
    if let Some(fixed) = fixed {
        return (Some(fixed.into()), t);
    }
    let rest = name.strip_prefix("h.").expect("a layer");
    let (layer, rest) = rest.split_once('.').expect("a part");
    let (part, kind) = rest.rsplit_once('.').expect("a kind");
    let part = match part {
        "ln_1" => "attn_norm",
        "ln_2" => "ffn_norm",
        "attn.c_attn" => "attn_qkv",
        "attn.c_proj" => "attn_output",
        "mlp.c_fc" => "ffn_up",
        "mlp.c_proj" => "ffn_down",
        other => panic!("{other}"),
    };
    let name = format!("blk.{layer}.{part}.{kind}");
    let &[inputs, outputs] = t.shape() else {
        return (Some(name), t);
    };
    let size = t.dtype().block_bytes();
    let mut bytes = Vec::new();
    for o in 0..outputs {
        for i in 0..inputs {
            bytes.extend_from_slice(&t.bytes()[(i * outputs + o) * size..][..size]);
        }
    }
    let turned = Tensor::new(t.dtype(), &[outputs, inputs], bytes);
    (Some(name), turned.expect("a tensor"))
}

fn gemma4_keys(keys: &mut Vec<(&'static str, Value)>, c: &Json) {
    // What is a list here.
    keys.retain(|(key, _)| *key != "feed_forward_length");
    if c["num_global_key_value_heads"].is_number() {
        keys.retain(|(key, _)| *key != "attention.head_count_kv");
    }
    let types = c["layer_types"].as_array().expect("a list");
    let sliding: Vec<bool> = types.iter().map(|t| t == "sliding_attention").collect();
    let theta = |kind: &str| number(&c["rope_parameters"][kind], "rope_theta");
    keys.extend([
        ("attention.sliding_window", size(c, "sliding_window")),
        ("attention.sliding_window_pattern", Value::from(sliding)),
        ("attention.key_length", size(c, "global_head_dim")),
        ("attention.value_length", size(c, "global_head_dim")),
        ("attention.key_length_swa", size(c, "head_dim")),
        ("attention.value_length_swa", size(c, "head_dim")),
        (
            "embedding_length_per_layer_input",
            size(c, "hidden_size_per_layer_input"),
        ),
        (
            "final_logit_softcapping",
            number(c, "final_logit_softcapping"),
        ),
        ("rope.freq_base", theta("full_attention")),
        ("rope.freq_base_swa", theta("sliding_attention")),
    ]);
}

/// Divisors of the full layers' frequencies: a quarter of 16 pairs turns.
fn gemma4_freqs() -> Tensor {
    let values: Vec<f32> = (0..16).map(|i| if i < 4 { 1.0 } else { 1e30 }).collect();
    Tensor::from_f32(&values, &[16]).expect("a tensor")
}

fn gemma4_name(name: &str, t: Tensor, _: &Json) -> (Option<String>, Tensor) {
    let name = name.strip_prefix("model.").unwrap_or(name);
    let own = match name {
        "embed_tokens_per_layer.weight" => Some("per_layer_token_embd.weight"),
        "per_layer_model_projection.weight" => Some("per_layer_model_proj.weight"),
        "per_layer_projection_norm.weight" => Some("per_layer_proj_norm.weight"),
        _ => None,
    };
    if let Some(own) = own {
        return (Some(own.into()), t);
    }
    let layer = name
        .strip_prefix("layers.")
        .and_then(|rest| rest.split_once('.'));
    let Some((layer, rest)) = layer else {
        return (None, t);
    };
    let own = match rest {
        "post_attention_layernorm.weight" => "post_attention_norm.weight",
        "pre_feedforward_layernorm.weight" => "ffn_norm.weight",
        "post_feedforward_layernorm.weight" => "post_ffw_norm.weight",
        "pre_feedforward_layernorm_2.weight" => "pre_ffw_norm_2.weight",
        "post_feedforward_layernorm_1.weight" => "post_ffw_norm_1.weight",
        "post_feedforward_layernorm_2.weight" => "post_ffw_norm_2.weight",
        "per_layer_input_gate.weight" => "inp_gate.weight",
        "per_layer_projection.weight" => "proj.weight",
        "post_per_layer_input_norm.weight" => "post_norm.weight",
        "layer_scalar" => "layer_output_scale.weight",
        "router.scale" => "ffn_gate_inp.scale",
        "router.proj.weight" => "ffn_gate_inp.weight",
        "router.per_expert_scale" => "ffn_down_exps.scale",
        "experts.gate_up_proj" => "ffn_gate_up_exps.weight",
        "experts.down_proj" => "ffn_down_exps.weight",
        _ => return (None, t),
    };
    (Some(format!("blk.{layer}.{own}")), t)
}

fn size(config: &Json, key: &str) -> Value {
    Value::U32(config[key].as_u64().unwrap_or_else(|| panic!("{key}")) as u32)
}

/// Llama's queries and keys: the two halves of each head's rows are interleaved.
fn permuted(name: &str, t: Tensor, c: &Json) -> (Option<String>, Tensor) {
    if !name.ends_with("q_proj.weight") && !name.ends_with("k_proj.weight") {
        return (None, t);
    }
    let hd = c["head_dim"].as_u64().expect("a size") as usize;
    let shape = t.shape().to_vec();
    let row = t.bytes().len() / shape[0];
    let mut bytes = Vec::new();
    for head in t.bytes().chunks(hd * row) {
        for i in 0..hd / 2 {
            bytes.extend_from_slice(&head[i * row..][..row]);
            bytes.extend_from_slice(&head[(i + hd / 2) * row..][..row]);
        }
    }
    (
        None,
        Tensor::new(t.dtype(), &shape, bytes).expect("a tensor"),
    )
}

/// By what each frequency is divided, as the converter writes it for Llama 3.
fn llama3_factors(c: &Json) -> Tensor {
    let (scaling, theta) = (
        &c["rope_scaling"],
        c["rope_theta"].as_f64().expect("a number"),
    );
    let n = |key: &str| scaling[key].as_f64().expect("a number");
    let hd = c["head_dim"].as_u64().expect("a size") as usize;
    let old = n("original_max_position_embeddings");
    let (low, high) = (n("low_freq_factor"), n("high_freq_factor"));
    let factors: Vec<f32> = (0..hd / 2)
        .map(|i| {
            let wave = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / hd as f64);
            let factor = if wave < old / high {
                1.0
            } else if wave > old / low {
                n("factor")
            } else {
                let smooth = (old / wave - low) / (high - low);
                1.0 / ((1.0 - smooth) / n("factor") + smooth)
            };
            factor as f32
        })
        .collect();
    Tensor::from_f32(&factors, &[hd / 2]).expect("a tensor")
}

/// The converter's name of a tensor.
fn common(name: &str) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    match name {
        "embed_tokens.weight" => return "token_embd.weight".into(),
        "norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        _ => (),
    }
    let rest = name.strip_prefix("layers.").expect("a layer");
    let (layer, rest) = rest.split_once('.').expect("a part");
    let (part, kind) = rest.rsplit_once('.').expect("a kind");
    let part = match part {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.qkv_proj" => "attn_qkv",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" | "mlp.gate_up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        other => panic!("{other}"),
    };
    format!("blk.{layer}.{part}.{kind}")
}

fn convert(arch: &Arch, to: &Path) {
    let dir = data(arch.family);
    let c = json(dir.join("config.json"));
    let weights = Weights::open_path(&dir).expect("a checkpoint");
    let tokens = (0..c["vocab_size"].as_u64().expect("a size")).map(|i| format!("<{i}>"));
    convert_text(arch, &c, &weights, tokens.collect(), to);
}

/// The text model with the configuration `c`; the tokenizer is another test's: ids come from the golden.
fn convert_text(arch: &Arch, c: &Json, weights: &Weights, tokens: Vec<String>, to: &Path) {
    // The spelling of most families, and GPT-2's.
    let spellings: [(&'static str, &[&str]); 6] = [
        (
            "context_length",
            &["max_position_embeddings", "n_positions"],
        ),
        ("embedding_length", &["hidden_size", "n_embd"]),
        ("feed_forward_length", &["intermediate_size", "n_inner"]),
        ("block_count", &["num_hidden_layers", "n_layer"]),
        ("attention.head_count", &["num_attention_heads", "n_head"]),
        ("attention.head_count_kv", &["num_key_value_heads"]),
    ];
    let mut keys: Vec<(&'static str, Value)> = Vec::new();
    for (key, names) in spellings {
        let name = names.iter().find(|name| c[**name].is_number());
        keys.extend(name.map(|name| (key, size(c, name))));
    }
    for (key, name) in [
        ("rope.freq_base", "rope_theta"),
        ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ] {
        if c[name].is_number() {
            keys.push((key, number(c, name)));
        }
    }
    let theta = &c["rope_parameters"]["rope_theta"];
    if theta.is_number() && !c["rope_theta"].is_number() {
        keys.push((
            "rope.freq_base",
            number(&c["rope_parameters"], "rope_theta"),
        ));
    }
    (arch.keys)(&mut keys, c);
    let mut w = Writer::new();
    w.metadata("general.architecture", arch.name)
        .expect("a key");
    for (key, value) in keys {
        w.metadata(&format!("{}.{key}", arch.name), value)
            .expect("a key");
    }
    w.metadata("tokenizer.ggml.model", "gpt2").expect("a key");
    w.metadata("tokenizer.ggml.tokens", tokens).expect("a key");
    w.metadata("tokenizer.ggml.merges", Vec::<String>::new())
        .expect("a key");

    let mut tensors: Vec<(String, Tensor)> = weights
        .names()
        .map(|name| {
            let tensor = weights.read(name).expect("a tensor");
            let (own, tensor) = (arch.tensor)(name, tensor, c);
            // The converter writes vectors as f32.
            let tensor = match tensor.shape() {
                [n] => Tensor::from_f32(&tensor.to_f32_vec().expect("floats"), &[*n]),
                _ => Ok(tensor),
            };
            (
                own.unwrap_or_else(|| common(name)),
                tensor.expect("a tensor"),
            )
        })
        .collect();
    tensors.extend((arch.more)(c).into_iter().map(|(n, t)| (n.to_owned(), t)));
    write(w, &tensors, to);
}

fn write(mut w: Writer, tensors: &[(String, Tensor)], to: &Path) {
    for (name, tensor) in tensors {
        w.tensor(name, tensor.dtype(), tensor.shape())
            .expect("a tensor");
    }
    let mut out = w
        .start(std::fs::File::create(to).expect("a file"))
        .expect("written");
    for (name, tensor) in tensors {
        out.write(name, tensor.bytes()).expect("written");
    }
    out.finish().expect("written");
}

#[test]
fn gguf_gives_the_same_logits() {
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        self_test: false,
        ..Default::default()
    };
    let engine = block_on(Engine::new(options)).expect("a CPU");
    let dir = tempfile::tempdir().expect("a folder");
    for arch in ARCHS {
        let file = dir.path().join(format!("{}.gguf", arch.family));
        convert(arch, &file);
        let model = block_on(engine.load(&file, &mut |_, _| ())).expect("loads");
        let golden =
            Weights::open_path(data(arch.family).join("golden.safetensors")).expect("goldens");
        let ids = golden.read("text.input_ids").expect("ids");
        assert_eq!(ids.dtype(), DType::I64);
        let ids: Vec<i64> = bytemuck::pod_collect_to_vec(ids.bytes());
        let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
        let expected = golden
            .read("text.logits")
            .expect("logits")
            .to_f32_vec()
            .expect("floats");
        let logits = logits(&model, &ids);
        let rows = ids.len().min(arch.rows) * model.model.spec().vocab;
        let pairs = logits.iter().zip(&expected).take(rows);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(
            logits.len() == expected.len() && worst < 1e-3,
            "{}: {worst}",
            arch.family
        );
    }
}

fn logits(model: &LoadedModel, ids: &[u32]) -> Vec<f32> {
    let mut state = State::new(&model.device, &model.model).expect("a state");
    let mut logits = Vec::new();
    block_on(state.logits(ids, |_, chunk| {
        logits.extend_from_slice(chunk);
        Ok(())
    }))
    .expect("logits");
    logits
}
