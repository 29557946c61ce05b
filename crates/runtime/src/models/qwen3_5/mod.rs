//! Qwen3.5: three layers of gated DeltaNet, then one of gated full attention, and so on.
//!
//! Yang et al. 2024 (Gated Delta Networks), Qwen Team 2026; reference `transformers/models/qwen3_5/modeling_qwen3_5.py` 5.23.0. The
//! linear layers keep a state of fixed size ([`LayerCache::Recurrent`]), the others keys and values. Positions of text are ordinary
//! ones: the three axes of the interleaved rotary embedding agree there. `mtp.*` tensors are not used. With an image processor
//! beside the weights pictures are read, too.
//!
//! GGUF (architecture `qwen35`) as llama.cpp writes it: norms with their 1 added, `−exp(A_log)` in `ssm_a`, and the value heads of a
//! linear layer in the order that pairs head `h` with key head `h mod NK`. Checked on the `qwen3_5` fixture (text).

mod config;

#[cfg(feature = "vision")]
use super::MediaKind;
use super::parts::{Attention, GatedMlp, Stream, View, Vocabulary};
#[cfg(feature = "vision")]
use super::pictures::Pictures;
#[cfg(feature = "vision")]
use super::qwen_vision::{QwenVision, Style};
#[cfg(feature = "vision")]
use super::towers::WithTowers;
use super::{CausalLm, Inputs, LayerCache, Spec};
use crate::Result;
use crate::cache::Cache;
use crate::checkpoint::Checkpoint;
#[cfg(feature = "vision")]
use crate::checkpoint::{Config as Source, Fields};
use crate::loader::{Linear, LoadProgress, Loader, RmsNorm};
use config::Config;
use firelight_kernels::act::Activation;
use firelight_kernels::causal_conv1d::causal_conv1d;
use firelight_kernels::gated_delta_rule::{DeltaArgs, HeadOrder, gated_delta_rule};
use firelight_kernels::gated_rms_norm::gated_rms_norm;
use firelight_kernels::rope_kv::Pairing;
use firelight_kernels::{Array, Device, Recorder};

/// Linear attention: a convolution over queries, keys and values, then the gated delta rule.
struct GatedDeltaNet {
    in_proj_qkv: Linear,
    in_proj_z: Linear,
    in_proj_b: Linear,
    in_proj_a: Linear,
    /// `[K, C]`.
    conv1d: Array,
    /// `−exp(A_log)`, then `dt_bias`: `[2, NV]`.
    decay: Array,
    norm: Array,
    out_proj: Linear,
}

impl GatedDeltaNet {
    fn load(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Self> {
        let (d, heads, values) = (c.hidden_size, c.linear_num_value_heads, c.values());
        let (channels, taps) = (c.channels(), c.linear_conv_kernel_dim);
        let taps_last = l.host(&format!("{name}.conv1d.weight"), &[channels, 1, taps])?;
        let conv1d: Vec<f32> = (0..taps * channels)
            .map(|i| taps_last[i % channels * taps + i / channels])
            .collect();
        let mut decay = l.host(&format!("{name}.A_log"), &[heads])?;
        if c.log_decay {
            decay.iter_mut().for_each(|a| *a = -a.exp());
        }
        decay.extend(l.host(&format!("{name}.dt_bias"), &[heads])?);
        Ok(GatedDeltaNet {
            in_proj_qkv: l.linear(&format!("{name}.in_proj_qkv"), channels, d)?,
            in_proj_z: l.linear(&format!("{name}.in_proj_z"), values, d)?,
            in_proj_b: l.linear(&format!("{name}.in_proj_b"), heads, d)?,
            in_proj_a: l.linear(&format!("{name}.in_proj_a"), heads, d)?,
            conv1d: l.upload(&conv1d)?.reshape(&[taps, channels])?,
            decay: l.upload(&decay)?.reshape(&[2, heads])?,
            norm: l.vector(&format!("{name}.norm.weight"), c.linear_value_head_dim)?,
            out_proj: l.linear(&format!("{name}.out_proj"), d, values)?,
        })
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        c: &Config,
        x: &Array,
        rows: &Array,
        (inputs, state): (&Array, &Array),
    ) -> Result<Array> {
        let mixed = self.in_proj_qkv.forward(rec, x)?;
        let qkv = causal_conv1d(rec, &mixed, &self.conv1d, rows, inputs)?;
        drop(mixed);
        let b = self.in_proj_b.forward(rec, x)?;
        let a = self.in_proj_a.forward(rec, x)?;
        let args = DeltaArgs {
            b: &b,
            a: &a,
            decay: &self.decay,
            rows,
            state,
            order: c.order,
        };
        let out = gated_delta_rule(rec, &qkv, args)?;
        drop(qkv);
        let z = self.in_proj_z.forward(rec, x)?;
        let out = gated_rms_norm(rec, &out, &z, &self.norm, c.rms_norm_eps)?;
        self.out_proj.forward(rec, &out)
    }
}

/// Full attention whose output is gated.
fn full_attention(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Attention> {
    let (d, hd) = (c.hidden_size, c.head_dim);
    let (q, kv) = (c.heads().queries(), c.heads().keys());
    // Each head has its query's rows, then its gate's.
    let half = |l: &mut Loader<'_>, which: usize| -> Result<Linear> {
        let pieces: Vec<_> = (0..c.num_attention_heads)
            .map(|h| (2 * h + which) * hd..(2 * h + which + 1) * hd)
            .collect();
        l.linear_rows(&format!("{name}.q_proj"), 2 * q, d, &pieces)
    };
    let norms = Attention::norms(l, name, hd, c.rms_norm_eps, c.norm_offset)?;
    Ok(Attention {
        q_proj: half(l, 0)?,
        gate_proj: Some(half(l, 1)?),
        k_proj: l.linear(&format!("{name}.k_proj"), kv, d)?,
        v_proj: l.linear(&format!("{name}.v_proj"), kv, d)?,
        o_proj: l.linear(&format!("{name}.o_proj"), d, q)?,
        norms: Some(norms),
    })
}

/// What mixes the tokens in a layer.
enum Mixer {
    Linear(GatedDeltaNet),
    Full(Attention),
}

struct Block {
    input_layernorm: RmsNorm,
    mixer: Mixer,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
}

impl Block {
    fn load(l: &mut Loader<'_>, c: &Config, i: usize) -> Result<Self> {
        let norm = |l: &mut Loader<'_>, name: &str| {
            let name = format!("layers.{i}.{name}");
            l.rms_norm(&name, c.hidden_size, c.rms_norm_eps, c.norm_offset)
        };
        Ok(Block {
            input_layernorm: norm(l, "input_layernorm")?,
            mixer: match c.full_attention[i] {
                true => Mixer::Full(full_attention(l, c, &format!("layers.{i}.self_attn"))?),
                false => Mixer::Linear(GatedDeltaNet::load(
                    l,
                    c,
                    &format!("layers.{i}.linear_attn"),
                )?),
            },
            post_attention_layernorm: norm(l, "post_attention_layernorm")?,
            mlp: GatedMlp::load(
                l,
                &format!("layers.{i}.mlp"),
                (c.hidden_size, c.intermediate_size),
                Activation::Silu,
            )?,
        })
    }
}

/// A Qwen3.5 text model on a device.
pub struct Qwen35 {
    config: Config,
    spec: Spec,
    vocabulary: Vocabulary,
    layers: Vec<Block>,
    norm: RmsNorm,
}

/// Loads a checkpoint; see [`super::load`].
pub(super) fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn CausalLm>> {
    let text = load_text(checkpoint, device, progress)?;
    #[cfg(feature = "vision")]
    if let Ok(Source::Json(config)) = checkpoint.config()
        && config.get("vision_config").is_some()
        && Pictures::are_there(checkpoint)?
    {
        let hidden = Fields(config.get("text_config").unwrap_or(config)).size("hidden_size")?;
        let tower = QwenVision::load(checkpoint, config, Style::Qwen3, hidden, device, progress)?;
        return Ok(Box::new(WithTowers {
            text,
            towers: vec![(MediaKind::Image, Box::new(tower))],
        }));
    }
    Ok(text)
}

fn load_text(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn CausalLm>> {
    let mut report = |done, total| progress(done, total);
    let config = Config::read(checkpoint)?;
    config.check()?;
    let mut l = Loader::new(checkpoint, device, gguf_name, &mut report);
    if config.order == HeadOrder::Tiled {
        l.reordered(".linear_attn.");
    }
    let (d, v) = (config.hidden_size, config.vocab_size);
    let vocabulary = Vocabulary::load(&mut l, "embed_tokens", v, d, 1.0)?;
    let layers = (0..config.full_attention.len())
        .map(|i| Block::load(&mut l, &config, i))
        .collect::<Result<_>>()?;
    let norm = l.rms_norm("norm", d, config.rms_norm_eps, config.norm_offset)?;
    let kind = |full: &bool| match full {
        true => config.heads().cached(0),
        false => LayerCache::Recurrent {
            taps: config.linear_conv_kernel_dim,
            channels: config.channels(),
            heads: config.linear_num_value_heads,
            key_dim: config.linear_key_head_dim,
            value_dim: config.linear_value_head_dim,
        },
    };
    let spec = Spec {
        vocab: v,
        context: config.max_position_embeddings,
        layers: config.full_attention.iter().map(kind).collect(),
        ropes: vec![config.rope.clone()],
        mutual: 0,
    };
    Ok(Box::new(Qwen35 {
        config,
        spec,
        vocabulary,
        layers,
        norm,
    }))
}

impl CausalLm for Qwen35 {
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
            stream.add(match &block.mixer {
                Mixer::Linear(net) => net.forward(rec, c, &x, inputs.rows, cache.layer(layer))?,
                Mixer::Full(attn) => {
                    let view = View {
                        cache,
                        layer,
                        rope: 0,
                        pairing: Pairing::Half,
                        window: 0,
                        scale: (c.head_dim as f32).powf(-0.5),
                    };
                    attn.forward(rec, &x, inputs, view)?
                }
            });
            let x = stream.norm(rec, &block.post_attention_layernorm)?;
            stream.add(block.mlp.forward(rec, &x)?);
        }
        let x = stream.norm(rec, &self.norm)?;
        self.vocabulary.logits(rec, x, inputs.logits)
    }
}

/// Upstream names to GGUF's.
fn gguf_name(name: &str) -> Option<String> {
    let own = name
        .strip_prefix("layers.")
        .and_then(|r| r.split_once('.'))
        .and_then(|(layer, rest)| {
            let part = match rest {
                "post_attention_layernorm.weight" => "post_attention_norm.weight",
                "self_attn.q_norm.weight" => "attn_q_norm.weight",
                "self_attn.k_norm.weight" => "attn_k_norm.weight",
                "linear_attn.in_proj_qkv.weight" => "attn_qkv.weight",
                "linear_attn.in_proj_z.weight" => "attn_gate.weight",
                "linear_attn.in_proj_b.weight" => "ssm_beta.weight",
                "linear_attn.in_proj_a.weight" => "ssm_alpha.weight",
                "linear_attn.conv1d.weight" => "ssm_conv1d.weight",
                "linear_attn.A_log" => "ssm_a",
                "linear_attn.dt_bias" => "ssm_dt.bias",
                "linear_attn.norm.weight" => "ssm_norm.weight",
                "linear_attn.out_proj.weight" => "ssm_out.weight",
                _ => return None,
            };
            Some(format!("blk.{layer}.{part}"))
        });
    own.or_else(|| super::decoder::gguf_name(name))
}
