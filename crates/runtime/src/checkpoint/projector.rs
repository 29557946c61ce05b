//! The second file of a vision-language model in GGUF (`mmproj-*.gguf`): the tower and its projection, as llama.cpp's tools write it.
//!
//! It is brought under upstream's names, with a configuration and a processor in upstream's words, so that a family's tower sees a checkpoint
//! like any other. Source: keys and tensor names of llama.cpp's `tools/mtmd`.
//!
//! | `clip.projector_type` | family | not in the file, so as published |
//! |---|---|---|
//! | `idefics3` | SmolVLM, Idefics3 | pictures are cut into tiles |
//! | `qwen2vl_merger` | Qwen2-VL | greatest and least number of pixels, unless given |
//! | `qwen3vl_merger` | Qwen3.5 | the same |
//! | `gemma4v` | Gemma 4 | 280 tokens a picture |

use super::Checkpoint;
use crate::{Error, Result};
use firelight_tensor::Weights;
use firelight_tensor::gguf::Metadata;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which tower it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProjectorKind {
    Idefics3,
    Qwen2Vl,
    Qwen3Vl,
    Gemma4,
}

impl ProjectorKind {
    fn of(name: &str) -> Result<Self> {
        Ok(match name {
            "idefics3" => ProjectorKind::Idefics3,
            "qwen2vl_merger" => ProjectorKind::Qwen2Vl,
            "qwen3vl_merger" => ProjectorKind::Qwen3Vl,
            "gemma4v" => ProjectorKind::Gemma4,
            other => {
                return Err(Error::Unsupported(format!(
                    "`clip.projector_type` {other}; this version reads idefics3, qwen2vl_merger, qwen3vl_merger and gemma4v"
                )));
            }
        })
    }

    /// The architecture of the text model's file, and the token that stands for a picture.
    fn text(self) -> (&'static str, &'static str) {
        match self {
            ProjectorKind::Idefics3 => ("llama", "<image>"),
            ProjectorKind::Qwen2Vl => ("qwen2vl", "<|image_pad|>"),
            ProjectorKind::Qwen3Vl => ("qwen35", "<|image_pad|>"),
            ProjectorKind::Gemma4 => ("gemma4", "<|image|>"),
        }
    }
}

/// A tower's file beside a text model's.
pub(crate) struct Projector {
    pub(crate) kind: ProjectorKind,
    /// Under upstream's names.
    pub(crate) checkpoint: Checkpoint,
    /// Elements of a feature: those of the text model's embedding.
    pub(crate) hidden: usize,
    /// A picture's tokens see each other.
    pub(crate) mutual: bool,
}

/// The one file beside `model` that calls itself a projector's; `None` if there is none, or more than one.
pub(super) fn beside(model: &Path) -> Option<PathBuf> {
    let folder = model.parent()?;
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let named = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        let name = name.to_ascii_lowercase();
        name.contains("mmproj") && name.ends_with(".gguf") && path != model
    };
    let entries = std::fs::read_dir(folder).ok()?.take(10_000);
    let mut found = entries.filter_map(|e| Some(e.ok()?.path())).filter(named);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

impl Projector {
    /// Puts a projector's file together with the text model whose metadata are `text`.
    ///
    /// # Errors
    /// `Malformed` or `Unsupported` if it is no projector, or another model's.
    pub(super) fn new(weights: &Weights, name: &str, text: &Metadata) -> Result<Self> {
        let malformed = |what: String| Error::malformed(name, what);
        let m = weights
            .gguf_metadata()
            .filter(|m| matches!(m.get_as::<&str>("general.architecture"), Ok(Some("clip"))))
            .ok_or_else(|| {
                malformed(
                    "no projector: expected a GGUF file of architecture `clip` (mmproj-….gguf)"
                        .into(),
                )
            })?;
        let named = |key: &str| m.get_as::<&str>(key);
        let kind = match (
            named("clip.projector_type")?,
            named("clip.vision.projector_type")?,
        ) {
            (Some(kind), _) | (None, Some(kind)) => ProjectorKind::of(kind)?,
            (None, None) => return Err(malformed("`clip.projector_type` is missing".into())),
        };
        let (arch, mark) = kind.text();
        let found = text.require::<&str>("general.architecture")?;
        let hidden = text.require::<u32>(&format!("{found}.embedding_length"))? as usize;
        let gives = m.require::<u32>("clip.vision.projection_dim")? as usize;
        if found != arch || gives != hidden {
            return Err(malformed(format!(
                "a projector for a {arch} model of {gives} elements, beside a {found} model of {hidden}"
            )));
        }
        let tokens = text.get_array_str("tokenizer.ggml.tokens")?;
        let image_token = tokens
            .and_then(|list| list.iter().position(|t| t == mark))
            .ok_or_else(|| {
                malformed(format!(
                    "the text model's vocabulary has no token {mark}, which stands for a picture"
                ))
            })?;
        let renamed = weights.renamed(|name| upstream(kind, name));
        let (vision, processor) = describe(kind, m, &renamed)?;
        let scale = m.get_as::<u32>("clip.vision.projector.scale_factor")?;
        let per_layer = text
            .get_as::<u32>("gemma4.embedding_length_per_layer_input")?
            .unwrap_or(0);
        let padding = text.get_as::<u32>("tokenizer.ggml.padding_token_id")?;
        let config = json!({
            "vision_config": vision,
            "image_token_id": image_token,
            "scale_factor": scale.unwrap_or(2),
            "text_config": { "pad_token_id": padding.unwrap_or(0) },
        });
        let processor = processor.to_string().into_bytes();
        let files = BTreeMap::from([("preprocessor_config.json".to_owned(), processor)]);
        Ok(Projector {
            kind,
            checkpoint: Checkpoint {
                root: PathBuf::from(name),
                weights: renamed,
                config: Some(config),
                generation_config: None,
                synthetic: None,
                given: Arc::new(files),
                plan: None,
                merge: Arc::default(),
                dtypes: Default::default(),
                narrow: Arc::default(),
                projector: None,
            },
            hidden,
            // The file does not say it: they do in the models without per-layer embeddings (31B, 26B-A4B), and not in E2B and E4B.
            mutual: kind == ProjectorKind::Gemma4 && per_layer == 0,
        })
    }
}

/// The tower's configuration and its processor's.
fn describe(kind: ProjectorKind, m: &Metadata, weights: &Weights) -> Result<(Value, Value)> {
    let size = |key: &str| m.require::<u32>(&format!("clip.vision.{key}"));
    let maybe = |key: &str| m.get_as::<u32>(&format!("clip.vision.{key}"));
    let floats = |key: &str| -> Result<Vec<f32>> {
        let list = m.get_array_f32(&format!("clip.vision.{key}"))?;
        Ok(list.map(|l| l.into_owned()).unwrap_or_default())
    };
    let flag = |key: &str| -> Result<bool> { Ok(m.get_as::<bool>(key)?.unwrap_or(false)) };
    let act = match (flag("clip.use_gelu")?, flag("clip.use_silu")?) {
        (true, _) => "gelu_pytorch_tanh",
        (false, true) => "silu",
        (false, false) => "quick_gelu",
    };
    let (width, deep, heads) = (
        size("embedding_length")?,
        size("feed_forward_length")?,
        size("attention.head_count")?.max(1),
    );
    let (layers, patch, image) = (
        size("block_count")?,
        size("patch_size")?,
        size("image_size")?,
    );
    let eps = m.require::<f32>("clip.vision.attention.layer_norm_epsilon")?;
    let (mean, std) = (floats("image_mean")?, floats("image_std")?);
    // Of a table or a matrix, whatever type it has.
    let dims = |name: &str| weights.info(name).map(|info| info.shape.dims().to_vec());
    let merge = maybe("spatial_merge_size")?.unwrap_or(2);
    let pixels = |least: u32, most: u32| -> Result<[u32; 2]> {
        Ok([
            maybe("image_min_pixels")?.unwrap_or(least),
            maybe("image_max_pixels")?.unwrap_or(most),
        ])
    };
    let qwen = |[least, most]: [u32; 2]| {
        json!({
            "image_processor_type": "Qwen2VLImageProcessor",
            "size": { "shortest_edge": least, "longest_edge": most },
            "patch_size": patch, "temporal_patch_size": 2, "merge_size": merge,
            "image_mean": mean, "image_std": std,
        })
    };
    Ok(match kind {
        ProjectorKind::Idefics3 => (
            json!({
                "hidden_size": width, "intermediate_size": deep, "num_hidden_layers": layers,
                "num_attention_heads": heads, "hidden_act": act, "layer_norm_eps": eps,
                "patch_size": patch, "image_size": image,
            }),
            json!({
                "image_processor_type": "Idefics3ImageProcessor",
                "size": { "longest_edge": maybe("preproc_image_size")?.unwrap_or(4 * image) },
                "max_image_size": { "longest_edge": image },
                "do_image_splitting": true, "resample": 1,
                "image_mean": mean, "image_std": std,
            }),
        ),
        ProjectorKind::Qwen2Vl => (
            json!({
                "embed_dim": width, "mlp_ratio": f64::from(deep) / f64::from(width.max(1)), "depth": layers,
                "num_heads": heads, "hidden_act": act, "hidden_size": size("projection_dim")?,
                "patch_size": patch, "spatial_merge_size": merge,
            }),
            qwen(pixels(3136, 12_845_056)?),
        ),
        ProjectorKind::Qwen3Vl => {
            let deep_layers = m.get_as::<&[bool]>("clip.vision.is_deepstack_layers");
            if weights.names().any(|n| n.starts_with("deepstack.")) || deep_layers.is_err() {
                return Err(Error::Unsupported(
                    "a qwen3vl_merger with deepstack layers (Qwen3-VL); those of Qwen3.5 have none"
                        .into(),
                ));
            }
            let positions = dims("visual.pos_embed.weight").and_then(|d| d.first().copied());
            (
                json!({
                    "hidden_size": width, "intermediate_size": deep, "depth": layers, "num_heads": heads,
                    "hidden_act": act, "out_hidden_size": size("projection_dim")?,
                    "num_position_embeddings": positions.unwrap_or(0),
                    "patch_size": patch, "spatial_merge_size": merge,
                }),
                qwen(pixels(65_536, 16_777_216)?),
            )
        }
        ProjectorKind::Gemma4 => {
            let table = dims("vision_tower.patch_embedder.position_embedding_table");
            let positions = table.and_then(|d| d.get(d.len().checked_sub(2)?).copied());
            let pool = maybe("projector.scale_factor")?.unwrap_or(3);
            let clipped = weights.names().any(|n| n.ends_with(".input_max"));
            (
                json!({
                    "hidden_size": width, "intermediate_size": deep, "num_hidden_layers": layers,
                    "num_attention_heads": heads,
                    "num_key_value_heads": maybe("attention.head_count_kv")?.unwrap_or(heads),
                    "head_dim": maybe("attention.head_dim")?.unwrap_or(width / heads),
                    "rms_norm_eps": eps, "patch_size": patch, "pooling_kernel_size": pool,
                    "position_embedding_size": positions.unwrap_or(0),
                    "use_clipped_linears": clipped,
                    "standardize": dims("vision_tower.std_bias").is_some(),
                }),
                json!({
                    "image_processor_type": "Gemma4ImageProcessor",
                    "patch_size": patch, "pooling_kernel_size": pool, "max_soft_tokens": 280,
                    "do_normalize": false, "image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0], "resample": 3,
                }),
            )
        }
    })
}

/// Upstream's name of a tensor; `None` for what no tower reads.
fn upstream(kind: ProjectorKind, name: &str) -> Option<String> {
    let layer = |prefix: &str, part: &dyn Fn(&str) -> Option<&'static str>| {
        let (layer, rest) = name.strip_prefix("v.blk.")?.split_once('.')?;
        let (own, end) = rest.rsplit_once('.')?;
        Some(format!("{prefix}.{layer}.{}.{end}", part(own)?))
    };
    let whole = |known: &[(&str, &str)]| {
        let (_, to) = known.iter().find(|(from, _)| *from == name)?;
        Some((*to).to_owned())
    };
    match kind {
        ProjectorKind::Idefics3 => whole(&[
            (
                "v.patch_embd.weight",
                "vision_model.embeddings.patch_embedding.weight",
            ),
            (
                "v.patch_embd.bias",
                "vision_model.embeddings.patch_embedding.bias",
            ),
            (
                "v.position_embd.weight",
                "vision_model.embeddings.position_embedding.weight",
            ),
            ("v.post_ln.weight", "vision_model.post_layernorm.weight"),
            ("v.post_ln.bias", "vision_model.post_layernorm.bias"),
            (
                "mm.model.fc.weight",
                "connector.modality_projection.proj.weight",
            ),
        ])
        .or_else(|| {
            layer("vision_model.encoder.layers", &|part| {
                Some(match part {
                    "attn_q" => "self_attn.q_proj",
                    "attn_k" => "self_attn.k_proj",
                    "attn_v" => "self_attn.v_proj",
                    "attn_out" => "self_attn.out_proj",
                    "ln1" => "layer_norm1",
                    "ln2" => "layer_norm2",
                    "ffn_up" => "mlp.fc1",
                    "ffn_down" => "mlp.fc2",
                    _ => return None,
                })
            })
        }),
        ProjectorKind::Qwen2Vl | ProjectorKind::Qwen3Vl => {
            let newer = kind == ProjectorKind::Qwen3Vl;
            let [norm, fc1, fc2] = match newer {
                true => ["norm", "linear_fc1", "linear_fc2"],
                false => ["ln_q", "mlp.0", "mlp.2"],
            };
            let ends = [("v.post_ln", norm), ("mm.0", fc1), ("mm.2", fc2)];
            let end = ends.iter().find_map(|(from, to)| {
                let kind = name.strip_prefix(from)?.strip_prefix('.')?;
                Some(format!("visual.merger.{to}.{kind}"))
            });
            end.or_else(|| {
                whole(&[
                    ("v.patch_embd.weight", "visual.patch_embed.proj.weight"),
                    ("v.patch_embd.weight.1", "visual.patch_embed.proj.weight.1"),
                    ("v.patch_embd.bias", "visual.patch_embed.proj.bias"),
                    ("v.position_embd.weight", "visual.pos_embed.weight"),
                ])
            })
            .or_else(|| {
                layer("visual.blocks", &|part| {
                    Some(match part {
                        "attn_qkv" => "attn.qkv",
                        "attn_q" => "attn.q",
                        "attn_k" => "attn.k",
                        "attn_v" => "attn.v",
                        "attn_out" => "attn.proj",
                        "ln1" => "norm1",
                        "ln2" => "norm2",
                        "ffn_up" if newer => "mlp.linear_fc1",
                        "ffn_down" if newer => "mlp.linear_fc2",
                        "ffn_up" => "mlp.fc1",
                        "ffn_down" => "mlp.fc2",
                        _ => return None,
                    })
                })
            })
            .or_else(|| {
                name.strip_prefix("v.deepstack.")
                    .map(|n| format!("deepstack.{n}"))
            })
        }
        ProjectorKind::Gemma4 => whole(&[
            (
                "v.patch_embd.weight",
                "vision_tower.patch_embedder.conv.weight",
            ),
            (
                "v.position_embd.weight",
                "vision_tower.patch_embedder.position_embedding_table",
            ),
            ("v.std_bias", "vision_tower.std_bias"),
            ("v.std_scale", "vision_tower.std_scale"),
            (
                "mm.input_projection.weight",
                "embed_vision.embedding_projection.weight",
            ),
        ])
        .or_else(|| {
            layer("vision_tower.encoder.layers", &|part| {
                let bound = name.ends_with("_min") || name.ends_with("_max");
                Some(match part {
                    "attn_q" if bound => "self_attn.q_proj",
                    "attn_k" if bound => "self_attn.k_proj",
                    "attn_v" if bound => "self_attn.v_proj",
                    "attn_out" if bound => "self_attn.o_proj",
                    "ffn_gate" if bound => "mlp.gate_proj",
                    "ffn_up" if bound => "mlp.up_proj",
                    "ffn_down" if bound => "mlp.down_proj",
                    "attn_q" => "self_attn.q_proj.linear",
                    "attn_k" => "self_attn.k_proj.linear",
                    "attn_v" => "self_attn.v_proj.linear",
                    "attn_out" => "self_attn.o_proj.linear",
                    "ffn_gate" => "mlp.gate_proj.linear",
                    "ffn_up" => "mlp.up_proj.linear",
                    "ffn_down" => "mlp.down_proj.linear",
                    "attn_q_norm" => "self_attn.q_norm",
                    "attn_k_norm" => "self_attn.k_norm",
                    "ln1" => "input_layernorm",
                    "attn_post_norm" => "post_attention_layernorm",
                    "ln2" => "pre_feedforward_layernorm",
                    "ffn_post_norm" => "post_feedforward_layernorm",
                    _ => return None,
                })
            })
        }),
    }
}
