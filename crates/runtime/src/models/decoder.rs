//! The decoder most text families share: RMSNorm before each branch, rotary grouped-query attention, a gated MLP.
//!
//! A family's file says what is its own: where its numbers are, which of the parts below it has, how its GGUF differs. Biases,
//! norms of queries and keys, norms after a branch, sliding windows, fused projections and the rotary scalings are here, each once.

use super::parts::{Attention, GatedMlp, Heads, Stream, View, Vocabulary};
use super::{CausalLm, Inputs, Spec};
use crate::cache::Cache;
use crate::checkpoint::{Checkpoint, Fields};
use crate::loader::{LoadProgress, Loader, RmsNorm};
use crate::rope::{Rope, Scaling, gguf_axes, partial_rotary_factor};
use crate::{Error, Result};
use firelight_kernels::act::Activation;
use firelight_kernels::rope_kv::Pairing;
use firelight_kernels::{Array, Device, Recorder};
use firelight_tensor::gguf::Metadata;
use serde_json::Value;

/// The numbers of a checkpoint, under upstream's names, and what the family has.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f32,
    /// One, or that of the layers that see everything and that of those that slide.
    pub ropes: Vec<Rope>,
    pub pairing: Pairing,
    /// Factor of the scores.
    pub scale: f32,
    /// Factor of the embeddings.
    pub embed_scale: f32,
    /// Of the MLP.
    pub act: Activation,
    /// Added to the weights of the norms.
    pub norm_offset: f32,
    /// A norm after each branch, too.
    pub sandwich: bool,
    /// Per layer, keys a token sees; 0: all.
    pub windows: Vec<u32>,
    /// Queries, keys and values have biases; else they have those that the file has.
    pub qkv_bias: bool,
    /// The output projection has a bias, too.
    pub o_bias: bool,
    /// Queries and keys are normalised, head by head.
    pub qk_norm: bool,
    /// `qkv_proj` and `gate_up_proj` are one matrix each in the file.
    pub fused: bool,
    /// Upstream names to those of a GGUF.
    pub gguf_name: fn(&str) -> Option<String>,
}

/// What upstream's configuration class takes for a number that is not given.
pub(super) struct Defaults {
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    /// `None`: `hidden_size / num_attention_heads`.
    pub head_dim: Option<usize>,
    /// `partial_rotary_factor` is read; where upstream does not read it, neither do we.
    pub partial_rotary: bool,
}

impl Config {
    /// Nothing a family adds: Llama's parts for heads of `head_dim`, no sizes yet.
    pub(super) fn plain(head_dim: usize) -> Self {
        Config {
            hidden_size: 0,
            intermediate_size: 0,
            num_attention_heads: 0,
            num_key_value_heads: 0,
            head_dim,
            vocab_size: 0,
            max_position_embeddings: 0,
            rms_norm_eps: 0.0,
            ropes: Vec::new(),
            pairing: Pairing::Half,
            scale: (head_dim as f32).powf(-0.5),
            embed_scale: 1.0,
            act: Activation::Silu,
            norm_offset: 0.0,
            sandwich: false,
            windows: Vec::new(),
            qkv_bias: false,
            o_bias: false,
            qk_norm: false,
            fused: false,
            gguf_name,
        }
    }

    /// Reads a `config.json` in the spelling that all these families share.
    pub(super) fn from_json(value: &Value, family: &str, defaults: &Defaults) -> Result<Self> {
        let c = Fields(value);
        let act = c.text("hidden_act").unwrap_or("silu");
        if act != "silu" {
            return Err(Error::Unsupported(format!(
                "`hidden_act` {act} in a {family} model; expected silu"
            )));
        }
        let (hidden_size, heads) = (c.size("hidden_size")?, c.size("num_attention_heads")?);
        let head_dim = match c.maybe_size("head_dim")?.or(defaults.head_dim) {
            Some(n) => n,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                return Err(Error::malformed(
                    "config.json",
                    format!(
                        "`hidden_size` {hidden_size} is no multiple of `num_attention_heads` {heads}, and there is no `head_dim`"
                    ),
                ));
            }
        };
        let theta = defaults.rope_theta;
        let turns = match defaults.partial_rotary {
            true => (head_dim as f64 * partial_rotary_factor(value, None)?) as usize,
            false => head_dim,
        };
        let num_hidden_layers = layers(c.size("num_hidden_layers")?)?;
        Ok(Config {
            hidden_size,
            intermediate_size: c.size("intermediate_size")?,
            num_attention_heads: heads,
            num_key_value_heads: c.maybe_size("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            vocab_size: c.size("vocab_size")?,
            max_position_embeddings: c
                .maybe_size("max_position_embeddings")?
                .unwrap_or(defaults.max_position_embeddings),
            rms_norm_eps: c.number("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps) as f32,
            ropes: vec![Rope::from_config(value, None, "rope_theta", theta, turns)?],
            windows: vec![0; num_hidden_layers],
            qkv_bias: c.flag("attention_bias") == Some(true),
            o_bias: c.flag("attention_bias") == Some(true),
            ..Config::plain(head_dim)
        })
    }

    /// Reads the metadata of a GGUF of architecture `arch`.
    pub(super) fn from_gguf(checkpoint: &Checkpoint, m: &Metadata, arch: &str) -> Result<Self> {
        let key = |key: &str| format!("{arch}.{key}");
        let size = |name: &str| -> Result<usize> { Ok(m.require::<u32>(&key(name))? as usize) };
        let maybe = |name: &str| -> Result<Option<usize>> {
            Ok(m.get_as::<u32>(&key(name))?.map(|n| n as usize))
        };
        let (hidden_size, heads) = (
            size("embedding_length")?,
            size("attention.head_count")?.max(1),
        );
        let head_dim = maybe("attention.key_length")?.unwrap_or(hidden_size / heads);
        let num_hidden_layers = layers(size("block_count")?)?;
        Ok(Config {
            hidden_size,
            intermediate_size: size("feed_forward_length")?,
            num_attention_heads: heads,
            num_key_value_heads: maybe("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            vocab_size: gguf_vocab(checkpoint)?,
            max_position_embeddings: size("context_length")?,
            rms_norm_eps: m.require::<f32>(&key("attention.layer_norm_rms_epsilon"))?,
            ropes: vec![Rope {
                theta: f64::from(m.get_as::<f32>(&key("rope.freq_base"))?.unwrap_or(1e4)),
                dims: maybe("rope.dimension_count")?.unwrap_or(head_dim),
                scaling: gguf_scaling(m, arch)?,
                axes: gguf_axes(
                    m,
                    arch,
                    maybe("rope.dimension_count")?.unwrap_or(head_dim) / 2,
                    false,
                )?,
            }],
            windows: vec![0; num_hidden_layers],
            ..Config::plain(head_dim)
        })
    }

    /// Windows as Qwen's configs say: only with `use_sliding_window`, then by `layer_types` or from `max_window_layers` on.
    pub(super) fn read_windows(&mut self, value: &Value) -> Result<()> {
        let c = Fields(value);
        let types = layer_types(value, self.windows.len())?;
        if c.flag("use_sliding_window") != Some(true) {
            return Ok(());
        }
        let Some(window) = c.maybe_size("sliding_window")? else {
            return Ok(());
        };
        let full = match types {
            Some(types) => types,
            None => {
                let first = c.maybe_size("max_window_layers")?.unwrap_or(28);
                (0..self.windows.len()).map(|i| i < first).collect()
            }
        };
        for (w, full) in self.windows.iter_mut().zip(full) {
            *w = if full { 0 } else { window as u32 };
        }
        Ok(())
    }

    /// Bounds what the file can ask for; after it no arithmetic overflows.
    fn check(&self) -> Result<()> {
        check_heads(
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        )?;
        self.ropes
            .iter()
            .try_for_each(|rope| check_rope(rope, self.head_dim))
    }

    fn heads(&self) -> Heads {
        Heads {
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
        }
    }

    /// The rotary table of a layer.
    fn rope_of(&self, layer: usize) -> usize {
        usize::from(self.windows[layer] > 0 && self.ropes.len() > 1)
    }
}

/// The rotary scaling that a GGUF's metadata name.
pub(super) fn gguf_scaling(m: &Metadata, arch: &str) -> Result<Scaling> {
    let key = |key: &str| format!("{arch}.rope.scaling.{key}");
    match m.get_as::<&str>(&key("type"))? {
        None | Some("none") => Ok(Scaling::None),
        Some("linear") => {
            let factor = m.require::<f32>(&key("factor"))?;
            Ok(Scaling::Linear(f64::from(factor)))
        }
        Some(other) => Err(Error::Unsupported(format!(
            "rope scaling `{other}` in a {arch} GGUF"
        ))),
    }
}

/// The number of layers, if a model may have so many.
pub(super) fn layers(n: usize) -> Result<usize> {
    match n {
        0..=1024 => Ok(n),
        _ => Err(Error::Limit {
            what: "num_hidden_layers",
            max: 1024,
            got: n as u64,
        }),
    }
}

/// The `layer_types` of a config: true for a layer that sees everything, false for one that slides.
pub(super) fn layer_types(value: &Value, layers: usize) -> Result<Option<Vec<bool>>> {
    let Some(list) = value.get("layer_types").filter(|v| !v.is_null()) else {
        return Ok(None);
    };
    let found = list.as_array().map_or(0, Vec::len);
    if found != layers {
        return Err(Error::malformed(
            "config.json",
            format!("`layer_types` has {found} entries for {layers} layers"),
        ));
    }
    let kinds = list.as_array().into_iter().flatten();
    let kinds = kinds.map(|kind| match kind.as_str() {
        Some("full_attention") => Ok(true),
        Some("sliding_attention") => Ok(false),
        _ => Err(Error::Unsupported(format!(
            "{kind} in `layer_types`; expected full_attention or sliding_attention"
        ))),
    });
    kinds.collect::<Result<Vec<_>>>().map(Some)
}

/// Head sizes that the kernels take.
pub(super) fn check_heads(heads: usize, kv_heads: usize, head_dim: usize) -> Result<()> {
    let wrong = if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        format!("`num_attention_heads` {heads} is no multiple of `num_key_value_heads` {kv_heads}")
    } else if heads > 4096 {
        format!("`num_attention_heads` {heads} is beyond 4096")
    } else if head_dim > 512 || !head_dim.is_multiple_of(4) || head_dim == 0 {
        format!("`head_dim` {head_dim}; expected a multiple of 4 up to 512")
    } else {
        return Ok(());
    };
    Err(Error::malformed("configuration", wrong))
}

/// A rotary embedding that fits into a head.
pub(super) fn check_rope(rope: &Rope, head_dim: usize) -> Result<()> {
    if rope.dims <= head_dim && rope.dims.is_multiple_of(2) && rope.dims > 0 {
        return Ok(());
    }
    let what = format!(
        "{} rotary dimensions (`partial_rotary_factor`) of a `head_dim` of {head_dim}",
        rope.dims
    );
    Err(Error::malformed("configuration", what))
}

/// Tokens of a GGUF: the rows of its embedding.
pub(super) fn gguf_vocab(checkpoint: &Checkpoint) -> Result<usize> {
    let embedding = checkpoint.weights().require("token_embd.weight")?;
    Ok(embedding.shape.dims().first().copied().unwrap_or(0))
}

fn attention(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Attention> {
    let (d, q, kv) = (c.hidden_size, c.heads().queries(), c.heads().keys());
    let mut part = |own: &str, rows: usize, first: usize| match c.fused {
        true => {
            let (name, all) = (format!("{name}.qkv_proj"), q + 2 * kv);
            l.linear_part(&name, first..first + rows, all, d, c.qkv_bias)
        }
        false => l.linear_part(&format!("{name}.{own}"), 0..rows, rows, d, c.qkv_bias),
    };
    let (q_proj, k_proj, v_proj) = (
        part("q_proj", q, 0)?,
        part("k_proj", kv, q)?,
        part("v_proj", kv, q + kv)?,
    );
    Ok(Attention {
        q_proj,
        k_proj,
        v_proj,
        o_proj: l.linear_part(&format!("{name}.o_proj"), 0..d, d, q, c.o_bias)?,
        norms: match c.qk_norm {
            true => Some(Attention::norms(
                l,
                name,
                c.head_dim,
                c.rms_norm_eps,
                c.norm_offset,
            )?),
            false => None,
        },
        gate_proj: None,
    })
}

fn mlp(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<GatedMlp> {
    let (d, f) = (c.hidden_size, c.intermediate_size);
    if !c.fused {
        return GatedMlp::load(l, name, (d, f), c.act);
    }
    let mut half = |first: usize| {
        let name = format!("{name}.gate_up_proj");
        l.linear_part(&name, first..first + f, 2 * f, d, false)
    };
    Ok(GatedMlp {
        gate_proj: half(0)?,
        up_proj: half(f)?,
        down_proj: l.linear(&format!("{name}.down_proj"), d, f)?,
        act: c.act,
    })
}

struct Block {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    /// Of the attention's result; `None`: it is added as it is.
    after_attention: Option<RmsNorm>,
    /// Before the MLP.
    before_mlp: RmsNorm,
    mlp: GatedMlp,
    /// Of the MLP's result.
    after_mlp: Option<RmsNorm>,
}

impl Block {
    fn load(l: &mut Loader<'_>, c: &Config, i: usize) -> Result<Self> {
        let norm = |l: &mut Loader<'_>, name: &str| {
            let name = format!("layers.{i}.{name}");
            l.rms_norm(&name, c.hidden_size, c.rms_norm_eps, c.norm_offset)
        };
        let input_layernorm = norm(l, "input_layernorm")?;
        let self_attn = attention(l, c, &format!("layers.{i}.self_attn"))?;
        let second = norm(l, "post_attention_layernorm")?;
        // The name of the second norm is older than norms after a branch.
        let (after_attention, before_mlp, after_mlp) = match c.sandwich {
            false => (None, second, None),
            true => {
                let before = norm(l, "pre_feedforward_layernorm")?;
                let after = norm(l, "post_feedforward_layernorm")?;
                (Some(second), before, Some(after))
            }
        };
        Ok(Block {
            input_layernorm,
            self_attn,
            after_attention,
            before_mlp,
            mlp: mlp(l, c, &format!("layers.{i}.mlp"))?,
            after_mlp,
        })
    }
}

/// `branch`, normalised if there is a norm for it.
fn after(rec: &mut Recorder, norm: Option<&RmsNorm>, branch: Array) -> Result<Array> {
    match norm {
        Some(norm) => norm.forward(rec, &branch),
        None => Ok(branch),
    }
}

/// A model of one of these families on a device.
struct Decoder {
    config: Config,
    spec: Spec,
    vocabulary: Vocabulary,
    layers: Vec<Block>,
    norm: RmsNorm,
}

/// Loads what `config` describes.
pub(super) fn load(
    mut config: Config,
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn CausalLm>> {
    config.check()?;
    let mut report = |done, total| progress(done, total);
    let mut l = Loader::new(checkpoint, device, config.gguf_name, &mut report);
    if config.pairing == Pairing::Adjacent {
        l.adjacent_heads(config.head_dim);
    }
    if l.is_gguf() && l.has("rope_freqs.weight") {
        let rope = &mut config.ropes[0];
        rope.scaling = Scaling::Factors(l.host("rope_freqs.weight", &[rope.dims / 2])?);
    }
    let (d, v) = (config.hidden_size, config.vocab_size);
    let vocabulary = Vocabulary::load(&mut l, "embed_tokens", v, d, config.embed_scale)?;
    let layers = (0..config.windows.len())
        .map(|i| Block::load(&mut l, &config, i))
        .collect::<Result<_>>()?;
    let norm = l.rms_norm("norm", d, config.rms_norm_eps, config.norm_offset)?;
    let spec = Spec {
        vocab: v,
        context: config.max_position_embeddings,
        layers: config
            .windows
            .iter()
            .map(|w| config.heads().cached(*w))
            .collect(),
        ropes: config.ropes.clone(),
        mutual: 0,
    };
    Ok(Box::new(Decoder {
        config,
        spec,
        vocabulary,
        layers,
        norm,
    }))
}

impl CausalLm for Decoder {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        inputs: Inputs<'_>,
        cache: &Cache,
    ) -> Result<Option<Array>> {
        let c = &self.config;
        let mut stream = Stream::new(self.vocabulary.embed(rec, inputs)?);
        for (layer, block) in self.layers.iter().enumerate() {
            let x = stream.norm(rec, &block.input_layernorm)?;
            let view = View {
                cache,
                layer,
                rope: c.rope_of(layer),
                pairing: c.pairing,
                window: c.windows[layer],
                scale: c.scale,
            };
            let attn = block.self_attn.forward(rec, &x, inputs, view)?;
            stream.add(after(rec, block.after_attention.as_ref(), attn)?);
            let x = stream.norm(rec, &block.before_mlp)?;
            let mlp = block.mlp.forward(rec, &x)?;
            stream.add(after(rec, block.after_mlp.as_ref(), mlp)?);
        }
        let x = stream.norm(rec, &self.norm)?;
        self.vocabulary.logits(rec, x, inputs.logits)
    }
}

/// Upstream names to GGUF's.
pub(super) fn gguf_name(name: &str) -> Option<String> {
    let fixed = match name {
        "embed_tokens.weight" => Some("token_embd.weight"),
        "norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        "rope_freqs.weight" | "rope_factors_long.weight" | "rope_factors_short.weight" => {
            Some(name)
        }
        _ => None,
    };
    if let Some(fixed) = fixed {
        return Some(fixed.to_owned());
    }
    let (layer, rest) = name.strip_prefix("layers.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let part = match part {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.qkv_proj" => "attn_qkv",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        // One matrix of both halves is under the name of the second.
        "mlp.up_proj" | "mlp.gate_up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.{kind}"))
}
