//! The tower: patches, SigLIP's layers, pixel shuffle, one projection.

use crate::checkpoint::{Checkpoint, Fields};
use crate::loader::{Linear, LoadProgress, Loader};
use crate::media::{Medium, Prepared, Tower};
use crate::models::parts::Stream;
use crate::models::pictures::Pictures;
use crate::models::towers::{floats, words};
use crate::models::vit::{Vit, VitConfig, VitDefaults};
use crate::norm::LayerNorm;
use crate::{Error, Result};
use firelight_kernels::{Array, DType, Device, Recorder, Weight, embed};
use firelight_tensor::Tensor;
use firelight_vision::{Layout, PatchLayout, PatchOrder, Plan, patchify};
use serde_json::Value;

/// Patches that go through the layers at once: enough for the matrix products, little enough for the memory.
const PATCHES_AT_ONCE: usize = 2048;

/// See the module's head.
pub(in crate::models) struct Vision {
    patch_size: usize,
    /// Patches along a side of a tile.
    side: usize,
    scale_factor: usize,
    patch_embedding: Linear,
    position_embedding: Weight,
    layers: Vit,
    post_layernorm: LayerNorm,
    proj: Linear,
    pictures: Pictures,
    /// Tokens of a tile.
    tokens: usize,
}

impl Vision {
    pub(in crate::models) fn load(
        checkpoint: &Checkpoint,
        config: &Value,
        hidden: usize,
        device: &Device,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Self> {
        let value = config.get("vision_config").unwrap_or(&Value::Null);
        let c = Fields(value);
        let vit = VitConfig::read(
            &c,
            &VitDefaults {
                hidden_size: 1152,
                intermediate_size: 3072,
                num_hidden_layers: 12,
                num_attention_heads: 16,
                hidden_act: "gelu_pytorch_tanh",
                layer_norm_eps: 1e-6,
            },
        )?;
        let patch_size = c.maybe_size("patch_size")?.unwrap_or(32);
        let image_size = c.maybe_size("image_size")?.unwrap_or(224);
        let channels = c.maybe_size("num_channels")?.unwrap_or(3);
        let scale_factor = Fields(config).maybe_size("scale_factor")?.unwrap_or(2);
        let side = image_size / patch_size;
        if channels != 3
            || side == 0
            || side > 1024
            || scale_factor == 0
            || !side.is_multiple_of(scale_factor)
        {
            return Err(Error::malformed(
                "config.json",
                format!(
                    "`image_size` {image_size}, `patch_size` {patch_size}, `scale_factor` {scale_factor}, `num_channels` {channels}; expected colour pictures and a whole number of `scale_factor` patches along a side"
                ),
            ));
        }
        let mut report = |done, total| progress(done, total);
        let mut l = Loader::new(checkpoint, device, |_| None, &mut report);
        let d = vit.hidden_size;
        let eps = vit.layer_norm_eps;
        let patch = [d, channels, patch_size, patch_size];
        Ok(Vision {
            patch_size,
            side,
            scale_factor,
            patch_embedding: l
                .patch_embedding("vision_model.embeddings.patch_embedding", &patch)?,
            position_embedding: l.weight(
                "vision_model.embeddings.position_embedding",
                side * side,
                d,
            )?,
            layers: Vit::load(&mut l, vit, "vision_model.encoder")?,
            post_layernorm: l.layer_norm("vision_model.post_layernorm", d, eps)?,
            proj: l.linear(
                "connector.modality_projection.proj",
                hidden,
                d * scale_factor * scale_factor,
            )?,
            pictures: Pictures::open(checkpoint, config, "<image>")?,
            tokens: (side / scale_factor).pow(2),
        })
    }

    /// The order in which the pixel shuffle takes a tile's patches: blocks row by row, in each its rows.
    fn shuffled(&self, tiles: usize) -> Vec<u32> {
        let (side, s) = (self.side, self.scale_factor);
        let mut order = Vec::with_capacity(tiles * side * side);
        for tile in 0..tiles {
            for by in (0..side).step_by(s) {
                for bx in (0..side).step_by(s) {
                    for y in by..by + s {
                        order.extend(
                            (bx..bx + s).map(|x| (tile * side * side + y * side + x) as u32),
                        );
                    }
                }
            }
        }
        order
    }

    /// Rows of the position table for a tile of `side` × `side` patches: each coordinate by the f32 bucket it falls into, as the
    /// reference computes it.
    fn positions(&self) -> Vec<u32> {
        let n = self.side;
        // torch.arange(1 / n, 1.0, 1 / n): its values are computed in f64 and rounded.
        let step = 1.0 / n as f64;
        let count = ((1.0 - step) / step).ceil() as usize;
        let boundaries: Vec<f32> = (0..count)
            .map(|i| (step + i as f64 * step) as f32)
            .collect();
        let bucket = |i: usize| {
            let at = (i as f32 * (1.0 / n as f32)).min(1.0 - 1e-6);
            boundaries.partition_point(|&b| b <= at).min(n - 1)
        };
        (0..n * n)
            .map(|i| (bucket(i / n) * n + bucket(i % n)) as u32)
            .collect()
    }

    /// Records some tiles: features f32 `[tiles · tokens, D]`.
    fn tiles(&self, rec: &mut Recorder, pixels: &[f32], tiles: usize) -> Result<Array> {
        let device = rec.device().clone();
        let size = self.side * self.patch_size;
        let layout = PatchLayout {
            patch: self.patch_size,
            temporal: 1,
            merge: 1,
            order: PatchOrder::ChannelFirst,
        };
        let frames = Tensor::from_f32(pixels, &[tiles, 3, size, size])?;
        let patches = patchify(&frames, layout)?.values;
        let &[t, k] = patches.shape() else {
            return Err(Error::invalid("patches without two dimensions"));
        };
        let patches = floats(&device, &[t, k], patches.as_f32().unwrap_or_default())?;
        let per_tile = self.side * self.side;
        let positions: Vec<u32> = self.positions().repeat(tiles);
        let spans: Vec<u32> = (0..t)
            .flat_map(|i| {
                let first = i / per_tile * per_tile;
                [first as u32, (first + per_tile) as u32]
            })
            .collect();
        let positions = words(&device, &[t], &positions)?;
        let spans = words(&device, &[t, 2], &spans)?;
        let order = words(&device, &[t], &self.shuffled(tiles))?;
        let h = self.patch_embedding.forward(rec, &patches)?;
        let positions = embed::embed(rec, &positions, &self.position_embedding, 1.0)?;
        let mut stream = Stream::new(h);
        stream.add(positions);
        self.layers.forward(rec, &mut stream, &spans)?;
        let x = stream.norm(rec, &self.post_layernorm)?;
        let x = embed::embed(rec, &order, &Weight::from_array(&x)?, 1.0)?;
        let block = self.scale_factor * self.scale_factor;
        let x = x.reshape(&[t / block, block * x.shape()[1]])?;
        self.proj.forward(rec, &x)
    }
}

/// What takes a picture's place: each tile behind a mark of its row and column, a line per row, the whole picture last.
fn expanded(pictures: &Pictures, plan: &Plan, tokens: usize) -> String {
    let image = pictures.mark().repeat(tokens);
    let fake = pictures.token("fake_image_token", "<fake_token_around_image>");
    let global = pictures.token("global_image_token", "<global-img>");
    let mut text = String::new();
    if let Layout::Tiles { rows, cols, .. } = plan.layout
        && rows > 0
        && cols > 0
    {
        for row in 1..=rows {
            for col in 1..=cols {
                text.push_str(&format!("{fake}<row_{row}_col_{col}>{image}"));
            }
            text.push('\n');
        }
        text.push('\n');
    }
    text.push_str(&format!("{fake}{global}{image}{fake}"));
    text
}

impl Tower for Vision {
    fn mark(&self) -> &str {
        self.pictures.mark()
    }

    fn placeholder(&self) -> u32 {
        self.pictures.placeholder()
    }

    fn prepare(&self, medium: &Medium, budget: Option<usize>) -> Result<Prepared> {
        let tokens = self.tokens;
        if let Some(said) = self.pictures.image_seq_len()
            && said != tokens
        {
            return Err(Error::malformed(
                "processor_config.json",
                format!("`image_seq_len` {said}, but the tower makes {tokens} tokens of a tile"),
            ));
        }
        let text = |plan: &Plan| expanded(&self.pictures, plan, tokens);
        let grid = |plan: &Plan| [1, 1, plan.tokens(tokens)];
        self.pictures.prepare(medium, budget, tokens, text, grid)
    }

    fn forward(&self, rec: &mut Recorder, prepared: &Prepared) -> Result<Array> {
        let pixels = prepared.tensor("pixel_values")?;
        let size = self.side * self.patch_size;
        let tile = 3 * size * size;
        let values = pixels.as_f32().unwrap_or_default();
        let count = values.len() / tile;
        if count == 0 || values.len() != count * tile || !pixels.shape().ends_with(&[3, size, size])
        {
            return Err(Error::invalid(format!(
                "pixel_values {:?}; this tower takes tiles of {size}×{size}",
                pixels.shape()
            )));
        }
        let at_once = (PATCHES_AT_ONCE / (self.side * self.side)).max(1);
        if count <= at_once {
            return self.tiles(rec, values, count);
        }
        let per_tile = prepared.tokens / count;
        let rows: Vec<u32> = (0..prepared.tokens as u32).collect();
        let rows = words(&rec.device().clone(), &[rows.len()], &rows)?;
        let out = rec.temp(DType::F32, &[prepared.tokens, self.proj.weight.rows()])?;
        for (i, group) in values.chunks(at_once * tile).enumerate() {
            let features = self.tiles(rec, group, group.len() / tile)?;
            let first = (i * at_once * per_tile) as u32;
            embed::embed_into(
                rec,
                &rows,
                (&Weight::from_array(&features)?, first),
                1.0,
                &out,
            )?;
        }
        Ok(out)
    }
}
