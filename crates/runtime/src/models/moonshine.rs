//! Moonshine: a speech model that hears samples, of any length, and pays only for as many as there are.
//!
//! Three convolutions over the raw samples, the first followed by tanh and a norm over all of the clip; pre-norm layers without biases
//! in norms and attention, neighbours turned by a part of each head in self-attention only; the decoder's MLP is gated, its gate the
//! second half of `fc1`. Jeffries et al. 2024. Reference: `modeling_moonshine.py` of transformers 5.23. Checked on the reference's
//! random checkpoints: no published weights were at hand.

use super::hearing::{Attention, Heads};
use super::parts::{Stream, Vocabulary};
use super::{Inputs, Spec};
use crate::cache::Cache;
use crate::checkpoint::{Checkpoint, Config as Format, Fields};
use crate::loader::{Linear, LoadProgress, Loader};
use crate::norm::LayerNorm;
use crate::rope::{Rope, partial_rotary_factor};
use crate::speech::{Hears, Keys, SpeechInputs, SpeechModel, SpeechSpec};
use crate::{Error, Result};
use firelight_kernels::act::Activation;
use firelight_kernels::gated_act::gated_act;
use firelight_kernels::layer_norm::layer_norm;
use firelight_kernels::rope::rope;
use firelight_kernels::rope_kv::Pairing;
use firelight_kernels::unfold::{Patches, unfold};
use firelight_kernels::{Array, DType, Device, Holder, Recorder};

/// The convolutions: kernel and step.
const CONVS: [(usize, usize); 3] = [(127, 64), (7, 3), (3, 2)];
/// Of every norm.
const EPS: f32 = 1e-5;

/// One of the two stacks.
#[derive(Clone, Copy, Debug)]
struct Stack {
    layers: usize,
    heads: usize,
    kv_heads: usize,
    act: Activation,
}

impl Stack {
    fn heads(&self, d: usize) -> Heads {
        Heads {
            queries: self.heads,
            keys: self.kv_heads,
            dim: d / self.heads,
            pairing: Pairing::Adjacent,
        }
    }
}

/// The numbers of a checkpoint, under upstream's names.
#[derive(Clone, Debug)]
struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    encoder: Stack,
    decoder: Stack,
    decoder_start_token_id: u32,
    eos_token_id: u32,
    rope: [Rope; 2],
}

impl Config {
    fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let Format::Json(value) = checkpoint.config()? else {
            return Err(Error::Unsupported("Moonshine as GGUF".into()));
        };
        let c = Fields(value);
        if c.flag("attention_bias") == Some(true) {
            return Err(Error::Unsupported(
                "`attention_bias` in a Moonshine model".into(),
            ));
        }
        let stack = |side: &str, default: &str| -> Result<Stack> {
            let size = |what: &str| c.size(&format!("{side}_{what}"));
            let heads = size("num_attention_heads")?;
            let act = c
                .text(&format!("{side}_hidden_act"))
                .unwrap_or(default)
                .to_owned();
            Ok(Stack {
                layers: super::decoder::layers(size("num_hidden_layers")?)?,
                heads,
                kv_heads: c
                    .maybe_size(&format!("{side}_num_key_value_heads"))?
                    .unwrap_or(heads),
                act: Activation::from_name(&act).ok_or_else(|| {
                    Error::Unsupported(format!("`{side}_hidden_act` {act} in a Moonshine model"))
                })?,
            })
        };
        let (encoder, decoder) = (stack("encoder", "gelu")?, stack("decoder", "silu")?);
        let hidden_size = c.size("hidden_size")?;
        let turns = |stack: &Stack| -> Result<Rope> {
            let hd = hidden_size / stack.heads;
            let dims = (hd as f64 * partial_rotary_factor_or(value, 0.9)?) as usize;
            if !dims.is_multiple_of(2) {
                return Err(Error::Unsupported(format!(
                    "{dims} turned elements of a head of {hd} in a Moonshine model; an even number is"
                )));
            }
            Rope::from_config(value, None, "rope_theta", 1e4, dims)
        };
        let id = |key: &str, default: u32| {
            Ok::<_, Error>(c.maybe_size(key)?.map_or(default, |n| n as u32))
        };
        let config = Config {
            hidden_size,
            intermediate_size: c.size("intermediate_size")?,
            vocab_size: c.size("vocab_size")?,
            max_position_embeddings: c.maybe_size("max_position_embeddings")?.unwrap_or(512),
            rope: [turns(&encoder)?, turns(&decoder)?],
            encoder,
            decoder,
            decoder_start_token_id: id("decoder_start_token_id", 1)?,
            eos_token_id: id("eos_token_id", 2)?,
        };
        for (stack, rope) in [&config.encoder, &config.decoder]
            .into_iter()
            .zip(&config.rope)
        {
            if !hidden_size.is_multiple_of(stack.heads) || hidden_size > 1 << 14 {
                return Err(Error::malformed(
                    "config.json",
                    format!("`hidden_size` {hidden_size} for {} heads", stack.heads),
                ));
            }
            let hd = hidden_size / stack.heads;
            let wide = stack.heads(hidden_size).padded();
            super::decoder::check_heads(stack.heads, stack.kv_heads, wide)?;
            super::decoder::check_rope(rope, hd)?;
        }
        Ok(config)
    }
}

/// The part of a head that turns: upstream's class has another default than text models.
fn partial_rotary_factor_or(value: &serde_json::Value, default: f64) -> Result<f64> {
    let inner = value
        .get("rope_parameters")
        .or_else(|| value.get("rope_scaling"));
    let here = |v: &serde_json::Value| v.get("partial_rotary_factor").is_some_and(|v| !v.is_null());
    match here(value) || inner.is_some_and(here) {
        true => partial_rotary_factor(value, None),
        false => Ok(default),
    }
}

fn attention(l: &mut Loader<'_>, d: usize, stack: Stack, name: &str) -> Result<Attention> {
    Attention::load(l, d, stack.heads(d), (name, "o_proj"))
}

struct EncoderLayer {
    input_layernorm: LayerNorm,
    self_attn: Attention,
    post_attention_layernorm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

struct DecoderLayer {
    input_layernorm: LayerNorm,
    self_attn: Attention,
    post_attention_layernorm: LayerNorm,
    encoder_attn: Attention,
    final_layernorm: LayerNorm,
    /// The two halves of upstream's `fc1`.
    value: Linear,
    gate: Linear,
    fc2: Linear,
}

/// A Moonshine on a device.
struct Moonshine {
    config: Config,
    spec: SpeechSpec,
    conv1: Linear,
    /// Weight and bias per channel, on the host: they are laid out for a clip's length.
    groupnorm: [Vec<f32>; 2],
    conv2: Linear,
    conv3: Linear,
    encoder: Vec<EncoderLayer>,
    encoder_norm: LayerNorm,
    embed_tokens: Vocabulary,
    decoder: Vec<DecoderLayer>,
    norm: LayerNorm,
}

/// Loads a checkpoint; see [`super::load_speech`].
pub(super) fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    progress: &mut LoadProgress<'_>,
) -> Result<Box<dyn SpeechModel>> {
    let mut report = |done, total| progress(done, total);
    let c = Config::read(checkpoint)?;
    let mut l = Loader::new(checkpoint, device, |_| None, &mut report);
    let l = &mut l;
    let (d, f) = (c.hidden_size, c.intermediate_size);
    let mut encoder = Vec::new();
    for i in 0..c.encoder.layers {
        let name = format!("encoder.layers.{i}");
        encoder.push(EncoderLayer {
            input_layernorm: l.layer_norm(&format!("{name}.input_layernorm"), d, EPS)?,
            self_attn: attention(l, d, c.encoder, &format!("{name}.self_attn"))?,
            post_attention_layernorm: l.layer_norm(
                &format!("{name}.post_attention_layernorm"),
                d,
                EPS,
            )?,
            fc1: l.linear(&format!("{name}.mlp.fc1"), f, d)?,
            fc2: l.linear(&format!("{name}.mlp.fc2"), d, f)?,
        });
    }
    let mut decoder = Vec::new();
    for i in 0..c.decoder.layers {
        let name = format!("decoder.layers.{i}");
        let fc1 = format!("{name}.mlp.fc1");
        decoder.push(DecoderLayer {
            input_layernorm: l.layer_norm(&format!("{name}.input_layernorm"), d, EPS)?,
            self_attn: attention(l, d, c.decoder, &format!("{name}.self_attn"))?,
            post_attention_layernorm: l.layer_norm(
                &format!("{name}.post_attention_layernorm"),
                d,
                EPS,
            )?,
            encoder_attn: attention(l, d, c.decoder, &format!("{name}.encoder_attn"))?,
            final_layernorm: l.layer_norm(&format!("{name}.final_layernorm"), d, EPS)?,
            value: l.linear_part(&fc1, 0..f, 2 * f, d, true)?,
            gate: l.linear_part(&fc1, f..2 * f, 2 * f, d, true)?,
            fc2: l.linear(&format!("{name}.mlp.fc2"), d, f)?,
        });
    }
    let least = CONVS
        .iter()
        .rev()
        .fold(1, |n, (kernel, step)| (n - 1) * step + kernel);
    let spec = SpeechSpec {
        hears: Hears::Samples { least },
        hidden: d,
        cross_heads: c.decoder.heads,
        start: c.decoder_start_token_id,
        end: c.eos_token_id,
        decoder: Spec {
            vocab: c.vocab_size,
            context: c.max_position_embeddings,
            layers: vec![c.decoder.heads(d).kept(); c.decoder.layers],
            ropes: vec![c.rope[1].clone()],
            mutual: 0,
        },
    };
    Ok(Box::new(Moonshine {
        spec,
        conv1: l.patch_embedding("encoder.conv1", &[d, 1, CONVS[0].0])?,
        groupnorm: [
            l.host("encoder.groupnorm.weight", &[d])?,
            l.host("encoder.groupnorm.bias", &[d])?,
        ],
        conv2: l.patch_embedding("encoder.conv2", &[2 * d, d, CONVS[1].0])?,
        conv3: l.patch_embedding("encoder.conv3", &[d, 2 * d, CONVS[2].0])?,
        encoder,
        encoder_norm: l.layer_norm("encoder.layer_norm", d, EPS)?,
        embed_tokens: Vocabulary::load(l, "decoder.embed_tokens", c.vocab_size, d, 1.0)?,
        decoder,
        norm: l.layer_norm("decoder.norm", d, EPS)?,
        config: c,
    }))
}

impl Moonshine {
    fn patches(i: usize) -> Patches {
        let (kernel, step) = CONVS[i];
        Patches::line(kernel, step, 0)
    }

    /// The convolutions: `[B·S, D]`.
    fn stem(&self, rec: &mut Recorder, input: &Array) -> Result<Array> {
        let &[b, samples] = input.shape() else {
            return Err(Error::invalid(format!("{input:?} as [B, samples]")));
        };
        let d = self.config.hidden_size;
        let x = unfold(rec, &input.reshape(&[b, samples, 1, 1])?, Self::patches(0))?;
        let y = self.conv1.forward_act(rec, &x, Activation::Tanh)?;
        drop(x);
        let t = y.elements() / (b * d).max(1);
        // One group: the statistics are those of all of the clip, the weights those of the channel.
        let device = rec.device().clone();
        let laid = |values: &[f32]| {
            let all = values.iter().copied().cycle().take(t * d);
            device.upload(
                DType::F32,
                &[t * d],
                bytemuck::cast_slice(&all.collect::<Vec<f32>>()),
                Holder::Activations,
            )
        };
        let [weight, bias] = &self.groupnorm;
        let (weight, bias) = (laid(weight)?, laid(bias)?);
        let y = layer_norm(rec, &y.reshape(&[b, t * d])?, &weight, Some(&bias), EPS)?;
        let x = unfold(rec, &y.reshape(&[b, t, 1, d])?, Self::patches(1))?;
        drop(y);
        let y = self.conv2.forward_act(rec, &x, Activation::Gelu)?;
        let t = Self::patches(1).count(0, t);
        let x = unfold(rec, &y.reshape(&[b, t, 1, 2 * d])?, Self::patches(2))?;
        drop(y);
        self.conv3.forward_act(rec, &x, Activation::Gelu)
    }
}

impl SpeechModel for Moonshine {
    fn spec(&self) -> &SpeechSpec {
        &self.spec
    }

    fn states(&self, input: usize) -> usize {
        (0..CONVS.len()).fold(input, |n, i| Self::patches(i).count(0, n))
    }

    fn encode(&self, rec: &mut Recorder, input: &Array, keys: Keys<'_>) -> Result<Array> {
        let Keys::Own = keys else {
            return Err(Error::Unsupported(
                "silence after a clip of a model without a window".into(),
            ));
        };
        let h = self.stem(rec, input)?;
        let b = input.shape().first().copied().unwrap_or(1).max(1);
        let t = h.elements() / self.config.hidden_size;
        let s = t / b;
        let device = rec.device().clone();
        let pairs = |f: &dyn Fn(u32) -> [u32; 2]| {
            let words: Vec<u32> = (0..t as u32).flat_map(f).collect();
            device.upload(
                DType::U32,
                &[t, 2],
                bytemuck::cast_slice(&words),
                Holder::Activations,
            )
        };
        let n = s as u32;
        let rows = pairs(&|i| [i / n, i % n])?;
        let spans = pairs(&|i| [i / n * n, i / n * n + n])?;
        let turn = &self.config.rope[0];
        let table = device.upload(
            DType::F32,
            &[s, turn.dims / 2, 2],
            bytemuck::cast_slice(&turn.table(s, s)),
            Holder::Activations,
        )?;
        let wide = self.config.encoder.heads(self.config.hidden_size).padded();
        let mut stream = Stream::new(h);
        for layer in &self.encoder {
            let x = stream.norm(rec, &layer.input_layernorm)?;
            let [q, k, v] = layer.self_attn.project(rec, &x)?;
            for heads in [&q, &k] {
                rope(rec, heads, wide, &rows, &table, Pairing::Adjacent)?;
            }
            stream.add(layer.self_attn.over(rec, &q, [&k, &v], &spans)?);
            drop(x);
            let x = stream.norm(rec, &layer.post_attention_layernorm)?;
            let inner = layer.fc1.forward_act(rec, &x, self.config.encoder.act)?;
            stream.add(layer.fc2.forward(rec, &inner)?);
        }
        stream.norm(rec, &self.encoder_norm)
    }

    fn cross(&self, rec: &mut Recorder, states: &Array) -> Result<Vec<[Array; 2]>> {
        let decoder = self.decoder.iter();
        decoder
            .map(|layer| layer.encoder_attn.seen(rec, states))
            .collect()
    }

    fn decode(
        &self,
        rec: &mut Recorder,
        inputs: SpeechInputs<'_>,
        cache: &Cache,
        mut queries: Option<&mut Vec<Array>>,
    ) -> Result<Option<Array>> {
        let text = Inputs::text(inputs.ids, inputs.rows, inputs.logits);
        let mut stream = Stream::new(self.embed_tokens.embed(rec, text)?);
        for (i, layer) in self.decoder.iter().enumerate() {
            let x = stream.norm(rec, &layer.input_layernorm)?;
            stream.add(layer.self_attn.causal(rec, &x, inputs.rows, (cache, i))?);
            let x = stream.norm(rec, &layer.post_attention_layernorm)?;
            let looks = &layer.encoder_attn;
            stream.add(looks.cross(rec, &x, (&inputs, i), queries.as_deref_mut())?);
            let x = stream.norm(rec, &layer.final_layernorm)?;
            let (value, gate) = (layer.value.forward(rec, &x)?, layer.gate.forward(rec, &x)?);
            let inner = gated_act(rec, &gate, &value, self.config.decoder.act)?;
            stream.add(layer.fc2.forward(rec, &inner)?);
        }
        let x = stream.norm(rec, &self.norm)?;
        self.embed_tokens.logits(rec, x, inputs.logits)
    }
}
