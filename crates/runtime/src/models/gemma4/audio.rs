//! The tower for sounds: log-mels, two convolutions over time and bands, conformer layers, a projection.
//!
//! Gemma Team 2026; `Gemma4AudioModel` and `Gemma4MultimodalEmbedder` of transformers 5.23.0. Upstream's chunked attention lets each
//! moment see itself and those up to `attention_context_left − 2` before it, with a key for each distance: that is what is recorded here.
//! Padding never reaches the device: it is zeros, as what a convolution finds beyond the end. The bounds on activations
//! (`gradient_clipping`, 1e10) guard other types than f32.

use super::clipped::Clipped;
use crate::checkpoint::{Checkpoint, Fields};
use crate::loader::{Linear, LoadProgress, Loader, RmsNorm};
use crate::media::{MediaKind, Medium, Prepared, Tower};
use crate::models::decoder::layers;
use crate::models::towers::floats;
use crate::norm::LayerNorm;
use crate::{Error, Result};
use firelight_audio::LogMel;
use firelight_kernels::act::{Activation, act};
use firelight_kernels::add_scale::add_scale;
use firelight_kernels::depthwise_conv1d::depthwise_conv1d;
use firelight_kernels::gated_act::gated_act;
use firelight_kernels::near_attention::{NearAttentionArgs, near_attention};
use firelight_kernels::scale_shift::scale_shift;
use firelight_kernels::unfold::{Patches, unfold};
use firelight_kernels::{Array, Device, Recorder};
use firelight_tensor::{DType, Tensor};
use serde_json::Value;

/// The longest sound, s: what upstream's processor keeps of one.
const LONGEST: usize = 30;

/// The numbers of the tower, under upstream's names.
struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    attention_context_left: usize,
    attention_logit_cap: f32,
    conv_kernel_size: usize,
    subsampling_conv_channels: [usize; 2],
    output_proj_dims: usize,
    residual_weight: f32,
    rms_norm_eps: f32,
    use_clipped_linears: bool,
}

impl Config {
    fn read(value: &Value) -> Result<Self> {
        let c = Fields(value);
        let size = |key: &str, default| Ok::<_, Error>(c.maybe_size(key)?.unwrap_or(default));
        let act = c.text("hidden_act").unwrap_or("silu");
        let chunk = size("attention_chunk_size", 12)?;
        let left = size("attention_context_left", 13)?;
        let right = c.number("attention_context_right")?.unwrap_or(0.0);
        // Upstream's keys for distances are those of the chunk and of what lies before it, which have to be as many.
        if act != "silu" || right != 0.0 || left != chunk + 1 || left > 64 {
            return Err(Error::Unsupported(format!(
                "a gemma4 audio tower with `hidden_act` {act}, chunks of {chunk}, contexts of {left} and {right}; expected silu, \
                 a left context of a chunk and one, at most 64, and none on the right"
            )));
        }
        let channels = value
            .get("subsampling_conv_channels")
            .and_then(Value::as_array);
        let channel = |i: usize, default| {
            let found = channels.and_then(|c| c.get(i)).and_then(Value::as_u64);
            found.map_or(default, |n| n as usize)
        };
        let config = Config {
            hidden_size: size("hidden_size", 1024)?,
            num_hidden_layers: layers(size("num_hidden_layers", 12)?)?,
            num_attention_heads: size("num_attention_heads", 8)?,
            attention_context_left: left,
            attention_logit_cap: c.number("attention_logit_cap")?.unwrap_or(50.0) as f32,
            conv_kernel_size: size("conv_kernel_size", 5)?,
            subsampling_conv_channels: [channel(0, 128), channel(1, 32)],
            output_proj_dims: size("output_proj_dims", 1536)?,
            residual_weight: c.number("residual_weight")?.unwrap_or(0.5) as f32,
            rms_norm_eps: c.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            use_clipped_linears: c.flag("use_clipped_linears") == Some(true),
        };
        let sizes = [
            config.hidden_size,
            config.output_proj_dims,
            channel(0, 128),
            channel(1, 32),
            config.conv_kernel_size,
        ];
        let whole = config
            .hidden_size
            .is_multiple_of(2 * config.num_attention_heads);
        if sizes.iter().any(|n| !(1..=1 << 14).contains(n)) || !whole {
            return Err(Error::malformed(
                "config.json",
                format!(
                    "`audio_config` of sizes {sizes:?} and {} heads",
                    config.num_attention_heads
                ),
            ));
        }
        Ok(config)
    }
}

struct FeedForward {
    pre_layer_norm: RmsNorm,
    ffw_layer_1: Clipped,
    ffw_layer_2: Clipped,
    /// With `residual_weight` in its weight.
    post_layer_norm: RmsNorm,
}

struct Block {
    feed_forward1: FeedForward,
    norm_pre_attn: RmsNorm,
    q_proj: Clipped,
    k_proj: Clipped,
    v_proj: Clipped,
    relative_k_proj: Linear,
    /// Factor of each query's elements, and zeros.
    q_scale: [Array; 2],
    post: Clipped,
    norm_post_attn: RmsNorm,
    pre_layer_norm: RmsNorm,
    /// The two halves of `linear_start`.
    value: Clipped,
    gate: Clipped,
    depthwise_conv1d: Array,
    conv_norm: RmsNorm,
    linear_end: Clipped,
    feed_forward2: FeedForward,
    norm_out: RmsNorm,
}

impl FeedForward {
    fn load(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Self> {
        let (d, clipped) = (c.hidden_size, c.use_clipped_linears);
        let linear = |l: &mut Loader<'_>, own: &str, shape| {
            Clipped::load(l, &format!("{name}.{own}"), shape, clipped)
        };
        let post = l.host(&format!("{name}.post_layer_norm.weight"), &[d])?;
        let post: Vec<f32> = post.iter().map(|w| w * c.residual_weight).collect();
        Ok(FeedForward {
            pre_layer_norm: l.rms_norm(&format!("{name}.pre_layer_norm"), d, EPS, 0.0)?,
            ffw_layer_1: linear(l, "ffw_layer_1", (4 * d, d))?,
            ffw_layer_2: linear(l, "ffw_layer_2", (d, 4 * d))?,
            post_layer_norm: RmsNorm {
                weight: l.upload(&post)?,
                eps: EPS,
                offset: 0.0,
            },
        })
    }

    /// What is added to the stream, from its norm.
    fn forward(&self, rec: &mut Recorder, x: &Array) -> Result<Array> {
        let x = self.ffw_layer_1.forward(rec, x)?;
        act(rec, &x, None, Activation::Silu)?;
        let x = self.ffw_layer_2.forward(rec, &x)?;
        self.post_layer_norm.forward(rec, &x)
    }
}

/// Upstream's default, which the norms of the feed-forward and attention branches have whatever the config says.
const EPS: f32 = 1e-6;

impl Block {
    fn load(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Self> {
        let (d, heads, clipped) = (c.hidden_size, c.num_attention_heads, c.use_clipped_linears);
        let hd = d / heads;
        let norm = |l: &mut Loader<'_>, own: &str, eps: f32| {
            l.rms_norm(&format!("{name}.{own}"), d, eps, 0.0)
        };
        let linear = |l: &mut Loader<'_>, own: &str| {
            Clipped::load(l, &format!("{name}.{own}"), (d, d), clipped)
        };
        let half = |l: &mut Loader<'_>, rows: std::ops::Range<usize>| {
            let name = format!("{name}.lconv1d.linear_start");
            Clipped::rows(l, &name, (2 * d, d), std::slice::from_ref(&rows), clipped)
        };
        let per_dim = l.host(&format!("{name}.self_attn.per_dim_scale"), &[hd])?;
        let root = (hd as f64).powf(-0.5) / std::f64::consts::LN_2;
        // softplus
        let factor = |x: &f32| (root * f64::from(*x).exp().ln_1p()) as f32;
        let factors: Vec<f32> = per_dim.iter().map(factor).collect();
        let conv = l.host(
            &format!("{name}.lconv1d.depthwise_conv1d.weight"),
            &[d, 1, c.conv_kernel_size],
        )?;
        let eps = c.rms_norm_eps;
        Ok(Block {
            feed_forward1: FeedForward::load(l, c, &format!("{name}.feed_forward1"))?,
            norm_pre_attn: norm(l, "norm_pre_attn", EPS)?,
            q_proj: linear(l, "self_attn.q_proj")?,
            k_proj: linear(l, "self_attn.k_proj")?,
            v_proj: linear(l, "self_attn.v_proj")?,
            relative_k_proj: l.linear(&format!("{name}.self_attn.relative_k_proj"), d, d)?,
            q_scale: [l.upload(&factors.repeat(heads))?, l.upload(&vec![0.0; d])?],
            post: linear(l, "self_attn.post")?,
            norm_post_attn: norm(l, "norm_post_attn", EPS)?,
            pre_layer_norm: norm(l, "lconv1d.pre_layer_norm", eps)?,
            value: half(l, 0..d)?,
            gate: half(l, d..2 * d)?,
            depthwise_conv1d: l.upload(&conv)?.reshape(&[d, c.conv_kernel_size])?,
            conv_norm: norm(l, "lconv1d.conv_norm", eps)?,
            linear_end: linear(l, "lconv1d.linear_end")?,
            feed_forward2: FeedForward::load(l, c, &format!("{name}.feed_forward2"))?,
            norm_out: norm(l, "norm_out", EPS)?,
        })
    }

    /// The next stream from `h` f32 `[T, D]`, which is changed; `distances` f32 `[P, D]`.
    fn forward(
        &self,
        rec: &mut Recorder,
        c: &Config,
        h: &Array,
        distances: &Array,
    ) -> Result<Array> {
        let x = self.feed_forward1.pre_layer_norm.forward(rec, h)?;
        let x = self.feed_forward1.forward(rec, &x)?;
        let x = self.norm_pre_attn.add_forward(rec, h, &x)?;
        let q = self.q_proj.forward(rec, &x)?;
        let [scale, zeros] = &self.q_scale;
        scale_shift(rec, &q, scale, zeros)?;
        let args = NearAttentionArgs {
            q: &q,
            k: &self.k_proj.forward(rec, &x)?,
            v: &self.v_proj.forward(rec, &x)?,
            distances: &self.relative_k_proj.forward(rec, distances)?,
            heads: c.num_attention_heads,
            key_scale: ((1.0 + std::f64::consts::E).ln() / std::f64::consts::LN_2) as f32,
            cap: c.attention_logit_cap,
        };
        let x = near_attention(rec, args)?;
        let x = self.post.forward(rec, &x)?;
        let x = self.norm_post_attn.forward(rec, &x)?;
        let x = self.pre_layer_norm.add_forward(rec, h, &x)?;
        let gate = self.gate.forward(rec, &x)?;
        let value = self.value.forward(rec, &x)?;
        let x = gated_act(rec, &gate, &value, Activation::Sigmoid)?;
        drop((gate, value));
        let x = depthwise_conv1d(rec, &x, &self.depthwise_conv1d)?;
        let x = self.conv_norm.forward(rec, &x)?;
        act(rec, &x, None, Activation::Silu)?;
        let x = self.linear_end.forward(rec, &x)?;
        let x = self.feed_forward2.pre_layer_norm.add_forward(rec, h, &x)?;
        let x = self.feed_forward2.forward(rec, &x)?;
        add_scale(rec, h, &x, 1.0)?;
        self.norm_out.forward(rec, h)
    }
}

/// See the module's head.
pub(super) struct Audio {
    config: Config,
    front: LogMel,
    convs: [(Linear, LayerNorm); 2],
    input_proj_linear: Linear,
    layers: Vec<Block>,
    /// Sines and cosines of the distances, `[P, D]`.
    distances: Vec<f32>,
    output_proj: Linear,
    /// Without a weight.
    embedding_pre_projection_norm: RmsNorm,
    embedding_projection: Linear,
    mark: String,
    /// Before and after a sound.
    around: [String; 2],
    placeholder: u32,
    padding: u32,
}

impl Audio {
    /// The front end beside the weights, if there is one for sounds.
    pub(super) fn front(checkpoint: &Checkpoint) -> Result<Option<LogMel>> {
        for name in ["processor_config.json", "preprocessor_config.json"] {
            let Some(bytes) = checkpoint.side_file(name)? else {
                continue;
            };
            let json = String::from_utf8_lossy(&bytes);
            if json.contains("Gemma4AudioFeatureExtractor") {
                return Ok(Some(LogMel::from_config(&json)?));
            }
        }
        Ok(None)
    }

    pub(super) fn load(
        checkpoint: &Checkpoint,
        (config, front): (&Value, LogMel),
        hidden: usize,
        device: &Device,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Self> {
        let c = Config::read(config.get("audio_config").unwrap_or(&Value::Null))?;
        let text = config.get("text_config").unwrap_or(config);
        let padding = Fields(text).count("pad_token_id")? as u32;
        let tokenizer: Value = match checkpoint.side_file("tokenizer_config.json")? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::malformed("tokenizer_config.json", e.to_string()))?,
            None => Value::Null,
        };
        let token = |key: &str, default: &str| {
            let found = tokenizer.get(key);
            let found = found.and_then(|v| v.as_str().or_else(|| v.get("content")?.as_str()));
            found.unwrap_or(default).to_owned()
        };
        let mut report = |done, total| progress(done, total);
        let mut l = Loader::new(checkpoint, device, |_| None, &mut report);
        let name = |own: &str| format!("audio_tower.{own}");
        let (d, out) = (c.hidden_size, c.output_proj_dims);
        let [one, two] = c.subsampling_conv_channels;
        let conv = |l: &mut Loader<'_>, i: usize, shape: &[usize]| -> Result<_> {
            let name = name(&format!("subsample_conv_projection.layer{i}"));
            let weight = l.patch_embedding(&format!("{name}.conv"), shape)?;
            let channels = shape.first().copied().unwrap_or(0);
            Ok((
                weight,
                l.layer_norm(&format!("{name}.norm"), channels, c.rms_norm_eps)?,
            ))
        };
        let bands = Self::halved(Self::halved(front.mels()));
        let seen = c.attention_context_left - 1;
        Ok(Audio {
            convs: [
                conv(&mut l, 0, &[one, 1, 3, 3])?,
                conv(&mut l, 1, &[two, one, 3, 3])?,
            ],
            input_proj_linear: l.linear(
                &name("subsample_conv_projection.input_proj_linear"),
                d,
                bands * two,
            )?,
            layers: (0..c.num_hidden_layers)
                .map(|i| Block::load(&mut l, &c, &name(&format!("layers.{i}"))))
                .collect::<Result<_>>()?,
            distances: distances(seen, d),
            output_proj: l.linear(&name("output_proj"), out, d)?,
            embedding_pre_projection_norm: RmsNorm {
                weight: l.upload(&vec![1.0; out])?,
                eps: c.rms_norm_eps,
                offset: 0.0,
            },
            embedding_projection: l.linear("embed_audio.embedding_projection", hidden, out)?,
            mark: token("audio_token", "<|audio|>"),
            around: [
                token("boa_token", "<|audio>"),
                token("eoa_token", "<audio|>"),
            ],
            placeholder: Fields(config).size("audio_token_id")? as u32,
            padding,
            front,
            config: c,
        })
    }

    /// Cells along an axis after a convolution of step 2.
    fn halved(n: usize) -> usize {
        n.div_ceil(2)
    }
}

/// Sines, then cosines, of the distances 0…P−1 over geometric timescales from 1 to 10 000, `[P, D]`.
fn distances(seen: usize, d: usize) -> Vec<f32> {
    let half = d / 2;
    let step = 1e4f64.ln() / (half.max(2) - 1) as f64;
    let scales: Vec<f32> = (0..half)
        .map(|i| (-(i as f64) * step).exp() as f32)
        .collect();
    let row = |j: usize| {
        let angle = move |s: &f32| f64::from(j as f32 * s);
        let sines: Vec<f32> = scales.iter().map(|s| angle(s).sin() as f32).collect();
        let cosines: Vec<f32> = scales.iter().map(|s| angle(s).cos() as f32).collect();
        sines.into_iter().chain(cosines)
    };
    (0..seen).flat_map(row).collect()
}

impl Tower for Audio {
    fn mark(&self) -> &str {
        &self.mark
    }

    fn placeholder(&self) -> u32 {
        self.placeholder
    }

    fn padding(&self) -> u32 {
        self.padding
    }

    fn prepare(&self, medium: &Medium, _budget: Option<usize>) -> Result<Prepared> {
        let Medium::Audio(samples) = medium else {
            return Err(Error::invalid("a picture for the tower of sounds"));
        };
        let longest = LONGEST * self.front.rate() as usize;
        if samples.len() > longest {
            return Err(Error::Limit {
                what: "samples of a sound in a prompt (30 s; cut it)",
                max: longest as u64,
                got: samples.len() as u64,
            });
        }
        let features = self.front.features(samples)?;
        let (all, mels) = (self.front.padded_frames(samples.len()), self.front.mels());
        let quarter = |n: usize| Self::halved(Self::halved(n));
        let (real, tokens) = (
            self.front.frames(samples.len()),
            quarter(self.front.frames(samples.len())),
        );
        if real == 0 {
            return Err(Error::invalid("a sound of less than a frame (20 ms)"));
        }
        let mask = |all: usize, real: usize| -> Result<Tensor> {
            let flags = (0..all).map(|t| u8::from(t < real)).collect::<Vec<_>>();
            Ok(Tensor::new(DType::Bool, &[1, all], flags)?)
        };
        let [begin, end] = &self.around;
        Ok(Prepared {
            kind: MediaKind::Audio,
            text: format!("{begin}{}{end}", self.mark.repeat(tokens)),
            tokens,
            grid: [tokens, 1, 1],
            tensors: vec![
                (
                    "input_features".to_owned(),
                    Tensor::from_f32(&features.to_f32_vec()?, &[1, all, mels])?,
                ),
                ("input_features_mask".to_owned(), mask(all, real)?),
                ("audio_mask".to_owned(), mask(quarter(all), tokens)?),
            ],
        })
    }

    fn forward(&self, rec: &mut Recorder, prepared: &Prepared) -> Result<Array> {
        let device = rec.device().clone();
        let features = prepared.tensor("input_features")?;
        let mask = prepared.tensor("input_features_mask")?;
        let mels = self.front.mels();
        let real = mask.bytes().iter().filter(|b| **b != 0).count();
        let values = features.to_f32_vec()?;
        let values = values.get(..real * mels).unwrap_or_default();
        let mut x = floats(&device, &[1, real, mels, 1], values)?;
        let patches = Patches {
            kernel: [3, 3],
            stride: [2, 2],
            pad: [1, 1],
        };
        let (mut time, mut bands) = (real, mels);
        for (conv, norm) in &self.convs {
            let y = unfold(rec, &x, patches)?;
            let y = conv.forward(rec, &y)?;
            let y = norm.forward(rec, &y)?;
            act(rec, &y, None, Activation::Relu)?;
            (time, bands) = (Self::halved(time), Self::halved(bands));
            let channels = y.elements() / (time * bands).max(1);
            x = y.reshape(&[1, time, bands, channels])?;
        }
        let width = x.elements() / time.max(1);
        let mut h = self
            .input_proj_linear
            .forward(rec, &x.reshape(&[time, width])?)?;
        drop(x);
        let seen = self.config.attention_context_left - 1;
        let distances = floats(&device, &[seen, self.config.hidden_size], &self.distances)?;
        for layer in &self.layers {
            h = layer.forward(rec, &self.config, &h, &distances)?;
        }
        let x = self.output_proj.forward(rec, &h)?;
        let x = self.embedding_pre_projection_norm.forward(rec, &x)?;
        self.embedding_projection.forward(rec, &x)
    }
}
