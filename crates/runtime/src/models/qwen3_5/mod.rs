//! Qwen3.5, the text tower: three layers of gated DeltaNet, then one of gated full attention, and so on.
//!
//! Yang et al. 2024 (Gated Delta Networks), Qwen Team 2026; reference `transformers/models/qwen3_5/modeling_qwen3_5.py` 5.23.0. The
//! linear layers keep a state of fixed size ([`LayerCache::Recurrent`]), the others keys and values. Positions of text are ordinary
//! ones: the three axes of the interleaved rotary embedding agree there. Pictures are not read yet; `mtp.*` tensors are not used.
//!
//! GGUF (architecture `qwen35`) as llama.cpp writes it: norms with their 1 added, `−exp(A_log)` in `ssm_a`, and the value heads of a
//! linear layer in the order that pairs head `h` with key head `h mod NK`. Checked on the `qwen3_5` fixture (text).

mod config;

use super::{CausalLm, Inputs, LayerCache, Spec, wanted_rows};
use crate::Result;
use crate::cache::Cache;
use crate::checkpoint::Checkpoint;
use crate::loader::{Linear, LoadProgress, Loader, RmsNorm};
use config::Config;
use firelight_kernels::attention::{AttentionArgs, attention};
use firelight_kernels::causal_conv1d::causal_conv1d;
use firelight_kernels::gated_act::{Activation, gated_act};
use firelight_kernels::gated_delta_rule::{DeltaArgs, HeadOrder, gated_delta_rule};
use firelight_kernels::gated_rms_norm::gated_rms_norm;
use firelight_kernels::rope_kv::{Pairing, RopeKvArgs, rope_kv};
use firelight_kernels::{Array, Device, Recorder, Weight, embed, linear};

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
struct Attention {
    q_proj: Linear,
    /// The other half of upstream's `q_proj`.
    gate_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
}

impl Attention {
    fn load(l: &mut Loader<'_>, c: &Config, name: &str) -> Result<Self> {
        let (d, heads, hd) = (c.hidden_size, c.num_attention_heads, c.head_dim);
        let (q, kv) = (heads * hd, c.num_key_value_heads * hd);
        let norm = (c.rms_norm_eps, c.norm_offset);
        // Each head has its query's rows, then its gate's.
        let half = |l: &mut Loader<'_>, which: usize| -> Result<Linear> {
            let pieces: Vec<_> = (0..heads)
                .map(|h| (2 * h + which) * hd..(2 * h + which + 1) * hd)
                .collect();
            l.linear_rows(&format!("{name}.q_proj"), 2 * q, d, &pieces)
        };
        Ok(Attention {
            q_proj: half(l, 0)?,
            gate_proj: half(l, 1)?,
            k_proj: l.linear(&format!("{name}.k_proj"), kv, d)?,
            v_proj: l.linear(&format!("{name}.v_proj"), kv, d)?,
            o_proj: l.linear(&format!("{name}.o_proj"), d, q)?,
            q_norm: l.rms_norm(&format!("{name}.q_norm"), hd, norm.0, norm.1)?,
            k_norm: l.rms_norm(&format!("{name}.k_norm"), hd, norm.0, norm.1)?,
        })
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        c: &Config,
        x: &Array,
        rows: &Array,
        rope: &Array,
        (k_cache, v_cache): (&Array, &Array),
    ) -> Result<Array> {
        let q = self.q_proj.forward(rec, x)?;
        let q = self.q_norm.forward(rec, &q)?;
        let k = self.k_proj.forward(rec, x)?;
        let k = self.k_norm.forward(rec, &k)?;
        let v = self.v_proj.forward(rec, x)?;
        let args = RopeKvArgs {
            rows,
            rope,
            k_cache,
            v_cache,
            pairing: Pairing::Half,
        };
        rope_kv(rec, &q, &k, &v, args)?;
        drop((k, v));
        let args = AttentionArgs {
            rows,
            k_cache,
            v_cache,
            window: 0,
            scale: (c.head_dim as f32).powf(-0.5),
            softcap: 0.0,
        };
        let out = attention(rec, &q, args)?;
        drop(q);
        let gate = self.gate_proj.forward(rec, x)?;
        let out = gated_act(rec, &gate, &out, Activation::Sigmoid)?;
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
        Ok(Mlp {
            gate_proj: l.linear(&format!("{name}.gate_proj"), f, d)?,
            up_proj: l.linear(&format!("{name}.up_proj"), f, d)?,
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

/// What mixes the tokens in a layer.
enum Mixer {
    Linear(GatedDeltaNet),
    Full(Attention),
}

struct Block {
    input_layernorm: RmsNorm,
    mixer: Mixer,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
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
                true => Mixer::Full(Attention::load(l, c, &format!("layers.{i}.self_attn"))?),
                false => Mixer::Linear(GatedDeltaNet::load(
                    l,
                    c,
                    &format!("layers.{i}.linear_attn"),
                )?),
            },
            post_attention_layernorm: norm(l, "post_attention_layernorm")?,
            mlp: Mlp::load(l, c, &format!("layers.{i}.mlp"))?,
        })
    }
}

/// A Qwen3.5 text model on a device.
pub struct Qwen35 {
    config: Config,
    spec: Spec,
    embed_tokens: Weight,
    layers: Vec<Block>,
    norm: RmsNorm,
    /// `None`: tied to the embedding.
    lm_head: Option<Weight>,
}

/// Loads a checkpoint; see [`super::load`].
pub(super) fn load(
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
    let embed_tokens = l.table("embed_tokens", ("vocab_size", v), d)?;
    let layers = (0..config.full_attention.len())
        .map(|i| Block::load(&mut l, &config, i))
        .collect::<Result<_>>()?;
    let norm = l.rms_norm("norm", d, config.rms_norm_eps, config.norm_offset)?;
    let lm_head = match l.has("lm_head.weight") {
        true => Some(l.table("lm_head", ("vocab_size", v), d)?),
        false => None,
    };
    let kind = |full: &bool| match full {
        true => LayerCache::Attention {
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        },
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
    };
    Ok(Box::new(Qwen35 {
        config,
        spec,
        embed_tokens,
        layers,
        norm,
        lm_head,
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
        let (c, rows) = (&self.config, inputs.rows);
        let h = embed::embed(rec, inputs.ids, &self.embed_tokens, 1.0)?;
        let mut branch: Option<Array> = None;
        for (i, block) in self.layers.iter().enumerate() {
            let x = match branch.take() {
                Some(mlp) => block.input_layernorm.add_forward(rec, &h, &mlp)?,
                None => block.input_layernorm.forward(rec, &h)?,
            };
            let kept = cache.layer(i);
            let mixed = match &block.mixer {
                Mixer::Linear(net) => net.forward(rec, c, &x, rows, kept)?,
                Mixer::Full(attn) => attn.forward(rec, c, &x, rows, cache.rope(0), kept)?,
            };
            let x = block
                .post_attention_layernorm
                .add_forward(rec, &h, &mixed)?;
            drop(mixed);
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
