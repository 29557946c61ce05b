//! Whisper: an encoder over log-mel features and a decoder that looks at it.
//!
//! Two convolutions (the second of step 2) with the exact GELU, positions that are stored, pre-norm layers; the decoder has learned
//! positions, attention over its past and over the encoder's states, and a head tied to its embedding. Keys have no bias. Radford et
//! al. 2022. Reference: `modeling_whisper.py` of transformers 5.23. Also from CTranslate2's `model.bin` (see
//! [`crate::checkpoint`]). Checked on whisper-tiny.en and whisper-base.

use super::hearing::{Attention, Heads};
use super::parts::{Stream, Vocabulary};
use super::{Inputs, Spec};
use crate::cache::Cache;
use crate::checkpoint::{Checkpoint, Config as Format, Fields};
use crate::loader::{Linear, LoadProgress, Loader};
use crate::norm::LayerNorm;
use crate::rope::Rope;
use crate::speech::{Hears, Keys, SpeechInputs, SpeechModel, SpeechSpec};
use crate::{Error, Result};
use firelight_kernels::act::Activation;
use firelight_kernels::add_scale::add_scale;
use firelight_kernels::columns::columns;
use firelight_kernels::rope_kv::Pairing;
use firelight_kernels::unfold::{Patches, unfold};
use firelight_kernels::{Array, DType, Device, Holder, Recorder, Weight, embed};

/// The numbers of a checkpoint, under upstream's names.
#[derive(Clone, Debug)]
struct Config {
    d_model: usize,
    encoder_layers: usize,
    encoder_attention_heads: usize,
    encoder_ffn_dim: usize,
    decoder_layers: usize,
    decoder_attention_heads: usize,
    decoder_ffn_dim: usize,
    num_mel_bins: usize,
    max_source_positions: usize,
    max_target_positions: usize,
    vocab_size: usize,
    activation_function: Activation,
    decoder_start_token_id: u32,
    eos_token_id: u32,
}

/// Upstream's `nn.LayerNorm` default.
const EPS: f32 = 1e-5;

impl Config {
    fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let Format::Json(value) = checkpoint.config()? else {
            return Err(Error::Unsupported(
                "Whisper as GGUF; it is read as safetensors or CTranslate2's model.bin".into(),
            ));
        };
        let c = Fields(value);
        let name = c.text("activation_function").unwrap_or("gelu");
        let activation_function = Activation::from_name(name).ok_or_else(|| {
            Error::Unsupported(format!("`activation_function` {name} in a Whisper model"))
        })?;
        if c.flag("scale_embedding") == Some(true) {
            return Err(Error::Unsupported(
                "`scale_embedding` in a Whisper model".into(),
            ));
        }
        let id = |key: &str| Ok::<_, Error>(c.maybe_size(key)?.map(|n| n as u32));
        let missing = |key: &str| Error::malformed("config.json", format!("`{key}` is missing"));
        let config = Config {
            d_model: c.size("d_model")?,
            encoder_layers: c.size("encoder_layers")?,
            encoder_attention_heads: c.size("encoder_attention_heads")?,
            encoder_ffn_dim: c.size("encoder_ffn_dim")?,
            decoder_layers: c.size("decoder_layers")?,
            decoder_attention_heads: c.size("decoder_attention_heads")?,
            decoder_ffn_dim: c.size("decoder_ffn_dim")?,
            num_mel_bins: c.size("num_mel_bins")?,
            max_source_positions: c.size("max_source_positions")?,
            max_target_positions: c.size("max_target_positions")?,
            vocab_size: c.size("vocab_size")?,
            activation_function,
            decoder_start_token_id: id("decoder_start_token_id")?
                .ok_or_else(|| missing("decoder_start_token_id"))?,
            eos_token_id: id("eos_token_id")?.ok_or_else(|| missing("eos_token_id"))?,
        };
        config.check()?;
        Ok(config)
    }

    /// Bounds what the file can ask for; after it no arithmetic overflows.
    fn check(&self) -> Result<()> {
        let bounds = [
            ("d_model", self.d_model, 1 << 14),
            ("encoder_layers", self.encoder_layers, 256),
            ("decoder_layers", self.decoder_layers, 256),
            ("encoder_ffn_dim", self.encoder_ffn_dim, 1 << 17),
            ("decoder_ffn_dim", self.decoder_ffn_dim, 1 << 17),
            ("num_mel_bins", self.num_mel_bins, 1024),
            ("max_source_positions", self.max_source_positions, 1 << 15),
            ("max_target_positions", self.max_target_positions, 1 << 15),
        ];
        if let Some((what, got, max)) = bounds.into_iter().find(|(_, got, max)| got > max) {
            return Err(Error::Limit {
                what,
                max: max as u64,
                got: got as u64,
            });
        }
        for heads in [self.encoder_attention_heads, self.decoder_attention_heads] {
            if !self.d_model.is_multiple_of(heads) {
                return Err(Error::malformed(
                    "config.json",
                    format!("`d_model` {} is no multiple of {heads} heads", self.d_model),
                ));
            }
            super::decoder::check_heads(heads, heads, self.d_model / heads)?;
        }
        Ok(())
    }

    /// The cells of a window before the second convolution halves them.
    fn frames(&self) -> usize {
        2 * self.max_source_positions
    }

    fn heads(&self, n: usize) -> Heads {
        Heads {
            queries: n,
            keys: n,
            dim: self.d_model / n,
            // The table turns nothing.
            pairing: Pairing::Half,
        }
    }
}

/// Each token over all of its clip; `layer` of the encoder it is.
fn both_ways(
    own: &Attention,
    rec: &mut Recorder,
    x: &Array,
    spans: &Array,
    (layer, keys): (usize, &mut Keys<'_>),
) -> Result<Array> {
    let [q, k, v] = own.project(rec, x)?;
    match keys {
        Keys::Own => own.over(rec, &q, [&k, &v], spans),
        Keys::Kept(kept) => {
            let out = own.over(rec, &q, [&k, &v], spans);
            kept.push([k, v]);
            out
        }
        Keys::Beside(silence) => {
            let [k, v] = silence.beside(rec, layer, [&k, &v])?;
            own.over(rec, &q, [k, v], spans)
        }
    }
}

/// What encoder and decoder layers share.
struct Block {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    final_layer_norm: LayerNorm,
}

impl Block {
    fn load(l: &mut Loader<'_>, (d, f): (usize, usize), heads: Heads, name: &str) -> Result<Self> {
        Ok(Block {
            self_attn: attention(l, d, heads, &format!("{name}.self_attn"))?,
            self_attn_layer_norm: l.layer_norm(&format!("{name}.self_attn_layer_norm"), d, EPS)?,
            fc1: l.linear(&format!("{name}.fc1"), f, d)?,
            fc2: l.linear(&format!("{name}.fc2"), d, f)?,
            final_layer_norm: l.layer_norm(&format!("{name}.final_layer_norm"), d, EPS)?,
        })
    }

    fn mlp(&self, rec: &mut Recorder, x: &Array, activation: Activation) -> Result<Array> {
        let h = self.fc1.forward_act(rec, x, activation)?;
        self.fc2.forward(rec, &h)
    }
}

fn attention(l: &mut Loader<'_>, d: usize, heads: Heads, name: &str) -> Result<Attention> {
    Attention::load(l, d, heads, (name, "out_proj"))
}

struct Cross {
    encoder_attn: Attention,
    encoder_attn_layer_norm: LayerNorm,
}

/// A Whisper on a device.
struct Whisper {
    config: Config,
    spec: SpeechSpec,
    conv1: Linear,
    conv2: Linear,
    source_positions: Weight,
    encoder: Vec<Block>,
    encoder_norm: LayerNorm,
    embed_tokens: Vocabulary,
    target_positions: Weight,
    decoder: Vec<(Block, Cross)>,
    decoder_norm: LayerNorm,
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
    let d = c.d_model;
    let block = |l: &mut Loader<'_>, i: usize| {
        let sizes = (d, c.encoder_ffn_dim);
        Block::load(
            l,
            sizes,
            c.heads(c.encoder_attention_heads),
            &format!("encoder.layers.{i}"),
        )
    };
    let both = |l: &mut Loader<'_>, i: usize| -> Result<_> {
        let (name, heads) = (
            format!("decoder.layers.{i}"),
            c.heads(c.decoder_attention_heads),
        );
        let own = Block::load(l, (d, c.decoder_ffn_dim), heads, &name)?;
        let cross = Cross {
            encoder_attn: attention(l, d, heads, &format!("{name}.encoder_attn"))?,
            encoder_attn_layer_norm: l.layer_norm(
                &format!("{name}.encoder_attn_layer_norm"),
                d,
                EPS,
            )?,
        };
        Ok((own, cross))
    };
    let spec = SpeechSpec {
        hears: Hears::Mel {
            mels: c.num_mel_bins,
            frames: c.frames(),
        },
        hidden: d,
        cross_heads: c.decoder_attention_heads,
        start: c.decoder_start_token_id,
        end: c.eos_token_id,
        decoder: Spec {
            vocab: c.vocab_size,
            context: c.max_target_positions,
            layers: vec![c.heads(c.decoder_attention_heads).kept(); c.decoder_layers],
            ropes: vec![Rope::identity()],
            mutual: 0,
        },
    };
    Ok(Box::new(Whisper {
        spec,
        conv1: l.patch_embedding("encoder.conv1", &[d, c.num_mel_bins, 3])?,
        conv2: l.patch_embedding("encoder.conv2", &[d, d, 3])?,
        source_positions: l.weight("encoder.embed_positions", c.max_source_positions, d)?,
        encoder: (0..c.encoder_layers)
            .map(|i| block(&mut l, i))
            .collect::<Result<_>>()?,
        encoder_norm: l.layer_norm("encoder.layer_norm", d, EPS)?,
        embed_tokens: Vocabulary::load(&mut l, "decoder.embed_tokens", c.vocab_size, d, 1.0)?,
        target_positions: l.weight("decoder.embed_positions", c.max_target_positions, d)?,
        decoder: (0..c.decoder_layers)
            .map(|i| both(&mut l, i))
            .collect::<Result<_>>()?,
        decoder_norm: l.layer_norm("decoder.layer_norm", d, EPS)?,
        config: c,
    }))
}

impl SpeechModel for Whisper {
    fn spec(&self) -> &SpeechSpec {
        &self.spec
    }

    fn states(&self, input: usize) -> usize {
        Patches::line(3, 2, 1).count(0, input)
    }

    fn encode(&self, rec: &mut Recorder, input: &Array, mut keys: Keys<'_>) -> Result<Array> {
        let &[b, frames, mels] = input.shape() else {
            return Err(Error::invalid(format!("{input:?} as [B, frames, M]")));
        };
        let (act, d) = (self.config.activation_function, self.config.d_model);
        let x = unfold(
            rec,
            &input.reshape(&[b, frames, 1, mels])?,
            Patches::line(3, 1, 1),
        )?;
        let x = self.conv1.forward_act(rec, &x, act)?;
        let x = unfold(rec, &x.reshape(&[b, frames, 1, d])?, Patches::line(3, 2, 1))?;
        let h = self.conv2.forward_act(rec, &x, act)?;
        drop(x);
        let s = self.states(frames);
        if s > self.config.max_source_positions {
            return Err(Error::Limit {
                what: "encoder states of a clip",
                max: self.config.max_source_positions as u64,
                got: s as u64,
            });
        }
        let device = rec.device().clone();
        let words = |words: &[u32], shape: &[usize]| {
            let bytes = bytemuck::cast_slice(words);
            device.upload(DType::U32, shape, bytes, Holder::Activations)
        };
        let (n, t) = (s as u32, b * s);
        let positions: Vec<u32> = (0..t as u32).map(|i| i % n).collect();
        let spans = (0..t as u32).map(|i| match &keys {
            Keys::Beside(silence) => silence.span(n),
            _ => [i / n * n, i / n * n + n],
        });
        let spans = words(spans.collect::<Vec<_>>().as_flattened(), &[t, 2])?;
        let positions = words(&positions, &[t])?;
        let places = embed::embed(rec, &positions, &self.source_positions, 1.0)?;
        add_scale(rec, &h, &places, 1.0)?;
        drop(places);
        let mut stream = Stream::new(h);
        for (i, block) in self.encoder.iter().enumerate() {
            let x = stream.norm(rec, &block.self_attn_layer_norm)?;
            let own = &block.self_attn;
            stream.add(both_ways(own, rec, &x, &spans, (i, &mut keys))?);
            drop(x);
            let x = stream.norm(rec, &block.final_layer_norm)?;
            stream.add(block.mlp(rec, &x, act)?);
        }
        stream.norm(rec, &self.encoder_norm)
    }

    fn cross(&self, rec: &mut Recorder, states: &Array) -> Result<Vec<[Array; 2]>> {
        let decoder = self.decoder.iter();
        decoder
            .map(|(_, cross)| cross.encoder_attn.seen(rec, states))
            .collect()
    }

    fn decode(
        &self,
        rec: &mut Recorder,
        inputs: SpeechInputs<'_>,
        cache: &Cache,
        mut queries: Option<&mut Vec<Array>>,
    ) -> Result<Option<Array>> {
        let act = self.config.activation_function;
        let text = Inputs::text(inputs.ids, inputs.rows, inputs.logits);
        let h = self.embed_tokens.embed(rec, text)?;
        let rows = inputs.rows.reshape(&[inputs.ids.elements(), 2])?;
        let positions = columns(rec, &rows, 1, 1)?;
        let places = embed::embed(rec, &positions, &self.target_positions, 1.0)?;
        add_scale(rec, &h, &places, 1.0)?;
        drop((positions, places));
        let mut stream = Stream::new(h);
        for (i, (block, cross)) in self.decoder.iter().enumerate() {
            let x = stream.norm(rec, &block.self_attn_layer_norm)?;
            stream.add(block.self_attn.causal(rec, &x, inputs.rows, (cache, i))?);
            let x = stream.norm(rec, &cross.encoder_attn_layer_norm)?;
            let looks = &cross.encoder_attn;
            stream.add(looks.cross(rec, &x, (&inputs, i), queries.as_deref_mut())?);
            let x = stream.norm(rec, &block.final_layer_norm)?;
            stream.add(block.mlp(rec, &x, act)?);
        }
        let x = stream.norm(rec, &self.decoder_norm)?;
        self.embed_tokens.logits(rec, x, inputs.logits)
    }
}
