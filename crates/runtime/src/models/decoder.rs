//! The decoder most text families share: RMSNorm before each branch, rotary grouped-query attention, a gated MLP.
//!
//! A family's file says what is its own: where its numbers are, which of the parts below it has, how its GGUF differs. Biases,
//! norms of queries and keys, sliding windows, fused projections and the rotary scalings are here, each once.

use super::{CausalLm, Inputs, LayerCache, Spec, wanted_rows};
use crate::cache::Cache;
use crate::checkpoint::{Checkpoint, Fields};
use crate::loader::{Linear, LoadProgress, Loader, RmsNorm};
use crate::rope::{Rope, Scaling, partial_rotary_factor};
use crate::{Error, Result};
use firelight_kernels::attention::{AttentionArgs, attention};
use firelight_kernels::gated_act::{Activation, gated_act};
use firelight_kernels::rope_kv::{Pairing, RopeKvArgs, rope_kv};
use firelight_kernels::{Array, Device, Recorder, Weight, embed, linear};
use firelight_tensor::gguf::Metadata;
use serde_json::Value;

/// The numbers of a checkpoint, under upstream's names, and what the family has.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f32,
    pub rope: Rope,
    pub pairing: Pairing,
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
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: c.maybe_size("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            vocab_size: c.size("vocab_size")?,
            max_position_embeddings: c
                .maybe_size("max_position_embeddings")?
                .unwrap_or(defaults.max_position_embeddings),
            rms_norm_eps: c.number("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps) as f32,
            rope: Rope::from_config(value, None, "rope_theta", theta, turns)?,
            pairing: Pairing::Half,
            windows: vec![0; num_hidden_layers],
            qkv_bias: c.flag("attention_bias") == Some(true),
            o_bias: c.flag("attention_bias") == Some(true),
            qk_norm: false,
            fused: false,
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
        let scaling = match m.get_as::<&str>(&key("rope.scaling.type"))? {
            None | Some("none") => Scaling::None,
            Some("linear") => {
                Scaling::Linear(f64::from(m.require::<f32>(&key("rope.scaling.factor"))?))
            }
            Some(other) => {
                return Err(Error::Unsupported(format!(
                    "rope scaling `{other}` in a {arch} GGUF"
                )));
            }
        };
        let num_hidden_layers = layers(size("block_count")?)?;
        Ok(Config {
            hidden_size,
            intermediate_size: size("feed_forward_length")?,
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: maybe("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            vocab_size: gguf_vocab(checkpoint)?,
            max_position_embeddings: size("context_length")?,
            rms_norm_eps: m.require::<f32>(&key("attention.layer_norm_rms_epsilon"))?,
            rope: Rope {
                theta: f64::from(m.get_as::<f32>(&key("rope.freq_base"))?.unwrap_or(1e4)),
                dims: maybe("rope.dimension_count")?.unwrap_or(head_dim),
                scaling,
            },
            pairing: Pairing::Half,
            windows: vec![0; num_hidden_layers],
            qkv_bias: false,
            o_bias: false,
            qk_norm: false,
            fused: false,
        })
    }

    /// Windows as Qwen's configs say: only with `use_sliding_window`, then by `layer_types` or from `max_window_layers` on.
    pub(super) fn read_windows(&mut self, value: &Value) -> Result<()> {
        let c = Fields(value);
        let types = layer_types(value, self.num_hidden_layers)?;
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
                (0..self.num_hidden_layers).map(|i| i < first).collect()
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
        check_rope(&self.rope, self.head_dim)
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

struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    norms: Option<(RmsNorm, RmsNorm)>,
}

impl Attention {
    fn load(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Self> {
        let (d, q) = (c.hidden_size, c.num_attention_heads * c.head_dim);
        let (kv, eps) = (c.num_key_value_heads * c.head_dim, c.rms_norm_eps);
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
                true => Some((
                    l.rms_norm(&format!("{name}.q_norm"), c.head_dim, eps, 0.0)?,
                    l.rms_norm(&format!("{name}.k_norm"), c.head_dim, eps, 0.0)?,
                )),
                false => None,
            },
        })
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        c: &Config,
        x: &Array,
        rows: &Array,
        cache: &Cache,
        layer: usize,
    ) -> Result<Array> {
        let mut q = self.q_proj.forward(rec, x)?;
        let mut k = self.k_proj.forward(rec, x)?;
        let v = self.v_proj.forward(rec, x)?;
        if let Some((q_norm, k_norm)) = &self.norms {
            q = q_norm.forward(rec, &q)?;
            k = k_norm.forward(rec, &k)?;
        }
        let (k_cache, v_cache) = cache.layer(layer);
        let args = RopeKvArgs {
            rows,
            rope: cache.rope(0),
            k_cache,
            v_cache,
            pairing: c.pairing,
        };
        rope_kv(rec, &q, &k, &v, args)?;
        let args = AttentionArgs {
            rows,
            k_cache,
            v_cache,
            window: c.windows[layer],
            scale: (c.head_dim as f32).powf(-0.5),
            softcap: 0.0,
        };
        let out = attention(rec, &q, args)?;
        self.o_proj.forward(rec, &out)
    }
}

struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn load(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Self> {
        let (d, f) = (c.hidden_size, c.intermediate_size);
        let mut part = |own: &str, first: usize| match c.fused {
            true => {
                let name = format!("{name}.gate_up_proj");
                l.linear_part(&name, first..first + f, 2 * f, d, false)
            }
            false => l.linear(&format!("{name}.{own}"), f, d),
        };
        Ok(Mlp {
            gate_proj: part("gate_proj", 0)?,
            up_proj: part("up_proj", f)?,
            down_proj: l.linear(&format!("{name}.down_proj"), d, f)?,
        })
    }

    fn forward(&self, rec: &mut Recorder, x: &Array) -> Result<Array> {
        let gate = self.gate_proj.forward(rec, x)?;
        let up = self.up_proj.forward(rec, x)?;
        let h = gated_act(rec, &gate, &up, Activation::Silu)?;
        self.down_proj.forward(rec, &h)
    }
}

struct Block {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl Block {
    fn load(l: &mut Loader<'_>, c: &Config, i: usize) -> Result<Self> {
        let norm = |l: &mut Loader<'_>, name: &str| {
            let name = format!("layers.{i}.{name}");
            l.rms_norm(&name, c.hidden_size, c.rms_norm_eps, 0.0)
        };
        Ok(Block {
            input_layernorm: norm(l, "input_layernorm")?,
            self_attn: Attention::load(l, c, &format!("layers.{i}.self_attn"))?,
            post_attention_layernorm: norm(l, "post_attention_layernorm")?,
            mlp: Mlp::load(l, c, &format!("layers.{i}.mlp"))?,
        })
    }
}

/// A model of one of these families on a device.
struct Decoder {
    config: Config,
    spec: Spec,
    embed_tokens: Weight,
    layers: Vec<Block>,
    norm: RmsNorm,
    /// `None`: tied to the embedding.
    lm_head: Option<Weight>,
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
    let mut l = Loader::new(checkpoint, device, gguf_name, &mut report);
    if config.pairing == Pairing::Adjacent {
        l.adjacent_heads(config.head_dim);
    }
    if l.is_gguf() && l.has("rope_freqs.weight") {
        config.rope.scaling =
            Scaling::Factors(l.host("rope_freqs.weight", &[config.rope.dims / 2])?);
    }
    let (d, v) = (config.hidden_size, config.vocab_size);
    let embed_tokens = l.table("embed_tokens", ("vocab_size", v), d)?;
    let layers = (0..config.num_hidden_layers)
        .map(|i| Block::load(&mut l, &config, i))
        .collect::<Result<_>>()?;
    let norm = l.rms_norm("norm", d, config.rms_norm_eps, 0.0)?;
    let lm_head = match l.has("lm_head.weight") {
        true => Some(l.table("lm_head", ("vocab_size", v), d)?),
        false => None,
    };
    let layer = |window: &u32| {
        let (heads, head_dim) = (config.num_key_value_heads, config.head_dim);
        LayerCache::attention(heads, head_dim, *window as usize)
    };
    let spec = Spec {
        vocab: v,
        context: config.max_position_embeddings,
        layers: config.windows.iter().map(layer).collect(),
        ropes: vec![config.rope.clone()],
    };
    Ok(Box::new(Decoder {
        config,
        spec,
        embed_tokens,
        layers,
        norm,
        lm_head,
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
        let h = embed::embed(rec, inputs.ids, &self.embed_tokens, 1.0)?;
        let mut branch: Option<Array> = None;
        for (i, block) in self.layers.iter().enumerate() {
            let x = match branch.take() {
                Some(mlp) => block.input_layernorm.add_forward(rec, &h, &mlp)?,
                None => block.input_layernorm.forward(rec, &h)?,
            };
            let attn = block
                .self_attn
                .forward(rec, &self.config, &x, inputs.rows, cache, i)?;
            let x = block.post_attention_layernorm.add_forward(rec, &h, &attn)?;
            drop(attn);
            branch = Some(block.mlp.forward(rec, &x)?);
        }
        let x = match branch.take() {
            Some(mlp) => self.norm.add_forward(rec, &h, &mlp)?,
            None => self.norm.forward(rec, &h)?,
        };
        let Some(x) = wanted_rows(rec, x, inputs.logits)? else {
            return Ok(None);
        };
        Ok(Some(linear::linear(
            rec,
            &x,
            self.lm_head.as_ref().unwrap_or(&self.embed_tokens),
        )?))
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
