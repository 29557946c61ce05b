//! The vision tower of Qwen2-VL and Qwen3.5: patches in merge blocks, 2-D rotary positions, attention within a picture, a merger.
//!
//! Wang et al. 2024 (Qwen2-VL); reference `transformers/models/qwen2_vl/modeling_qwen2_vl.py`, `qwen3_5/modeling_qwen3_5.py` and
//! `vision_utils.py` 5.23.0. [`Style`] says what differs.

use super::bert::{activation, head_dim};
use super::parts::Stream;
use super::pictures::Pictures;
use super::towers::{floats, words};
use crate::checkpoint::{Checkpoint, Fields};
use crate::loader::{Linear, LoadProgress, Loader};
use crate::media::{Medium, Prepared, Tower};
use crate::norm::LayerNorm;
use crate::{Error, Result};
use firelight_kernels::act::Activation;
use firelight_kernels::add_scale::add_scale;
use firelight_kernels::rope::rope;
use firelight_kernels::rope_kv::Pairing;
use firelight_kernels::span_attention::{Part, SpanAttentionArgs, span_attention};
use firelight_kernels::{Array, Device, Recorder};
use firelight_vision::{Layout, Plan};
use serde_json::Value;

/// What differs between the families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// No learned positions.
    Qwen2Vl,
    /// Learned positions on a square grid, resampled.
    Qwen3,
}

struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    depth: usize,
    num_heads: usize,
    head_dim: usize,
    patch_size: usize,
    temporal_patch_size: usize,
    spatial_merge_size: usize,
    in_channels: usize,
    hidden_act: Activation,
    /// Side of the grid of learned positions.
    grid: Option<usize>,
    out_hidden_size: usize,
    /// Base of the rotary frequencies.
    theta: f64,
}

impl Config {
    fn read(value: &Value, style: Style) -> Result<Self> {
        let c = Fields(value);
        let size = |key: &str, default: usize| -> Result<usize> {
            Ok(c.maybe_size(key)?.unwrap_or(default))
        };
        let (hidden_size, heads, depth, hidden_act, intermediate_size, out) = match style {
            Style::Qwen2Vl => {
                let hidden = size("embed_dim", 1280)?;
                let ratio = c.number("mlp_ratio")?.unwrap_or(4.0);
                if !(0.0..=64.0).contains(&ratio) {
                    return Err(Error::malformed(
                        "config.json",
                        format!("`mlp_ratio` {ratio}"),
                    ));
                }
                (
                    hidden,
                    size("num_heads", 16)?,
                    size("depth", 32)?,
                    activation(&c, "hidden_act", "quick_gelu")?,
                    (hidden as f64 * ratio) as usize,
                    size("hidden_size", 3584)?,
                )
            }
            Style::Qwen3 => (
                size("hidden_size", 1152)?,
                size("num_heads", 16)?,
                size("depth", 27)?,
                activation(&c, "hidden_act", "gelu_pytorch_tanh")?,
                size("intermediate_size", 4304)?,
                size("out_hidden_size", 3584)?,
            ),
        };
        let head_dim = head_dim(depth, ("hidden_size", hidden_size), ("num_heads", heads))?;
        let grid = match style {
            Style::Qwen2Vl => None,
            Style::Qwen3 => {
                let positions = size("num_position_embeddings", 2304)?;
                let side = positions.isqrt();
                if side * side != positions {
                    return Err(Error::malformed(
                        "config.json",
                        format!("`num_position_embeddings` {positions} is no square"),
                    ));
                }
                Some(side)
            }
        };
        let in_channels = match style {
            Style::Qwen2Vl => c
                .maybe_size("in_chans")?
                .or(c.maybe_size("in_channels")?)
                .unwrap_or(3),
            Style::Qwen3 => size("in_channels", 3)?,
        };
        let merge = size("spatial_merge_size", 2)?;
        if in_channels != 3 || merge > 16 {
            return Err(Error::Unsupported(format!(
                "`in_channels` {in_channels}, `spatial_merge_size` {merge} of a vision tower; expected 3 and at most 16"
            )));
        }
        Ok(Config {
            hidden_size,
            intermediate_size,
            depth,
            num_heads: heads,
            head_dim,
            patch_size: size("patch_size", if style == Style::Qwen3 { 16 } else { 14 })?,
            temporal_patch_size: size("temporal_patch_size", 2)?,
            spatial_merge_size: merge,
            in_channels,
            hidden_act,
            grid,
            out_hidden_size: out,
            theta: match value.get("rope_parameters") {
                Some(rope) => Fields(rope).number("rope_theta")?.unwrap_or(1e4),
                None => 1e4,
            },
        })
    }
}

struct Block {
    norm1: LayerNorm,
    qkv: [Linear; 3],
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn load(l: &mut Loader<'_>, c: &Config, style: Style, i: usize) -> Result<Self> {
        let (d, f) = (c.hidden_size, c.intermediate_size);
        let name = |part: &str| format!("visual.blocks.{i}.{part}");
        // One matrix, or three in some GGUF files.
        let apart = l.has(&name("attn.q.weight"));
        let mut qkv = |n: usize, own: &str| match apart {
            true => l.linear(&name(own), d, d),
            false => l.linear_part(&name("attn.qkv"), n * d..(n + 1) * d, 3 * d, d, true),
        };
        let qkv = [qkv(0, "attn.q")?, qkv(1, "attn.k")?, qkv(2, "attn.v")?];
        let [fc1, fc2] = match style {
            Style::Qwen2Vl => ["mlp.fc1", "mlp.fc2"],
            Style::Qwen3 => ["mlp.linear_fc1", "mlp.linear_fc2"],
        };
        Ok(Block {
            norm1: l.layer_norm(&name("norm1"), d, EPS)?,
            qkv,
            proj: l.linear(&name("attn.proj"), d, d)?,
            norm2: l.layer_norm(&name("norm2"), d, EPS)?,
            fc1: l.linear(&name(fc1), f, d)?,
            fc2: l.linear(&name(fc2), d, f)?,
        })
    }
}

/// Upstream writes it into the code.
const EPS: f32 = 1e-6;

/// See the module's head.
pub(super) struct QwenVision {
    config: Config,
    patch_embed: Linear,
    /// f32 `[side², D]` on the host: pictures of every size resample it.
    pos_embed: Option<Vec<f32>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    merger: [Linear; 2],
    pictures: Pictures,
}

impl QwenVision {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        config: &Value,
        style: Style,
        hidden: usize,
        device: &Device,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Self> {
        let c = Config::read(config.get("vision_config").unwrap_or(&Value::Null), style)?;
        if c.out_hidden_size != hidden {
            return Err(Error::malformed(
                "config.json",
                format!(
                    "the vision tower gives {} elements (`hidden_size` or `out_hidden_size` of `vision_config`) to a text model of `hidden_size` {hidden}",
                    c.out_hidden_size
                ),
            ));
        }
        let mut report = |done, total| progress(done, total);
        let mut l = Loader::new(checkpoint, device, |_| None, &mut report);
        let (d, merge) = (c.hidden_size, c.spatial_merge_size);
        let wide = d * merge * merge;
        let patch = [
            d,
            c.in_channels,
            c.temporal_patch_size,
            c.patch_size,
            c.patch_size,
        ];
        let pos_embed = match c.grid {
            Some(side) => Some(l.host("visual.pos_embed.weight", &[side * side, d])?),
            None => None,
        };
        let [norm, fc1, fc2] = match style {
            Style::Qwen2Vl => ["ln_q", "mlp.0", "mlp.2"],
            Style::Qwen3 => ["norm", "linear_fc1", "linear_fc2"],
        };
        let merger = |name: &str| format!("visual.merger.{name}");
        Ok(QwenVision {
            patch_embed: l.patch_embedding("visual.patch_embed.proj", &patch)?,
            pos_embed,
            blocks: (0..c.depth)
                .map(|i| Block::load(&mut l, &c, style, i))
                .collect::<Result<_>>()?,
            norm: l.layer_norm(&merger(norm), d, EPS)?,
            merger: [
                l.linear(&merger(fc1), wide, wide)?,
                l.linear(&merger(fc2), hidden, wide)?,
            ],
            pictures: Pictures::open(checkpoint, config, "<|image_pad|>")?,
            config: c,
        })
    }

    /// Row and column of every patch, in the order of the patches: merge block by merge block.
    fn coordinates(&self, [frames, height, width]: [usize; 3]) -> Vec<[usize; 2]> {
        let merge = self.config.spatial_merge_size;
        let mut all = Vec::with_capacity(frames * height * width);
        for _ in 0..frames {
            for by in (0..height).step_by(merge) {
                for bx in (0..width).step_by(merge) {
                    for y in by..by + merge {
                        all.extend((bx..bx + merge).map(|x| [y, x]));
                    }
                }
            }
        }
        all
    }

    /// Cosine and sine of each patch's pairs: the first half of them turns with the row, the other with the column; f32
    /// `[T, HD / 2, 2]`.
    fn angles(&self, coordinates: &[[usize; 2]]) -> Vec<f32> {
        let pairs = self.config.head_dim / 2;
        let each = pairs / 2;
        let frequency =
            |i: usize| (1.0 / self.config.theta.powf((2 * i) as f64 / pairs as f64)) as f32;
        let frequencies: Vec<f32> = (0..each).map(frequency).collect();
        let mut table = Vec::with_capacity(coordinates.len() * pairs * 2);
        for place in coordinates {
            for i in 0..pairs {
                let axis = usize::from(i >= each);
                let angle = f64::from(place[axis.min(1)] as f32 * frequencies[i - axis * each]);
                table.extend([angle.cos() as f32, angle.sin() as f32]);
            }
        }
        table
    }

    /// The learned positions at the patches, bilinear with aligned corners, f32 `[T, D]`.
    fn positions(
        &self,
        table: &[f32],
        [_, height, width]: [usize; 3],
        coordinates: &[[usize; 2]],
    ) -> Vec<f32> {
        let (side, d) = (self.config.grid.unwrap_or(1), self.config.hidden_size);
        // Source coordinate, its two neighbours and the weight of the second, in f32 as the reference.
        let axis = |i: usize, n: usize| {
            let at = (i * (side - 1)) as f32 / n.saturating_sub(1).max(1) as f32;
            let low = (at.floor() as usize).min(side - 1);
            (low, (low + 1).min(side - 1), at - low as f32)
        };
        let mut out = Vec::with_capacity(coordinates.len() * d);
        for &[y, x] in coordinates {
            let (y0, y1, wy) = axis(y, height);
            let (x0, x1, wx) = axis(x, width);
            let row = |y: usize, x: usize| &table[(y * side + x) * d..][..d];
            let taps = [
                (row(y0, x0), (1.0 - wy) * (1.0 - wx)),
                (row(y0, x1), (1.0 - wy) * wx),
                (row(y1, x0), wy * (1.0 - wx)),
                (row(y1, x1), wy * wx),
            ];
            out.extend((0..d).map(|i| taps.iter().map(|(row, w)| row[i] * w).sum::<f32>()));
        }
        out
    }
}

impl Tower for QwenVision {
    fn mark(&self) -> &str {
        self.pictures.mark()
    }

    fn placeholder(&self) -> u32 {
        self.pictures.placeholder()
    }

    fn prepare(&self, medium: &Medium, budget: Option<usize>) -> Result<Prepared> {
        let merge = self.config.spatial_merge_size;
        let text = |plan: &Plan| self.pictures.mark().repeat(plan.tokens(0));
        let grid = |plan: &Plan| match plan.layout {
            Layout::Grid { t, h, w, .. } => [t, h / merge, w / merge],
            _ => [0; 3],
        };
        self.pictures.prepare(medium, budget, 0, text, grid)
    }

    fn forward(&self, rec: &mut Recorder, prepared: &Prepared) -> Result<Array> {
        let (c, device) = (&self.config, rec.device().clone());
        let patches = prepared.tensor("pixel_values")?;
        let merge = c.spatial_merge_size;
        let grid = [
            prepared.grid[0],
            prepared.grid[1] * merge,
            prepared.grid[2] * merge,
        ];
        let (t, k) = (
            grid.iter().product::<usize>(),
            self.patch_embed.weight.cols(),
        );
        let values = patches.as_f32().unwrap_or_default();
        if t == 0 || patches.shape() != [t, k] {
            return Err(Error::invalid(format!(
                "pixel_values {:?}; this tower takes {t} patches of {k} for a grid of {grid:?}",
                patches.shape()
            )));
        }
        let coordinates = self.coordinates(grid);
        let x = floats(&device, &[t, k], values)?;
        let h = self.patch_embed.forward(rec, &x)?;
        if let Some(table) = &self.pos_embed {
            let positions = self.positions(table, grid, &coordinates);
            let positions = floats(&device, &[t, c.hidden_size], &positions)?;
            add_scale(rec, &h, &positions, 1.0)?;
        }
        let angles = floats(&device, &[t, c.head_dim / 2, 2], &self.angles(&coordinates))?;
        let rows: Vec<u32> = (0..t as u32).flat_map(|i| [0, i]).collect();
        let rows = words(&device, &[t, 2], &rows)?;
        let frame = (grid[1] * grid[2]) as u32;
        let spans: Vec<u32> = (0..t as u32)
            .flat_map(|i| [i / frame * frame, (i / frame + 1) * frame])
            .collect();
        let spans = words(&device, &[t, 2], &spans)?;
        let mut stream = Stream::new(h);
        for block in &self.blocks {
            let x = stream.norm(rec, &block.norm1)?;
            let [q, k, v] = &block.qkv;
            let (q, k, v) = (
                q.forward(rec, &x)?,
                k.forward(rec, &x)?,
                v.forward(rec, &x)?,
            );
            rope(rec, &q, c.head_dim, &rows, &angles, Pairing::Half)?;
            rope(rec, &k, c.head_dim, &rows, &angles, Pairing::Half)?;
            let args = SpanAttentionArgs {
                q: Part::whole(&q),
                k: Part::whole(&k),
                v: Part::whole(&v),
                spans: &spans,
                heads: c.num_heads,
                kv_heads: c.num_heads,
                head_dim: c.head_dim,
                scale: (c.head_dim as f32).powf(-0.5),
            };
            let out = span_attention(rec, args)?;
            drop((q, k, v, x));
            stream.add(block.proj.forward(rec, &out)?);
            let x = stream.norm(rec, &block.norm2)?;
            let f = block.fc1.forward_act(rec, &x, c.hidden_act)?;
            stream.add(block.fc2.forward(rec, &f)?);
        }
        let x = stream.norm(rec, &self.norm)?;
        let blocks = merge * merge;
        let x = x.reshape(&[t / blocks, blocks * c.hidden_size])?;
        let [fc1, fc2] = &self.merger;
        let x = fc1.forward_act(rec, &x, Activation::Gelu)?;
        fc2.forward(rec, &x)
    }
}
