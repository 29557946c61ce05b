//! Two towers that end in one space: what CLIP and SigLIP share. Their own files say where the numbers are and how a text and a picture
//! become a vector.

use super::parts::Stream;
use super::towers::{floats, words};
use super::vit::{Vit, VitConfig};
use crate::checkpoint::{Checkpoint, Config as Source, Fields};
use crate::encoder::{
    Encoder, EncoderInputs, EncoderSpec, Head, PictureEncoder, PictureSpec, Similarity, Texts,
};
use crate::loader::{Linear, Loader};
use crate::norm::LayerNorm;
use crate::{Error, Result};
use firelight_kernels::{Array, DType, Recorder, Weight, embed};
use firelight_tensor::Tensor;
use firelight_vision::{PatchLayout, PatchOrder, Processor, patchify};
use serde_json::Value;

/// The configuration of a checkpoint, which is a folder.
pub(super) fn config<'a>(checkpoint: &'a Checkpoint, family: &str) -> Result<&'a Value> {
    match checkpoint.config()? {
        Source::Json(value) => Ok(value),
        Source::Gguf(_) => Err(Error::Unsupported(format!(
            "a {family} in a GGUF file; take the model's folder with safetensors"
        ))),
    }
}

/// The part of a configuration that is a tower's.
pub(super) fn part<'a>(config: &'a Value, key: &str) -> &'a Value {
    config.get(key).unwrap_or(&Value::Null)
}

/// A text tower: tokens and positions, layers, a norm, and what makes a vector of one hidden state.
pub(super) struct Text {
    token_embedding: Weight,
    position_embedding: Weight,
    layers: Vit,
    final_layer_norm: LayerNorm,
    head: Linear,
}

/// Sizes of a text tower beside its layers'.
pub(super) struct TextSizes {
    pub vocab: usize,
    pub positions: usize,
    /// Elements of a vector.
    pub dims: usize,
}

impl Text {
    /// `head` is what the checkpoint calls the last projection.
    pub(super) fn load(
        l: &mut Loader<'_>,
        c: VitConfig,
        sizes: &TextSizes,
        head: &str,
    ) -> Result<Self> {
        let (d, eps) = (c.hidden_size, c.layer_norm_eps);
        let name = |own: &str| format!("text_model.{own}");
        Ok(Text {
            token_embedding: l.table(
                &name("embeddings.token_embedding"),
                ("vocab_size", sizes.vocab),
                d,
            )?,
            position_embedding: l.table(
                &name("embeddings.position_embedding"),
                ("max_position_embeddings", sizes.positions),
                d,
            )?,
            layers: Vit::load(l, c, &name("encoder"))?,
            final_layer_norm: l.layer_norm(&name("final_layer_norm"), d, eps)?,
            head: l.linear(head, sizes.dims, d)?,
        })
    }

    fn forward(&self, rec: &mut Recorder, inputs: EncoderInputs<'_>) -> Result<Array> {
        let h = embed::embed(rec, inputs.ids, &self.token_embedding, 1.0)?;
        let positions = embed::embed(rec, inputs.positions, &self.position_embedding, 1.0)?;
        let mut stream = Stream::new(h);
        stream.add(positions);
        self.layers.forward(rec, &mut stream, inputs.spans)?;
        stream.norm(rec, &self.final_layer_norm)
    }
}

/// How a picture's hidden states become one vector.
pub(super) trait PicturePool: Send + Sync {
    /// A class token stands before the patches.
    const CLASS: bool;

    /// What the last layer gave, in `stream`, as the hidden states that the reference calls the last: f32 `[T, D]`.
    fn last(&self, rec: &mut Recorder, stream: Stream) -> Result<Array>;

    /// Vectors f32 `[B, P]` of `count` pictures with `tokens` hidden states each.
    fn pool(
        &self,
        rec: &mut Recorder,
        hidden: &Array,
        count: usize,
        tokens: usize,
    ) -> Result<Array>;
}

/// A vision tower: patches and positions, layers, and a pool of its own.
pub(super) struct Vision<P> {
    spec: PictureSpec,
    processor: Processor,
    patch_size: usize,
    patch_embedding: Linear,
    /// `[1, D]`.
    class_embedding: Option<Weight>,
    position_embedding: Weight,
    pre_norm: Option<LayerNorm>,
    layers: Vit,
    pool: P,
}

/// Sizes of a vision tower beside its layers'.
pub(super) struct VisionSizes {
    pub image_size: usize,
    pub patch_size: usize,
    /// Elements of a vector.
    pub dims: usize,
}

impl VisionSizes {
    /// Reads `image_size` and `patch_size`; `dims` is known otherwise.
    pub(super) fn read(c: &Fields<'_>, default_patch: usize, dims: usize) -> Result<Self> {
        let image_size = c.maybe_size("image_size")?.unwrap_or(224);
        let patch_size = c.maybe_size("patch_size")?.unwrap_or(default_patch);
        let channels = c.maybe_size("num_channels")?.unwrap_or(3);
        let side = image_size / patch_size;
        if channels != 3 || side == 0 || side > 256 || patch_size > 1024 {
            return Err(Error::malformed(
                "config.json",
                format!(
                    "`image_size` {image_size}, `patch_size` {patch_size}, `num_channels` {channels}; expected colour pictures of 1 to 256 patches along a side"
                ),
            ));
        }
        Ok(VisionSizes {
            image_size,
            patch_size,
            dims,
        })
    }
}

impl<P: PicturePool> Vision<P> {
    /// Loads the tower but for its pool. `pre_norm` is what the checkpoint calls a norm before the layers.
    pub(super) fn load(
        l: &mut Loader<'_>,
        c: VitConfig,
        sizes: &VisionSizes,
        similarity: Similarity,
        pre_norm: Option<&str>,
        pool: P,
    ) -> Result<Self> {
        let (d, eps, patch) = (c.hidden_size, c.layer_norm_eps, sizes.patch_size);
        let name = |own: &str| format!("vision_model.{own}");
        let side = sizes.image_size / patch;
        let tokens = side * side + usize::from(P::CLASS);
        let checkpoint = l.checkpoint();
        let read = |file: &str| -> Result<Option<String>> {
            let bytes = checkpoint.side_file(file)?;
            Ok(bytes.map(|b| String::from_utf8_lossy(&b).into_owned()))
        };
        let class = name("embeddings.class_embedding");
        let one = 0..1;
        Ok(Vision {
            processor: Processor::from_checkpoint(read, None)?,
            spec: PictureSpec {
                side: sizes.image_size,
                tokens,
                hidden: d,
                dims: sizes.dims,
                similarity,
            },
            patch_size: patch,
            patch_embedding: l
                .patch_embedding(&name("embeddings.patch_embedding"), &[d, 3, patch, patch])?,
            class_embedding: match P::CLASS {
                true => Some(l.matrix(&class, &[1, d], std::slice::from_ref(&one))?),
                false => None,
            },
            position_embedding: l.weight(&name("embeddings.position_embedding"), tokens, d)?,
            pre_norm: pre_norm
                .map(|own| l.layer_norm(&name(own), d, eps))
                .transpose()?,
            layers: Vit::load(l, c, &name("encoder"))?,
            pool,
        })
    }

    /// Patches of pictures as rows, padded as the matrix is.
    fn patches(&self, rec: &mut Recorder, pixels: &[f32], count: usize) -> Result<Array> {
        let (side, patch) = (self.spec.side, self.patch_size);
        // Pixels beyond the last whole patch are not seen, as in a convolution.
        let whole = side / patch * patch;
        let cut: Vec<f32>;
        let pixels = if whole == side {
            pixels
        } else {
            let rows = pixels.chunks_exact(side).enumerate();
            let rows = rows.filter(|(y, _)| y % side < whole);
            cut = rows
                .flat_map(|(_, row)| row.iter().take(whole).copied())
                .collect();
            &cut
        };
        let layout = PatchLayout {
            patch,
            temporal: 1,
            merge: 1,
            order: PatchOrder::ChannelFirst,
        };
        let frames = Tensor::from_f32(pixels, &[count, 3, whole, whole])?;
        let patches = patchify(&frames, layout)?.values;
        let values = patches.as_f32().unwrap_or_default();
        let (rows, cols) = (count * (whole / patch).pow(2), 3 * patch * patch);
        let padded = cols.next_multiple_of(8);
        let device = rec.device().clone();
        if padded == cols {
            return floats(&device, &[rows, cols], values);
        }
        let mut wide = vec![0.0f32; rows * padded];
        for (from, to) in values.chunks(cols).zip(wide.chunks_mut(padded)) {
            to[..cols].copy_from_slice(from);
        }
        floats(&device, &[rows, padded], &wide)
    }
}

impl<P: PicturePool> PictureEncoder for Vision<P> {
    fn spec(&self) -> &PictureSpec {
        &self.spec
    }

    fn processor(&self) -> &Processor {
        &self.processor
    }

    fn forward(&self, rec: &mut Recorder, pixels: &[f32]) -> Result<Array> {
        let (n, each) = (self.spec.tokens, 3 * self.spec.side * self.spec.side);
        let count = pixels.len() / each;
        if count == 0 || pixels.len() != count * each {
            return Err(Error::invalid(format!(
                "{} numbers; a picture is {each} of them",
                pixels.len()
            )));
        }
        let patches = self.patches(rec, pixels, count)?;
        let device = rec.device().clone();
        let mut h = self.patch_embedding.forward(rec, &patches)?;
        drop(patches);
        if let Some(class) = &self.class_embedding {
            // Row 0 of the space of ids is the class token, the patches follow.
            let id = |t: usize| match t % n {
                0 => 0,
                _ => t - t / n,
            };
            let ids: Vec<u32> = (0..count * n).map(|t| id(t) as u32).collect();
            let ids = words(&device, &[count * n], &ids)?;
            let out = rec.temp(DType::F32, &[count * n, self.spec.hidden])?;
            embed::embed_into(rec, &ids, (class, 0), 1.0, &out)?;
            embed::embed_into(rec, &ids, (&Weight::from_array(&h)?, 1), 1.0, &out)?;
            h = out;
        }
        let positions: Vec<u32> = (0..count * n).map(|t| (t % n) as u32).collect();
        let positions = words(&device, &[count * n], &positions)?;
        let spans: Vec<u32> = (0..count * n)
            .flat_map(|t| [t / n * n, t / n * n + n])
            .map(|t| t as u32)
            .collect();
        let spans = words(&device, &[count * n, 2], &spans)?;
        let positions = embed::embed(rec, &positions, &self.position_embedding, 1.0)?;
        let mut stream = Stream::new(h);
        stream.add(positions);
        if let Some(norm) = &self.pre_norm {
            stream = Stream::new(stream.norm(rec, norm)?);
        }
        self.layers.forward(rec, &mut stream, &spans)?;
        self.pool.last(rec, stream)
    }

    fn pooler(&self, rec: &mut Recorder, hidden: &Array) -> Result<Array> {
        let n = self.spec.tokens;
        let count = hidden.elements() / (n * self.spec.hidden);
        self.pool.pool(rec, hidden, count, n)
    }
}

/// Both towers on a device.
pub(super) struct Dual<P> {
    spec: EncoderSpec,
    text: Text,
    vision: Vision<P>,
}

impl<P: PicturePool> Dual<P> {
    pub(super) fn new(
        text: Text,
        vision: Vision<P>,
        sizes: &TextSizes,
        hidden: usize,
        texts: Texts,
    ) -> Self {
        let spec = EncoderSpec {
            vocab: sizes.vocab,
            context: sizes.positions,
            hidden,
            types: 0,
            head: Head::None,
            pooler: Some(sizes.dims),
            texts,
        };
        Dual { spec, text, vision }
    }
}

impl<P: PicturePool> Encoder for Dual<P> {
    fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    fn forward(&self, rec: &mut Recorder, inputs: EncoderInputs<'_>) -> Result<Array> {
        self.text.forward(rec, inputs)
    }

    fn pooler(&self, rec: &mut Recorder, one: &Array) -> Result<Array> {
        self.text.head.forward(rec, one)
    }

    fn pictures(&self) -> Option<&dyn PictureEncoder> {
        Some(&self.vision)
    }
}

/// `e` to the power of a number that a checkpoint keeps, and another number as it is.
pub(super) fn scale_and_bias(l: &mut Loader<'_>, bias: bool) -> Result<(f32, f32)> {
    let one = |values: Vec<f32>| values.first().copied().unwrap_or_default();
    let scale = one(l.host("logit_scale", &[1])?).exp();
    let bias = match bias {
        true => one(l.host("logit_bias", &[1])?),
        false => 0.0,
    };
    if !scale.is_finite() {
        return Err(Error::malformed(
            l.checkpoint().root().display().to_string(),
            "`logit_scale` is too large for an exponent",
        ));
    }
    Ok((scale, bias))
}
