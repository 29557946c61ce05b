//! Attention, MLP, experts, block and model.

use super::config::{Config, Experts, Layer};
use crate::Result;
use crate::cache::Cache;
use crate::checkpoint::Checkpoint;
use crate::loader::{Linear, LoadProgress, Loader, RmsNorm};
use crate::models::parts::{GatedMlp, Vocabulary};
use crate::models::{CausalLm, Inputs, LayerCache, Spec, decoder};
use crate::rope::Scaling;
use firelight_kernels::act::Activation;
use firelight_kernels::add_scale::add_scale;
use firelight_kernels::attention::{AttentionArgs, attention};
use firelight_kernels::columns::columns;
use firelight_kernels::expert_linear::expert_linear;
use firelight_kernels::expert_route::expert_route;
use firelight_kernels::gated_act::gated_act;
use firelight_kernels::rope::rope;
use firelight_kernels::rope_kv::{Pairing, RopeKvArgs, rope_kv};
use firelight_kernels::softcap::softcap;
use firelight_kernels::weighted_sum::weighted_sum;
use firelight_kernels::{Array, Device, Recorder, Weight, embed, linear};

struct Attention {
    q_proj: Linear,
    q_norm: RmsNorm,
    /// `None`: those of an earlier layer.
    kv: Option<KeyValue>,
    o_proj: Linear,
}

struct KeyValue {
    k_proj: Linear,
    /// `None`: the values are the keys.
    v_proj: Option<Linear>,
    k_norm: RmsNorm,
    /// Without a weight.
    v_norm: RmsNorm,
}

impl Attention {
    fn load(l: &mut Loader<'_>, c: &Config, layer: &Layer, name: &str) -> Result<Self> {
        let (d, hd, bias) = (c.hidden_size, layer.head_dim, c.attention_bias);
        let (q, kv) = (c.num_attention_heads * hd, layer.num_key_value_heads * hd);
        let linear = |l: &mut Loader<'_>, own: &str, rows: usize, cols: usize| {
            l.linear_part(&format!("{name}.{own}"), 0..rows, rows, cols, bias)
        };
        Ok(Attention {
            q_proj: linear(l, "q_proj", q, d)?,
            q_norm: l.rms_norm(&format!("{name}.q_norm"), hd, c.rms_norm_eps, 0.0)?,
            kv: match layer.own {
                false => None,
                true => Some(KeyValue {
                    k_proj: linear(l, "k_proj", kv, d)?,
                    v_proj: match layer.k_eq_v {
                        true => None,
                        false => Some(linear(l, "v_proj", kv, d)?),
                    },
                    k_norm: l.rms_norm(&format!("{name}.k_norm"), hd, c.rms_norm_eps, 0.0)?,
                    v_norm: RmsNorm {
                        weight: l.upload(&vec![1.0; hd])?,
                        eps: c.rms_norm_eps,
                        offset: 0.0,
                    },
                }),
            },
            o_proj: linear(l, "o_proj", d, q)?,
        })
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        c: &Config,
        layer: &Layer,
        x: &Array,
        inputs: Inputs<'_>,
        cache: &Cache,
    ) -> Result<Array> {
        let rows = inputs.rows;
        let q = self.q_proj.forward(rec, x)?;
        let q = self.q_norm.forward(rec, &q)?;
        let (k_cache, v_cache) = cache.layer(layer.cache);
        let (table, pairing) = (cache.rope(usize::from(layer.sliding)), Pairing::Half);
        match &self.kv {
            Some(kv) => {
                let k = kv.k_proj.forward(rec, x)?;
                let v = match &kv.v_proj {
                    Some(v_proj) => {
                        let v = v_proj.forward(rec, x)?;
                        kv.v_norm.forward(rec, &v)?
                    }
                    None => kv.v_norm.forward(rec, &k)?,
                };
                let k = kv.k_norm.forward(rec, &k)?;
                let args = RopeKvArgs {
                    rows,
                    rope: table,
                    k_cache,
                    v_cache,
                    pairing,
                };
                rope_kv(rec, &q, &k, &v, args)?;
            }
            None => rope(rec, &q, layer.head_dim, rows, table, pairing)?,
        }
        let args = AttentionArgs {
            rows,
            k_cache,
            v_cache,
            window: if layer.sliding {
                c.sliding_window as u32
            } else {
                0
            },
            // The norms of queries and keys take the scale's part.
            scale: 1.0,
            softcap: 0.0,
            // A picture's tokens see each other here, and only here.
            ends: match layer.sliding {
                true => inputs.soft.and_then(|soft| soft.ends),
                false => None,
            },
        };
        let out = attention(rec, &q, args)?;
        self.o_proj.forward(rec, &out)
    }
}

/// The mixture of experts beside an MLP, with its own norms.
struct Moe {
    sizes: Experts,
    post_feedforward_layernorm_1: RmsNorm,
    pre_feedforward_layernorm_2: RmsNorm,
    post_feedforward_layernorm_2: RmsNorm,
    /// The router's norm with its scale and `hidden_size^-½`.
    router_norm: RmsNorm,
    router_proj: Weight,
    per_expert_scale: Array,
    /// `[E·F, D]`, `[E·F, D]`, `[E·D, F]`.
    gate_proj: Weight,
    up_proj: Weight,
    down_proj: Weight,
}

impl Moe {
    fn load(l: &mut Loader<'_>, c: &Config, sizes: Experts, name: &str) -> Result<Self> {
        let (d, eps) = (c.hidden_size, c.rms_norm_eps);
        let (e, f) = (sizes.num_experts, sizes.moe_intermediate_size);
        let norm =
            |l: &mut Loader<'_>, own: &str| l.rms_norm(&format!("{name}.{own}"), d, eps, 0.0);
        let scale = l.host(&format!("{name}.router.scale"), &[d])?;
        let root = (d as f32).powf(-0.5);
        let scale: Vec<f32> = scale.iter().map(|s| s * root).collect();
        let (fused, shape) = (format!("{name}.experts.gate_up_proj"), [e, 2 * f, d]);
        let half = |l: &mut Loader<'_>, own: &str, first: usize| match l.has(&fused) || !l.is_gguf()
        {
            true => {
                let pieces: Vec<_> = (0..e)
                    .map(|i| (2 * i + first) * f..(2 * i + first + 1) * f)
                    .collect();
                l.matrix(&fused, &shape, &pieces)
            }
            // Some GGUF files have two tensors.
            false => l.matrix(
                &format!("{name}.experts.{own}"),
                &[e, f, d],
                std::slice::from_ref(&(0..e * f)),
            ),
        };
        Ok(Moe {
            sizes,
            post_feedforward_layernorm_1: norm(l, "post_feedforward_layernorm_1")?,
            pre_feedforward_layernorm_2: norm(l, "pre_feedforward_layernorm_2")?,
            post_feedforward_layernorm_2: norm(l, "post_feedforward_layernorm_2")?,
            router_norm: RmsNorm {
                weight: l.upload(&scale)?,
                eps,
                offset: 0.0,
            },
            router_proj: l.weight(&format!("{name}.router.proj"), e, d)?,
            per_expert_scale: l.vector(&format!("{name}.router.per_expert_scale"), e)?,
            gate_proj: half(l, "gate_proj", 0)?,
            up_proj: half(l, "up_proj", 1)?,
            down_proj: l.matrix(
                &format!("{name}.experts.down_proj"),
                &[e, d, f],
                std::slice::from_ref(&(0..e * d)),
            )?,
        })
    }

    /// What the experts say of the residual stream `h`, added to what the MLP says.
    fn forward(&self, rec: &mut Recorder, h: &Array, mlp: &Array) -> Result<Array> {
        let Experts {
            top_k_experts,
            moe_intermediate_size,
            ..
        } = self.sizes;
        let logits = self.router_norm.forward(rec, h)?;
        let logits = linear::linear(rec, &logits, &self.router_proj)?;
        let (ids, weights) = expert_route(rec, &logits, &self.per_expert_scale, top_k_experts)?;
        let x = self.pre_feedforward_layernorm_2.forward(rec, h)?;
        let gate = expert_linear(rec, &x, &self.gate_proj, &ids, moe_intermediate_size)?;
        let up = expert_linear(rec, &x, &self.up_proj, &ids, moe_intermediate_size)?;
        let x = gated_act(rec, &gate, &up, Activation::GeluTanh)?;
        drop((gate, up));
        let d = h.shape().last().copied().unwrap_or(1);
        let x = expert_linear(rec, &x, &self.down_proj, &ids, d)?;
        let x = weighted_sum(rec, &x, &weights)?;
        let x = self.post_feedforward_layernorm_2.forward(rec, &x)?;
        let sum = self.post_feedforward_layernorm_1.forward(rec, mlp)?;
        add_scale(rec, &sum, &x, 1.0)?;
        Ok(sum)
    }
}

/// What a layer does with its slice of the per-layer embeddings.
struct PerLayer {
    per_layer_input_gate: Linear,
    per_layer_projection: Linear,
    post_per_layer_input_norm: RmsNorm,
}

struct Block {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: GatedMlp,
    moe: Option<Moe>,
    post_feedforward_layernorm: RmsNorm,
    per_layer: Option<PerLayer>,
    /// Factor of the whole residual stream.
    layer_scalar: f32,
}

impl Block {
    fn load(l: &mut Loader<'_>, c: &Config, i: usize) -> Result<Self> {
        let (d, p, layer) = (c.hidden_size, c.hidden_size_per_layer_input, &c.layers[i]);
        let name = format!("layers.{i}");
        let norm = |l: &mut Loader<'_>, own: &str| {
            l.rms_norm(&format!("{name}.{own}"), d, c.rms_norm_eps, 0.0)
        };
        let scalar = format!("{name}.layer_scalar");
        Ok(Block {
            input_layernorm: norm(l, "input_layernorm")?,
            self_attn: Attention::load(l, c, layer, &format!("{name}.self_attn"))?,
            post_attention_layernorm: norm(l, "post_attention_layernorm")?,
            pre_feedforward_layernorm: norm(l, "pre_feedforward_layernorm")?,
            mlp: GatedMlp::load(
                l,
                &format!("{name}.mlp"),
                (d, layer.intermediate_size),
                Activation::GeluTanh,
            )?,
            moe: match c.experts {
                Some(sizes) => Some(Moe::load(l, c, sizes, &name)?),
                None => None,
            },
            post_feedforward_layernorm: norm(l, "post_feedforward_layernorm")?,
            per_layer: match p {
                0 => None,
                _ => Some(PerLayer {
                    per_layer_input_gate: l.linear(
                        &format!("{name}.per_layer_input_gate"),
                        p,
                        d,
                    )?,
                    per_layer_projection: l.linear(
                        &format!("{name}.per_layer_projection"),
                        d,
                        p,
                    )?,
                    post_per_layer_input_norm: norm(l, "post_per_layer_input_norm")?,
                }),
            },
            layer_scalar: match l.has(&scalar) {
                true => l.host(&scalar, &[1])?.first().copied().unwrap_or(1.0),
                false => 1.0,
            },
        })
    }

    /// Changes the residual stream `h`; `inputs` are the per-layer embeddings of all layers.
    fn forward(
        &self,
        rec: &mut Recorder,
        c: &Config,
        i: usize,
        h: &Array,
        inputs: Option<&Array>,
        (step, cache): (Inputs<'_>, &Cache),
    ) -> Result<()> {
        let x = self.input_layernorm.forward(rec, h)?;
        let attn = self
            .self_attn
            .forward(rec, c, &c.layers[i], &x, step, cache)?;
        let attn = self.post_attention_layernorm.forward(rec, &attn)?;
        let x = self.pre_feedforward_layernorm.add_forward(rec, h, &attn)?;
        drop(attn);
        let mut x = self.mlp.forward(rec, &x)?;
        if let Some(moe) = &self.moe {
            x = moe.forward(rec, h, &x)?;
        }
        let x = self.post_feedforward_layernorm.forward(rec, &x)?;
        let (Some(own), Some(inputs)) = (&self.per_layer, inputs) else {
            return Ok(add_scale(rec, h, &x, self.layer_scalar)?);
        };
        add_scale(rec, h, &x, 1.0)?;
        let p = c.hidden_size_per_layer_input;
        let gate = own.per_layer_input_gate.forward(rec, h)?;
        let input = columns(rec, inputs, i * p, p)?;
        let x = gated_act(rec, &gate, &input, Activation::GeluTanh)?;
        let x = own.per_layer_projection.forward(rec, &x)?;
        let x = own.post_per_layer_input_norm.forward(rec, &x)?;
        Ok(add_scale(rec, h, &x, self.layer_scalar)?)
    }
}

/// The embeddings that all layers get beside the residual stream.
struct PerLayerInputs {
    embed_tokens_per_layer: Weight,
    per_layer_model_projection: Linear,
    /// With the factors of the context's part; see [`PerLayerInputs::load`].
    per_layer_projection_norm: RmsNorm,
    token_scale: f32,
}

impl PerLayerInputs {
    /// `(norm(context · D^-½) + token · √p) · 2^-½`: the norm takes the first factor into its epsilon and the last into its weight.
    fn load(l: &mut Loader<'_>, c: &Config) -> Result<Self> {
        let (d, p) = (c.hidden_size, c.hidden_size_per_layer_input);
        let all = c.layers.len() * p;
        let half = std::f32::consts::FRAC_1_SQRT_2;
        let norm = l.host("per_layer_projection_norm.weight", &[p])?;
        let norm: Vec<f32> = norm.iter().map(|w| w * half).collect();
        let vocab = ("vocab_size_per_layer_input", c.vocab_size_per_layer_input);
        Ok(PerLayerInputs {
            embed_tokens_per_layer: l.table("embed_tokens_per_layer", vocab, all)?,
            per_layer_model_projection: l.linear("per_layer_model_projection", all, d)?,
            per_layer_projection_norm: RmsNorm {
                weight: l.upload(&norm)?,
                eps: c.rms_norm_eps * d as f32,
                offset: 0.0,
            },
            token_scale: (p as f32).sqrt() * half,
        })
    }

    /// f32 `[T, L·p]`.
    fn forward(&self, rec: &mut Recorder, ids: &Array, h: &Array) -> Result<Array> {
        let context = self.per_layer_model_projection.forward(rec, h)?;
        let context = self.per_layer_projection_norm.forward(rec, &context)?;
        let token = embed::embed(rec, ids, &self.embed_tokens_per_layer, self.token_scale)?;
        add_scale(rec, &context, &token, 1.0)?;
        Ok(context)
    }
}

/// A Gemma 4 text model on a device.
struct Gemma4Text {
    config: Config,
    spec: Spec,
    vocabulary: Vocabulary,
    per_layer: Option<PerLayerInputs>,
    layers: Vec<Block>,
    norm: RmsNorm,
}

/// Loads what `config` describes; `mutual` is that of the [`Spec`].
pub(super) fn load(
    mut config: Config,
    checkpoint: &Checkpoint,
    device: &Device,
    mutual: usize,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn CausalLm>> {
    let mut report = |done, total| progress(done, total);
    let mut l = Loader::new(checkpoint, device, gguf_name, &mut report);
    if l.is_gguf() && l.has("rope_freqs.weight") {
        let full = &mut config.ropes[0];
        full.scaling = Scaling::Factors(l.host("rope_freqs.weight", &[full.dims / 2])?);
    }
    let (d, v) = (config.hidden_size, config.vocab_size);
    let vocabulary = Vocabulary::load(&mut l, "embed_tokens", v, d, (d as f32).sqrt())?;
    let per_layer = match config.hidden_size_per_layer_input {
        0 => None,
        _ => Some(PerLayerInputs::load(&mut l, &config)?),
    };
    let layers = (0..config.layers.len())
        .map(|i| Block::load(&mut l, &config, i))
        .collect::<Result<_>>()?;
    let norm = l.rms_norm("norm", d, config.rms_norm_eps, 0.0)?;
    let cached = config.cached().map(|layer| {
        let window = if layer.sliding {
            config.sliding_window
        } else {
            0
        };
        LayerCache::attention(layer.num_key_value_heads, layer.head_dim, window)
    });
    let spec = Spec {
        vocab: v,
        context: config.max_position_embeddings,
        layers: cached.collect(),
        ropes: config.ropes.to_vec(),
        mutual,
    };
    Ok(Box::new(Gemma4Text {
        config,
        spec,
        vocabulary,
        per_layer,
        layers,
        norm,
    }))
}

impl CausalLm for Gemma4Text {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        inputs: Inputs<'_>,
        cache: &Cache,
    ) -> Result<Option<Array>> {
        let h = self.vocabulary.embed(rec, inputs)?;
        let per_layer = match &self.per_layer {
            Some(own) => Some(own.forward(rec, inputs.plain(), &h)?),
            None => None,
        };
        for (i, block) in self.layers.iter().enumerate() {
            let place = (inputs, cache);
            block.forward(rec, &self.config, i, &h, per_layer.as_ref(), place)?;
        }
        drop(per_layer);
        let x = self.norm.forward(rec, &h)?;
        let Some(logits) = self.vocabulary.logits(rec, x, inputs.logits)? else {
            return Ok(None);
        };
        if self.config.final_logit_softcapping > 0.0 {
            softcap(rec, &logits, self.config.final_logit_softcapping)?;
        }
        Ok(Some(logits))
    }
}

/// Upstream names to GGUF's.
fn gguf_name(name: &str) -> Option<String> {
    match name {
        "embed_tokens_per_layer.weight" => return Some("per_layer_token_embd.weight".into()),
        "per_layer_model_projection.weight" => return Some("per_layer_model_proj.weight".into()),
        "per_layer_projection_norm.weight" => return Some("per_layer_proj_norm.weight".into()),
        _ => (),
    }
    let own = name
        .strip_prefix("layers.")
        .and_then(|rest| rest.split_once('.'))
        .and_then(|(layer, rest)| {
            let part = match rest {
                "post_attention_layernorm.weight" => "post_attention_norm.weight",
                "pre_feedforward_layernorm.weight" => "ffn_norm.weight",
                "post_feedforward_layernorm.weight" => "post_ffw_norm.weight",
                "post_feedforward_layernorm_1.weight" => "post_ffw_norm_1.weight",
                "pre_feedforward_layernorm_2.weight" => "pre_ffw_norm_2.weight",
                "post_feedforward_layernorm_2.weight" => "post_ffw_norm_2.weight",
                "per_layer_input_gate.weight" => "inp_gate.weight",
                "per_layer_projection.weight" => "proj.weight",
                "post_per_layer_input_norm.weight" => "post_norm.weight",
                "layer_scalar" => "layer_output_scale.weight",
                "router.proj.weight" => "ffn_gate_inp.weight",
                "router.scale" => "ffn_gate_inp.scale",
                "router.per_expert_scale" => "ffn_down_exps.scale",
                "experts.gate_up_proj" => "ffn_gate_up_exps.weight",
                "experts.gate_proj" => "ffn_gate_exps.weight",
                "experts.up_proj" => "ffn_up_exps.weight",
                "experts.down_proj" => "ffn_down_exps.weight",
                _ => return None,
            };
            Some(format!("blk.{layer}.{part}"))
        });
    own.or_else(|| decoder::gguf_name(name))
}
