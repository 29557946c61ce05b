//! Pairs of a text model and its tower (`mmproj`), under the names and keys of llama.cpp's converter: the same features and logits.

use super::{ARCHS, Arch, Json, convert_text, data, json, size, write};
use firelight_runtime::checkpoint::Checkpoint;
use firelight_runtime::media::{self, MediaKind, Medium};
use firelight_runtime::{DeviceChoice, Engine, EngineOptions, State};
use firelight_tensor::gguf::{Value, Writer};
use firelight_tensor::{DType, Tensor, Weights};
use pollster::block_on;
use std::path::Path;
use std::sync::Arc;

/// A family in two files.
struct Pair {
    family: &'static str,
    text: Arch,
    /// Under which the text model's tensors are.
    prefix: &'static str,
    /// The token that stands for a picture.
    mark: &'static str,
    projector: &'static str,
    /// `clip.vision.…` from the tower's configuration and the whole one.
    keys: fn(&Json, &Json) -> Vec<(&'static str, Value)>,
    /// Name and tensor in the second file; `None`: not there.
    tensor: fn(&str, Tensor) -> Vec<(String, Tensor)>,
    /// Tokens of a picture that the file cannot say.
    budget: Option<usize>,
}

fn arch(family: &str) -> &'static Arch {
    ARCHS
        .iter()
        .find(|a| a.family == family)
        .expect("an architecture")
}

/// The names that all converters write for a layer's parts.
fn layer(name: &str, prefix: &str, parts: &[(&str, &str)]) -> Option<String> {
    let (layer, rest) = name.strip_prefix(prefix)?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let (_, to) = parts.iter().find(|(from, _)| *from == part)?;
    Some(format!("v.blk.{layer}.{to}.{kind}"))
}

fn idefics3(name: &str, t: Tensor) -> Vec<(String, Tensor)> {
    let parts = [
        ("layer_norm1", "ln1"),
        ("layer_norm2", "ln2"),
        ("mlp.fc1", "ffn_up"),
        ("mlp.fc2", "ffn_down"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.out_proj", "attn_out"),
    ];
    let name = match name {
        "model.connector.modality_projection.proj.weight" => Some("mm.model.fc.weight".into()),
        "model.vision_model.embeddings.patch_embedding.weight" => {
            Some("v.patch_embd.weight".into())
        }
        "model.vision_model.embeddings.patch_embedding.bias" => Some("v.patch_embd.bias".into()),
        "model.vision_model.embeddings.position_embedding.weight" => {
            Some("v.position_embd.weight".into())
        }
        "model.vision_model.post_layernorm.weight" => Some("v.post_ln.weight".into()),
        "model.vision_model.post_layernorm.bias" => Some("v.post_ln.bias".into()),
        name => layer(name, "model.vision_model.encoder.layers.", &parts),
    };
    name.map(|name| (name, t)).into_iter().collect()
}

/// A convolution over two frames becomes two over one.
fn frames(t: &Tensor) -> [Tensor; 2] {
    let &[n, c, 2, h, w] = t.shape() else {
        panic!("{:?}", t.shape())
    };
    let values = t.to_f32_vec().expect("floats");
    let plane = h * w;
    [0, 1].map(|frame| {
        let part: Vec<f32> = (0..n * c)
            .flat_map(|i| values[(2 * i + frame) * plane..][..plane].to_vec())
            .collect();
        Tensor::from_f32(&part, &[n, c, h, w]).expect("a tensor")
    })
}

fn qwen(name: &str, t: Tensor) -> Vec<(String, Tensor)> {
    let name = name.strip_prefix("model.").unwrap_or(name);
    if name == "visual.patch_embed.proj.weight" {
        let names = ["v.patch_embd.weight", "v.patch_embd.weight.1"].map(str::to_owned);
        return names.into_iter().zip(frames(&t)).collect();
    }
    let parts = [
        ("norm1", "ln1"),
        ("norm2", "ln2"),
        ("mlp.fc1", "ffn_up"),
        ("mlp.fc2", "ffn_down"),
        ("mlp.linear_fc1", "ffn_up"),
        ("mlp.linear_fc2", "ffn_down"),
        ("attn.proj", "attn_out"),
        ("attn.qkv", "attn_qkv"),
    ];
    let ends = [
        ("visual.merger.ln_q.", "v.post_ln."),
        ("visual.merger.norm.", "v.post_ln."),
        ("visual.merger.mlp.0.", "mm.0."),
        ("visual.merger.mlp.2.", "mm.2."),
        ("visual.merger.linear_fc1.", "mm.0."),
        ("visual.merger.linear_fc2.", "mm.2."),
        ("visual.patch_embed.proj.b", "v.patch_embd.b"),
        ("visual.pos_embed.", "v.position_embd."),
    ];
    let end = ends
        .iter()
        .find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)));
    match end.or_else(|| layer(name, "visual.blocks.", &parts)) {
        Some(name) => vec![(name, t)],
        None => Vec::new(),
    }
}

/// Qwen2-VL's converter writes queries, keys and values apart.
fn qwen2(name: &str, t: Tensor) -> Vec<(String, Tensor)> {
    if let Some((layer, kind)) = name
        .strip_prefix("visual.blocks.")
        .and_then(|rest| rest.split_once(".attn.qkv."))
    {
        let values = t.to_f32_vec().expect("floats");
        let mut shape = t.shape().to_vec();
        shape[0] /= 3;
        let third = values.len() / 3;
        return ["attn_q", "attn_k", "attn_v"]
            .iter()
            .zip(values.chunks(third))
            .map(|(own, part)| {
                let t = Tensor::from_f32(part, &shape).expect("a tensor");
                (format!("v.blk.{layer}.{own}.{kind}"), t)
            })
            .collect();
    }
    qwen(name, t)
}

fn gemma4(name: &str, t: Tensor) -> Vec<(String, Tensor)> {
    let parts = [
        ("input_layernorm", "ln1"),
        ("post_attention_layernorm", "attn_post_norm"),
        ("pre_feedforward_layernorm", "ln2"),
        ("post_feedforward_layernorm", "ffn_post_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_out"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    if name == "model.vision_tower.patch_embedder.input_proj.weight" {
        // Row, column, channel become channel, row, column.
        let &[d, k] = t.shape() else {
            panic!("{:?}", t.shape())
        };
        let (plane, values) = (k / 3, t.to_f32_vec().expect("floats"));
        let side = plane.isqrt();
        let at = |i: usize| i / k * k + i % plane * 3 + i % k / plane;
        let turned: Vec<f32> = (0..d * k).map(|i| values[at(i)]).collect();
        let t = Tensor::from_f32(&turned, &[d, 3, side, side]).expect("a tensor");
        return vec![("v.patch_embd.weight".into(), t)];
    }
    let name = match name {
        "model.embed_vision.embedding_projection.weight" => {
            Some("mm.input_projection.weight".into())
        }
        "model.vision_tower.patch_embedder.position_embedding_table" => {
            Some("v.position_embd.weight".into())
        }
        "model.vision_tower.std_bias" => Some("v.std_bias".into()),
        "model.vision_tower.std_scale" => Some("v.std_scale".into()),
        name => layer(
            &name.replace(".linear.", "."),
            "model.vision_tower.encoder.layers.",
            &parts,
        ),
    };
    let scalar = t.shape().is_empty();
    let t = match scalar {
        true => Tensor::from_f32(&t.to_f32_vec().expect("floats"), &[1]).expect("a tensor"),
        false => t,
    };
    name.map(|name| (name, t)).into_iter().collect()
}

fn usual(vision: &Json, width: &str, heads: &str, depth: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("embedding_length", size(vision, width)),
        ("attention.head_count", size(vision, heads)),
        ("block_count", size(vision, depth)),
        ("patch_size", size(vision, "patch_size")),
    ]
}

fn pairs() -> Vec<Pair> {
    let text = |family: &str, name: &'static str, keys| Arch {
        name,
        keys,
        ..*arch(family)
    };
    let qwen_keys = |keys: &mut Vec<(&'static str, Value)>, c: &Json| {
        let list = c["rope_scaling"]["mrope_section"]
            .as_array()
            .expect("sections");
        let mut list: Vec<i32> = list
            .iter()
            .map(|n| n.as_i64().expect("a number") as i32)
            .collect();
        list.push(0);
        keys.push(("rope.dimension_sections", list.into()));
    };
    let hybrid_keys = |keys: &mut Vec<(&'static str, Value)>, c: &Json| {
        (arch("qwen3_5").keys)(keys, c);
        keys.push(("rope.dimension_sections", vec![4i32, 2, 2, 0].into()));
    };
    vec![
        Pair {
            family: "smolvlm",
            text: Arch {
                more: |_| Vec::new(),
                ..text("llama", "llama", arch("llama").keys)
            },
            prefix: "model.text_model.",
            mark: "<image>",
            projector: "idefics3",
            keys: |vision, c| {
                let mut keys = usual(
                    vision,
                    "hidden_size",
                    "num_attention_heads",
                    "num_hidden_layers",
                );
                keys.push(("feed_forward_length", size(vision, "intermediate_size")));
                keys.push(("image_size", size(vision, "image_size")));
                keys.push(("preproc_image_size", Value::U32(96)));
                keys.push(("projector.scale_factor", size(c, "scale_factor")));
                keys
            },
            tensor: idefics3,
            budget: None,
        },
        Pair {
            family: "qwen2_vl",
            text: text("qwen2", "qwen2vl", qwen_keys),
            prefix: "model.",
            mark: "<|image_pad|>",
            projector: "qwen2vl_merger",
            keys: |vision, _| {
                let mut keys = usual(vision, "embed_dim", "num_heads", "depth");
                keys.push(("feed_forward_length", Value::U32(128)));
                keys.push(("image_size", Value::U32(560)));
                keys.push(("image_min_pixels", Value::U32(1024)));
                keys.push(("image_max_pixels", Value::U32(9216)));
                keys
            },
            tensor: qwen2,
            budget: None,
        },
        Pair {
            family: "qwen3_5_vl",
            text: text("qwen3_5", "qwen35", hybrid_keys),
            prefix: "model.language_model.",
            mark: "<|image_pad|>",
            projector: "qwen3vl_merger",
            keys: |vision, _| {
                let mut keys = usual(vision, "hidden_size", "num_heads", "depth");
                keys.push(("feed_forward_length", size(vision, "intermediate_size")));
                keys.push(("image_size", Value::U32(64)));
                keys.push(("image_min_pixels", Value::U32(1024)));
                keys.push(("image_max_pixels", Value::U32(9216)));
                keys
            },
            tensor: qwen,
            budget: None,
        },
        Pair {
            family: "gemma4_vl",
            text: text("gemma4", "gemma4", arch("gemma4").keys),
            prefix: "model.language_model.",
            mark: "<|image|>",
            projector: "gemma4v",
            keys: gemma4_keys,
            tensor: gemma4,
            budget: Some(70),
        },
        Pair {
            family: "gemma4_large_vl",
            text: text("gemma4_large", "gemma4", arch("gemma4_large").keys),
            prefix: "model.language_model.",
            mark: "<|image|>",
            projector: "gemma4v",
            keys: gemma4_keys,
            tensor: gemma4,
            budget: Some(70),
        },
    ]
}

fn gemma4_keys(vision: &Json, _: &Json) -> Vec<(&'static str, Value)> {
    let mut keys = usual(
        vision,
        "hidden_size",
        "num_attention_heads",
        "num_hidden_layers",
    );
    keys.push(("feed_forward_length", size(vision, "intermediate_size")));
    keys.push(("image_size", Value::U32(224)));
    keys.push((
        "projector.scale_factor",
        size(vision, "pooling_kernel_size"),
    ));
    keys
}

fn convert(pair: &Pair, to: &Path) {
    let dir = data(pair.family);
    let c = json(dir.join("config.json"));
    let own = if c["text_config"].is_object() {
        &c["text_config"]
    } else {
        &c
    };
    let weights = Weights::open_path(&dir).expect("a checkpoint");
    let text = weights.renamed(|name| {
        let tower = name.contains("visual")
            || name.contains("vision")
            || name.contains("audio")
            || name.contains("connector");
        let short = name.strip_prefix(pair.prefix).map(|n| format!("model.{n}"));
        (!tower).then(|| short.unwrap_or_else(|| name.to_owned()))
    });
    let mark = c["image_token_id"].as_u64().expect("an id");
    let vocab = own["vocab_size"].as_u64().expect("a size");
    let tokens = (0..vocab).map(|i| {
        if i == mark {
            pair.mark.to_owned()
        } else {
            format!("<{i}>")
        }
    });
    convert_text(
        &pair.text,
        own,
        &text,
        tokens.collect(),
        &to.join("model.gguf"),
    );

    let vision = &c["vision_config"];
    let mut w = Writer::new();
    let mut add = |key: &str, value: Value| {
        w.metadata(key, value).expect("a key");
    };
    add("general.architecture", "clip".into());
    add("clip.has_vision_encoder", true.into());
    add("clip.projector_type", pair.projector.into());
    let act = vision["hidden_act"].as_str().unwrap_or("gelu_pytorch_tanh");
    add("clip.use_gelu", (act != "quick_gelu").into());
    let processor = json(dir.join("preprocessor_config.json"));
    let three = |key: &str| -> Vec<f32> {
        let list = processor[key].as_array().expect("three numbers");
        list.iter()
            .map(|v| v.as_f64().expect("a number") as f32)
            .collect()
    };
    add("clip.vision.image_mean", three("image_mean").into());
    add("clip.vision.image_std", three("image_std").into());
    add("clip.vision.projection_dim", size(own, "hidden_size"));
    add("clip.vision.attention.layer_norm_epsilon", Value::F32(1e-6));
    for (key, value) in (pair.keys)(vision, &c) {
        add(&format!("clip.vision.{key}"), value);
    }
    let tensors: Vec<(String, Tensor)> = weights
        .names()
        .flat_map(|name| (pair.tensor)(name, weights.read(name).expect("a tensor")))
        .collect();
    write(w, &tensors, &to.join("mmproj-model.gguf"));
}

fn ids(golden: &Weights) -> Vec<u32> {
    let ids = golden.read("image.input_ids").expect("ids");
    assert_eq!(ids.dtype(), DType::I64);
    let ids: Vec<i64> = bytemuck::pod_collect_to_vec(ids.bytes());
    ids.into_iter().map(|id| id as u32).collect()
}

fn close(what: &str, found: &[f32], golden: &Weights, name: &str) {
    let expected = golden
        .read(name)
        .expect("a golden")
        .to_f32_vec()
        .expect("floats");
    let worst = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(
        found.len() == expected.len() && worst < 1e-3,
        "{what}: {name}: {} of {}, {worst}",
        found.len(),
        expected.len()
    );
}

#[test]
fn a_pair_sees_as_the_reference() {
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        self_test: false,
        exact: true,
        ..Default::default()
    };
    let engine = block_on(Engine::new(options)).expect("a CPU");
    for pair in pairs() {
        let dir = tempfile::tempdir().expect("a folder");
        convert(&pair, dir.path());
        // Found beside the model, and in the folder.
        let model = block_on(engine.load(dir.path(), &mut |_, _| ())).expect("loads");
        let tower = model
            .model
            .tower(MediaKind::Image)
            .unwrap_or_else(|| panic!("{}: no tower", pair.family));
        let golden =
            Weights::open_path(data(pair.family).join("golden.safetensors")).expect("goldens");
        let picture = std::fs::read(data(pair.family).join("input.png")).expect("a picture");
        let picture: Medium = firelight_vision::decode(&picture)
            .expect("a picture")
            .into();
        let prepared = Arc::new(tower.prepare(&picture, pair.budget).expect("prepared"));
        let pixels = prepared
            .tensor("pixel_values")
            .expect("pixels")
            .to_f32_vec()
            .expect("floats");
        close(pair.family, &pixels, &golden, "image.pixel_values");
        let features = block_on(media::encode(&model.device, tower, &prepared)).expect("features");
        let features = block_on(model.device.read_f32(&features)).expect("features");
        close(pair.family, &features, &golden, "image.image_features");

        let mut state = State::new(&model.device, &model.model).expect("a state");
        let first = state
            .place_media(std::slice::from_ref(&prepared))
            .expect("placed")[0];
        let mut soft = first..;
        let mut ids = ids(&golden);
        for id in ids.iter_mut().filter(|id| **id == tower.placeholder()) {
            *id = soft.next().expect("an id");
        }
        let mut logits = Vec::new();
        block_on(state.logits(&ids, |_, chunk| {
            logits.extend_from_slice(chunk);
            Ok(())
        }))
        .expect("logits");
        close(pair.family, &logits, &golden, "image.logits");
    }
}

#[test]
fn a_projector_of_another_model_is_refused_and_never_found() {
    let all = pairs();
    let (dir, other) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    convert(&all[0], dir.path());
    convert(&all[1], other.path());
    let model = dir.path().join("model.gguf");
    let open = || Checkpoint::open(&model).expect("opens");
    let error = |path: &Path| match open().with_projector(path) {
        Ok(_) => panic!("taken"),
        Err(e) => e.to_string(),
    };
    let wrong = error(&other.path().join("mmproj-model.gguf"));
    assert!(wrong.contains("qwen2vl model"), "{wrong}");
    let none = error(&other.path().join("model.gguf"));
    assert!(
        none.contains("expected a GGUF file of architecture `clip`"),
        "{none}"
    );
    std::fs::copy(
        other.path().join("mmproj-model.gguf"),
        dir.path().join("mmproj-model.gguf"),
    )
    .expect("copied");
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        self_test: false,
        ..Default::default()
    };
    let engine = block_on(Engine::new(options)).expect("a CPU");
    let model = block_on(engine.load(&model, &mut |_, _| ())).expect("loads without it");
    assert!(model.model.tower(MediaKind::Image).is_none());
}
