//! The tower for pictures: patches, layers with sandwich norms and rotation along both axes, a mean over cells of patches, a projection.
//!
//! Gemma Team 2026; `Gemma4VisionModel` and `Gemma4MultimodalEmbedder` of transformers 5.23.0. The patches of a picture are brought into the
//! order of the cells first: a cell's patches then lie together, and the mean is one over spans. Padding never reaches the device.

use super::clipped::Clipped;
use crate::checkpoint::{Checkpoint, Fields};
use crate::loader::{Linear, LoadProgress, Loader, RmsNorm};
use crate::media::{Medium, Prepared, Tower};
use crate::models::decoder::{check_heads, layers};
use crate::models::pictures::Pictures;
use crate::models::towers::{floats, words};
use crate::{Error, Result};
use firelight_kernels::act::Activation;
use firelight_kernels::add_scale::add_scale;
use firelight_kernels::gated_act::gated_act;
use firelight_kernels::rope::rope;
use firelight_kernels::rope_kv::Pairing;
use firelight_kernels::scale_shift::scale_shift;
use firelight_kernels::span_attention::{Part, SpanAttentionArgs, span_attention};
use firelight_kernels::span_pool::{Pool, span_pool};
use firelight_kernels::{Array, Device, Recorder, Weight, embed};
use firelight_vision::{Layout, Plan};
use serde_json::Value;

/// The greatest number of tokens that the processor makes of a picture.
pub(super) const MOST_TOKENS: usize = 1120;

/// The numbers of the tower, under upstream's names.
struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    rms_norm_eps: f32,
    rope_theta: f64,
    patch_size: usize,
    pooling_kernel_size: usize,
    position_embedding_size: usize,
    use_clipped_linears: bool,
    standardize: bool,
}

impl Config {
    fn read(value: &Value) -> Result<Self> {
        let c = Fields(value);
        let size = |key: &str, default| Ok::<_, Error>(c.maybe_size(key)?.unwrap_or(default));
        let act = c.text("hidden_activation").unwrap_or("gelu_pytorch_tanh");
        if act != "gelu_pytorch_tanh" || c.flag("attention_bias") == Some(true) {
            return Err(Error::Unsupported(format!(
                "a gemma4 vision tower with `hidden_activation` {act} and `attention_bias` {}; expected gelu_pytorch_tanh and false",
                c.flag("attention_bias") == Some(true)
            )));
        }
        let rope = value.get("rope_parameters").unwrap_or(&Value::Null);
        let rope = Fields(rope);
        if let Some(kind) = rope
            .text("rope_type")
            .filter(|k| *k != "axial" && *k != "default")
        {
            return Err(Error::Unsupported(format!(
                "`rope_type` {kind} in a gemma4 vision tower; expected axial"
            )));
        }
        let heads = size("num_attention_heads", 12)?;
        let config = Config {
            hidden_size: size("hidden_size", 768)?,
            intermediate_size: size("intermediate_size", 3072)?,
            num_hidden_layers: layers(size("num_hidden_layers", 16)?)?,
            num_attention_heads: heads,
            num_key_value_heads: size("num_key_value_heads", heads)?,
            head_dim: size("head_dim", 64)?,
            rms_norm_eps: c.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope_theta: rope.number("rope_theta")?.unwrap_or(100.0),
            patch_size: size("patch_size", 16)?,
            pooling_kernel_size: size("pooling_kernel_size", 3)?,
            position_embedding_size: size("position_embedding_size", 10_240)?,
            use_clipped_linears: c.flag("use_clipped_linears") == Some(true),
            standardize: c.flag("standardize") == Some(true),
        };
        check_heads(
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )?;
        let (pool, patch) = (config.pooling_kernel_size, config.patch_size);
        if !config.head_dim.is_multiple_of(4)
            || pool == 0
            || pool > 64
            || patch == 0
            || patch > 1024
        {
            return Err(Error::malformed(
                "config.json",
                format!(
                    "vision_config: `head_dim` {} is to be a multiple of 4, `pooling_kernel_size` {pool} from 1 to 64, `patch_size` {patch} from 1 to 1024",
                    config.head_dim
                ),
            ));
        }
        Ok(config)
    }

    /// The rows of queries or keys with each head's quarters in the order 0, 2, 1, 3: the pairs that turn with the column, then those
    /// that turn with the row, are then pairs of one head of the usual kind. Scores do not depend on the order.
    fn quarters(&self, heads: usize) -> Vec<std::ops::Range<usize>> {
        let quarter = self.head_dim / 4;
        let place = |i: usize| [0, 2, 1, 3][i % 4] + i / 4 * 4;
        (0..4 * heads)
            .map(|i| place(i) * quarter..(place(i) + 1) * quarter)
            .collect()
    }
}

struct Block {
    input_layernorm: RmsNorm,
    q_proj: Clipped,
    k_proj: Clipped,
    v_proj: Clipped,
    o_proj: Clipped,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    gate_proj: Clipped,
    up_proj: Clipped,
    down_proj: Clipped,
    post_feedforward_layernorm: RmsNorm,
}

impl Block {
    fn load(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Self> {
        let (d, f, hd, eps) = (
            c.hidden_size,
            c.intermediate_size,
            c.head_dim,
            c.rms_norm_eps,
        );
        let (heads, kv_heads) = (c.num_attention_heads, c.num_key_value_heads);
        let clipped = c.use_clipped_linears;
        let norm =
            |l: &mut Loader<'_>, own: &str| l.rms_norm(&format!("{name}.{own}"), d, eps, 0.0);
        let linear = |l: &mut Loader<'_>, own: &str, rows: usize, cols: usize| {
            Clipped::load(l, &format!("{name}.{own}"), (rows, cols), clipped)
        };
        let turned = |l: &mut Loader<'_>, own: &str, heads: usize| {
            let name = format!("{name}.self_attn.{own}");
            Clipped::rows(l, &name, (heads * hd, d), &c.quarters(heads), clipped)
        };
        let head_norm = |l: &mut Loader<'_>, own: &str| -> Result<RmsNorm> {
            let values = l.host(&format!("{name}.self_attn.{own}.weight"), &[hd])?;
            let order = c.quarters(1);
            let values: Vec<f32> = order
                .into_iter()
                .flat_map(|quarter| values.get(quarter).unwrap_or_default().to_vec())
                .collect();
            Ok(RmsNorm {
                weight: l.upload(&values)?,
                eps,
                offset: 0.0,
            })
        };
        Ok(Block {
            input_layernorm: norm(l, "input_layernorm")?,
            q_proj: turned(l, "q_proj", heads)?,
            k_proj: turned(l, "k_proj", kv_heads)?,
            v_proj: linear(l, "self_attn.v_proj", kv_heads * hd, d)?,
            o_proj: linear(l, "self_attn.o_proj", d, heads * hd)?,
            q_norm: head_norm(l, "q_norm")?,
            k_norm: head_norm(l, "k_norm")?,
            post_attention_layernorm: norm(l, "post_attention_layernorm")?,
            pre_feedforward_layernorm: norm(l, "pre_feedforward_layernorm")?,
            gate_proj: linear(l, "mlp.gate_proj", f, d)?,
            up_proj: linear(l, "mlp.up_proj", f, d)?,
            down_proj: linear(l, "mlp.down_proj", d, f)?,
            post_feedforward_layernorm: norm(l, "post_feedforward_layernorm")?,
        })
    }

    /// Changes the residual stream `h` f32 `[T, D]`.
    fn forward(&self, rec: &mut Recorder, c: &Config, h: &Array, view: &View<'_>) -> Result<()> {
        let x = self.input_layernorm.forward(rec, h)?;
        let q = self.q_proj.forward(rec, &x)?;
        let q = self.q_norm.forward(rec, &q)?;
        let k = self.k_proj.forward(rec, &x)?;
        let k = self.k_norm.forward(rec, &k)?;
        let v = self.v_proj.forward(rec, &x)?;
        let v = view.v_norm.forward(rec, &v)?;
        rope(rec, &q, c.head_dim, view.rows, view.angles, Pairing::Half)?;
        rope(rec, &k, c.head_dim, view.rows, view.angles, Pairing::Half)?;
        let args = SpanAttentionArgs {
            q: Part::whole(&q),
            k: Part::whole(&k),
            v: Part::whole(&v),
            spans: view.spans,
            heads: c.num_attention_heads,
            kv_heads: c.num_key_value_heads,
            head_dim: c.head_dim,
            // The norms of queries and keys take the scale's part.
            scale: 1.0,
        };
        let x = span_attention(rec, args)?;
        drop((q, k, v));
        let x = self.o_proj.forward(rec, &x)?;
        let x = self.post_attention_layernorm.forward(rec, &x)?;
        let x = self.pre_feedforward_layernorm.add_forward(rec, h, &x)?;
        let gate = self.gate_proj.forward(rec, &x)?;
        let up = self.up_proj.forward(rec, &x)?;
        let x = gated_act(rec, &gate, &up, Activation::GeluTanh)?;
        drop((gate, up));
        let x = self.down_proj.forward(rec, &x)?;
        let x = self.post_feedforward_layernorm.forward(rec, &x)?;
        Ok(add_scale(rec, h, &x, 1.0)?)
    }
}

/// What all layers see of a picture.
struct View<'a> {
    rows: &'a Array,
    angles: &'a Array,
    spans: &'a Array,
    v_norm: &'a RmsNorm,
}

/// See the module's head.
pub(in crate::models) struct Vision {
    config: Config,
    input_proj: Linear,
    /// `[2 · positions, D]`: of columns, then of rows.
    position_embedding_table: Weight,
    layers: Vec<Block>,
    /// Without a weight.
    v_norm: RmsNorm,
    /// Factor and offset of each column of the pooled features.
    standard: [Array; 2],
    /// Without a weight.
    embedding_pre_projection_norm: RmsNorm,
    embedding_projection: Linear,
    pictures: Pictures,
    padding: u32,
}

impl Vision {
    pub(in crate::models) fn load(
        checkpoint: &Checkpoint,
        config: &Value,
        hidden: usize,
        device: &Device,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Self> {
        let c = Config::read(config.get("vision_config").unwrap_or(&Value::Null))?;
        let text = config.get("text_config").unwrap_or(config);
        let padding = Fields(text).count("pad_token_id")?;
        let mut report = |done, total| progress(done, total);
        let mut l = Loader::new(checkpoint, device, |_| None, &mut report);
        let (d, eps) = (c.hidden_size, c.rms_norm_eps);
        let name = |own: &str| format!("vision_tower.{own}");
        let positions = 2 * c.position_embedding_size;
        let root = (d as f32).sqrt();
        let standard = match c.standardize {
            true => {
                let bias = l.host(&name("std_bias"), &[d])?;
                let scale = l.host(&name("std_scale"), &[d])?;
                let shift = bias.iter().zip(&scale).map(|(b, s)| -b * s).collect();
                [scale.iter().map(|s| s * root).collect(), shift]
            }
            false => [vec![root; d], vec![0.0; d]],
        };
        let plain = |l: &Loader<'_>, n: usize| -> Result<RmsNorm> {
            Ok(RmsNorm {
                weight: l.upload(&vec![1.0; n])?,
                eps,
                offset: 0.0,
            })
        };
        let patch = 3 * c.patch_size * c.patch_size;
        Ok(Vision {
            input_proj: match l.has(&name("patch_embedder.conv.weight")) {
                true => convolution(&mut l, &name("patch_embedder.conv.weight"), d, c.patch_size)?,
                false => l.patch_embedding(&name("patch_embedder.input_proj"), &[d, patch])?,
            },
            position_embedding_table: l.matrix(
                &name("patch_embedder.position_embedding_table"),
                &[2, c.position_embedding_size, d],
                std::slice::from_ref(&(0..positions)),
            )?,
            layers: (0..c.num_hidden_layers)
                .map(|i| Block::load(&mut l, &c, &name(&format!("encoder.layers.{i}"))))
                .collect::<Result<_>>()?,
            v_norm: plain(&l, c.head_dim)?,
            standard: [l.upload(&standard[0])?, l.upload(&standard[1])?],
            embedding_pre_projection_norm: plain(&l, d)?,
            embedding_projection: l.linear("embed_vision.embedding_projection", hidden, d)?,
            pictures: Pictures::open(checkpoint, config, "<|image|>")?,
            padding: padding as u32,
            config: c,
        })
    }

    /// Cosine and sine of each patch's pairs: the first half of them turns with the column, the other with the row; f32 `[T, HD / 2, 2]`.
    fn angles(&self, places: &[Place]) -> Vec<f32> {
        let each = self.config.head_dim / 4;
        let frequency =
            |i: usize| (1.0 / self.config.rope_theta.powf(i as f64 / each as f64)) as f32;
        let frequencies: Vec<f32> = (0..each).map(frequency).collect();
        let mut table = Vec::with_capacity(places.len() * each * 4);
        for place in places {
            for axis in [place.x, place.y] {
                for frequency in &frequencies {
                    let angle = f64::from(axis as f32 * frequency);
                    table.extend([angle.cos() as f32, angle.sin() as f32]);
                }
            }
        }
        table
    }

    /// The patches of a prepared picture, cell by cell.
    fn places(&self, prepared: &Prepared) -> Result<Vec<Place>> {
        let positions = prepared.tensor("image_position_ids")?;
        let bytes = positions.bytes();
        let listed: Vec<Place> = bytes
            .chunks_exact(16)
            .enumerate()
            .filter_map(|(index, pair)| {
                let axis = |at: usize| {
                    let bytes = pair.get(at..at + 8)?.try_into().ok()?;
                    usize::try_from(i64::from_le_bytes(bytes)).ok()
                };
                Some(Place {
                    index,
                    x: axis(0)?,
                    y: axis(8)?,
                })
            })
            .collect();
        let (pool, most) = (
            self.config.pooling_kernel_size,
            self.config.position_embedding_size,
        );
        let cols = listed.iter().map(|p| p.x + 1).max().unwrap_or(0);
        let rows = listed.iter().map(|p| p.y + 1).max().unwrap_or(0);
        let whole = cols.is_multiple_of(pool) && rows.is_multiple_of(pool);
        if listed.is_empty() || listed.len() != cols * rows || !whole || cols.max(rows) > most {
            return Err(Error::invalid(format!(
                "a picture of {cols}×{rows} patches; this tower takes whole cells of {pool}×{pool}, at most {most} patches along a side"
            )));
        }
        let mut places = listed;
        let cell = |p: &Place| (p.y / pool, p.x / pool, p.y, p.x);
        places.sort_by_key(cell);
        Ok(places)
    }
}

/// GGUF has the patches' matrix as a convolution `[d, 3, p, p]`; here a patch's values are row, column, channel.
fn convolution(l: &mut Loader<'_>, name: &str, d: usize, patch: usize) -> Result<Linear> {
    let values = l.host(name, &[d, 3, patch, patch])?;
    let (plane, row) = (patch * patch, 3 * patch * patch);
    let at = |i: usize| i / row * row + i % 3 * plane + i % row / 3;
    let turned: Vec<f32> = (0..d * row).map(|i| values[at(i)]).collect();
    Ok(Linear {
        weight: l.padded_matrix(&turned, d, row)?,
        bias: None,
    })
}

/// A patch: where it is listed, and its column and row.
struct Place {
    index: usize,
    x: usize,
    y: usize,
}

impl Tower for Vision {
    fn mark(&self) -> &str {
        self.pictures.mark()
    }

    fn placeholder(&self) -> u32 {
        self.pictures.placeholder()
    }

    fn padding(&self) -> u32 {
        self.padding
    }

    fn prepare(&self, medium: &Medium, budget: Option<usize>) -> Result<Prepared> {
        let begin = self.pictures.token("boi_token", "<|image>");
        let end = self.pictures.token("eoi_token", "<image|>");
        let text = |plan: &Plan| {
            let tokens = self.pictures.mark().repeat(plan.tokens(0));
            format!("{begin}{tokens}{end}")
        };
        let grid = |plan: &Plan| match plan.layout {
            Layout::Soft { rows, cols, pool } => [1, rows / pool.max(1), cols / pool.max(1)],
            _ => [0; 3],
        };
        self.pictures.prepare(medium, budget, 0, text, grid)
    }

    fn forward(&self, rec: &mut Recorder, prepared: &Prepared) -> Result<Array> {
        let pooled = self.tower(rec, prepared)?;
        let x = self.embedding_pre_projection_norm.forward(rec, &pooled)?;
        self.embedding_projection.forward(rec, &x)
    }

    fn stages(
        &self,
        rec: &mut Recorder,
        prepared: &Prepared,
    ) -> Result<Vec<(&'static str, Array)>> {
        Ok(vec![("vision_tower", self.tower(rec, prepared)?)])
    }
}

impl Vision {
    /// Records the tower up to the pooled features f32 `[tokens, D]`.
    fn tower(&self, rec: &mut Recorder, prepared: &Prepared) -> Result<Array> {
        let (c, device) = (&self.config, rec.device().clone());
        let places = self.places(prepared)?;
        let pixels = prepared.tensor("pixel_values")?;
        let values = pixels.as_f32().unwrap_or_default();
        let (t, width) = (places.len(), 3 * c.patch_size * c.patch_size);
        let columns = self.input_proj.weight.cols();
        // Pixels come as 0 … 1 and are seen as −1 … 1.
        let mut patches = vec![0.0f32; t * columns];
        for (place, to) in places.iter().zip(patches.chunks_exact_mut(columns)) {
            let from = place.index * width;
            let from = values.get(from..from + width).ok_or_else(|| {
                Error::invalid(format!(
                    "pixel_values {:?}; this tower takes patches of {width}",
                    pixels.shape()
                ))
            })?;
            for (to, from) in to.iter_mut().zip(from) {
                *to = 2.0 * (from - 0.5);
            }
        }
        let patches = floats(&device, &[t, columns], &patches)?;
        let h = self.input_proj.forward(rec, &patches)?;
        let beside = c.position_embedding_size;
        for ids in [
            places.iter().map(|p| p.x as u32).collect::<Vec<_>>(),
            places.iter().map(|p| (beside + p.y) as u32).collect(),
        ] {
            let ids = words(&device, &[t], &ids)?;
            let embedded = embed::embed(rec, &ids, &self.position_embedding_table, 1.0)?;
            add_scale(rec, &h, &embedded, 1.0)?;
        }
        let angles = floats(&device, &[t, c.head_dim / 2, 2], &self.angles(&places))?;
        let rows: Vec<u32> = (0..t as u32).flat_map(|i| [0, i]).collect();
        let rows = words(&device, &[t, 2], &rows)?;
        let spans = words(&device, &[t, 2], &[0, t as u32].repeat(t))?;
        let view = View {
            rows: &rows,
            angles: &angles,
            spans: &spans,
            v_norm: &self.v_norm,
        };
        for block in &self.layers {
            block.forward(rec, c, &h, &view)?;
        }
        let cell = (c.pooling_kernel_size * c.pooling_kernel_size) as u32;
        let cells: Vec<u32> = (0..t as u32 / cell)
            .flat_map(|i| [i * cell, (i + 1) * cell])
            .collect();
        let cells = words(&device, &[cells.len() / 2, 2], &cells)?;
        let x = span_pool(rec, &h, &cells, Pool::Mean)?;
        scale_shift(rec, &x, &self.standard[0], &self.standard[1])?;
        Ok(x)
    }
}
