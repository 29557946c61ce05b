//! Encoder models: batches of texts in; hidden states, pooled vectors or a head's logits out.
//!
//! Texts of different lengths lie one after the other without padding ([`EncoderInputs`]), so a batch costs what its
//! tokens cost. [`LoadedEncoder`] is what [`Engine::load_encoder`] gives; [`EncoderRun`] cuts any number of texts into
//! batches of similar length, keeps one batch ahead of the device, and steps down the ladder when the device fails.

#[cfg(feature = "vision")]
mod pictures;

#[cfg(feature = "vision")]
pub use pictures::{PictureEncoder, PictureSpec, Similarity};

use crate::checkpoint::Checkpoint;
use crate::engine::Engine;
use crate::models;
use crate::source::CancelToken;
use crate::text_side::TextSide;
use crate::{Error, Result};
use firelight_kernels::span_pool::{Pool, span_pool};
use firelight_kernels::{Array, DType, Device, Holder, Recorder, Submission, Weight, embed};
use std::sync::{Arc, Mutex, PoisonError};

/// What a model's head says something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// There is none.
    None,
    /// A text or a pair of texts: this many logits.
    Sequence(usize),
    /// Each token: this many logits.
    Tokens(usize),
}

/// What the rest of the runtime needs to know of an encoder.
#[derive(Clone, Debug)]
pub struct EncoderSpec {
    /// Tokens it knows.
    pub vocab: usize,
    /// Positions it was made for.
    pub context: usize,
    /// Elements of a hidden state.
    pub hidden: usize,
    /// Segments (token types) it tells apart; 0: it has none.
    pub types: usize,
    /// Its head.
    pub head: Head,
    /// Elements of what the pooler gives ([`Want::Pooler`]); `None`: there is none.
    pub pooler: Option<usize>,
    /// How texts go through.
    pub texts: Texts,
}

/// How an encoder reads texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Texts {
    /// Each token sees its whole text; the pooler looks at the first.
    #[default]
    Whole,
    /// Each token sees itself and what is before it; the pooler looks at the last (CLIP).
    Causal,
    /// Filled up to `context` tokens with padding that every token sees; the pooler looks at the last (SigLIP).
    Padded,
}

/// A batch: `T` tokens of all its texts, one text after the other.
#[derive(Clone, Copy, Debug)]
pub struct EncoderInputs<'a> {
    /// Token ids, u32 `[T]`.
    pub ids: &'a Array,
    /// Segments, u32 `[T]`.
    pub types: &'a Array,
    /// Each token's position in its text, u32 `[T]`.
    pub positions: &'a Array,
    /// `(0, t)` for token `t` of the batch, u32 `[T, 2]`: where `rope_kv` puts what it has turned.
    pub rows: &'a Array,
    /// The first token that each token sees and one past the last, u32 `[T, 2]`: its text, or as much of it as [`Texts`] says.
    pub spans: &'a Array,
}

/// An encoder on a device.
pub trait Encoder: Send + Sync {
    /// Sizes.
    fn spec(&self) -> &EncoderSpec;

    /// Records a batch: the last hidden states, f32 `[T, D]`.
    ///
    /// # Errors
    /// What the kernels refuse.
    fn forward(&self, rec: &mut Recorder, inputs: EncoderInputs<'_>) -> Result<Array>;

    /// Records the pooler on the texts' first (or last, see [`Texts`]) hidden states, f32 `[B, D]`.
    ///
    /// # Errors
    /// `Unsupported` if there is none.
    fn pooler(&self, _rec: &mut Recorder, _one: &Array) -> Result<Array> {
        Err(Error::Unsupported("this model has no pooler".into()))
    }

    /// Records the head: on the texts' first hidden states for [`Head::Sequence`], on all of them for [`Head::Tokens`].
    ///
    /// # Errors
    /// `Unsupported` if there is none.
    fn logits(&self, _rec: &mut Recorder, _x: &Array) -> Result<Array> {
        Err(Error::Unsupported("this model has no classifier".into()))
    }

    /// The tower for pictures of a model that puts them and texts into one space.
    #[cfg(feature = "vision")]
    fn pictures(&self) -> Option<&dyn PictureEncoder> {
        None
    }
}

/// An encoder on a device, with its tokenizer. Cloning shares it.
#[derive(Clone)]
pub struct LoadedEncoder {
    /// Its files.
    pub checkpoint: Arc<Checkpoint>,
    /// Its tokenizer.
    pub text: Arc<TextSide>,
    /// Where it is.
    pub device: Device,
    /// The model.
    pub model: Arc<dyn Encoder>,
}

impl Engine {
    /// Loads an encoder's files onto the device. `progress` gets bytes loaded and bytes in all.
    ///
    /// # Errors
    /// What is wrong with the files, `Unsupported` for a family that is no encoder, or `Device` if they do not fit.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn load_encoder(
        &self,
        path: impl AsRef<std::path::Path>,
        progress: &mut (dyn FnMut(u64, u64) + '_),
    ) -> Result<LoadedEncoder> {
        let checkpoint = Checkpoint::open(path)?.with_dtypes(self.options().dtypes)?;
        self.load_encoder_checkpoint(Arc::new(checkpoint), progress)
            .await
    }

    /// Loads an opened checkpoint.
    ///
    /// # Errors
    /// As [`Engine::load_encoder`].
    pub async fn load_encoder_checkpoint(
        &self,
        checkpoint: Arc<Checkpoint>,
        progress: &mut (dyn FnMut(u64, u64) + '_),
    ) -> Result<LoadedEncoder> {
        let text = Arc::new(TextSide::open(&checkpoint)?);
        let load = |device: &Device| models::load_encoder(&checkpoint, device, progress);
        let (device, model) = self.on_a_rung(load).await?;
        Ok(LoadedEncoder {
            checkpoint,
            text,
            device,
            model: Arc::from(model),
        })
    }
}

/// One encoded text or pair of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Ids with the special tokens.
    pub ids: Vec<u32>,
    /// Segment of each id; empty: all 0.
    pub types: Vec<u32>,
}

/// What of the model's output is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The hidden states: `[tokens, D]` per text.
    Hidden,
    /// The first hidden state: `[D]`.
    First,
    /// The last hidden state: `[D]`.
    Last,
    /// All hidden states pooled: `[D]`.
    Pooled(Pool),
    /// The pooler's output: `[D]`.
    Pooler,
    /// The head's logits: `[labels]` for [`Head::Sequence`], `[tokens, labels]` for [`Head::Tokens`].
    Logits,
}

/// Runs an encoder over any number of texts. See the module's head.
pub struct EncoderRun {
    engine: Engine,
    model: Mutex<LoadedEncoder>,
}

/// A submitted batch: which texts (or pictures) it holds, and how many numbers of the result are each one's.
struct Flight {
    texts: Vec<(usize, usize)>,
    submission: Submission,
}

impl EncoderRun {
    /// A run of `model`, which `engine` loaded.
    pub fn new(engine: &Engine, model: LoadedEncoder) -> Self {
        EncoderRun {
            engine: engine.clone(),
            model: Mutex::new(model),
        }
    }

    /// The model, where it is now.
    pub fn model(&self) -> LoadedEncoder {
        self.model
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Tokens of a batch that the device works well with: what a processor's cache holds, or enough to fill a GPU.
    pub fn batch_tokens(&self) -> usize {
        if self.model().device.is_gpu() {
            8192
        } else {
            512
        }
    }

    /// Runs the model over `texts` in batches of at most `batch_tokens` tokens (a longer text is a batch of its own); one
    /// result per text, in their order. `progress` gets texts done and texts in all.
    ///
    /// # Errors
    /// `InvalidInput` for an id or segment that the model does not have or an empty text, `Limit` for one longer than the
    /// model's context, `BadLogits` if the model gives NaN, `Cancelled`, or `Device` if there is no rung left.
    pub async fn run(
        &self,
        texts: &[Tokens],
        want: Want,
        batch_tokens: usize,
        cancel: &CancelToken,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Vec<f32>>> {
        let model = self.model();
        check(model.model.spec(), texts)?;
        let batches = batches(model.model.spec(), texts, batch_tokens);
        let submit = |model: &LoadedEncoder, batch: &[usize]| submit(model, texts, batch, want);
        self.batched(&batches, submit, cancel, progress).await
    }

    /// Submits one batch ahead of the device and collects; goes on with what has no result yet where the device failed.
    async fn batched(
        &self,
        batches: &[Vec<usize>],
        submit: impl Fn(&LoadedEncoder, &[usize]) -> Result<Flight>,
        cancel: &CancelToken,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Vec<f32>>> {
        let mut model = self.model();
        let count = batches.iter().map(Vec::len).sum();
        let mut results = vec![Vec::new(); count];
        let (mut next, mut done) = (0, 0);
        let mut ahead: Option<(usize, Flight)> = None;
        while next < batches.len() || ahead.is_some() {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let before = ahead.take();
            let step = async {
                let current = match batches.get(next) {
                    Some(batch) => Some(submit(&model, batch)?),
                    None => None,
                };
                if let Some((_, flight)) = before {
                    done += flight.texts.len();
                    collect(flight, &mut results).await?;
                    progress(done, count);
                }
                Ok::<_, Error>(current)
            };
            match step.await {
                Ok(current) => {
                    ahead = current.map(|flight| (next, flight));
                    next = (next + 1).min(batches.len());
                }
                Err(e) if e.is_device_fault() => {
                    self.engine.step_down(&e).await?;
                    let old = model;
                    model = self
                        .engine
                        .load_encoder_checkpoint(Arc::clone(&old.checkpoint), &mut |_, _| ())
                        .await?;
                    *self.model.lock().unwrap_or_else(PoisonError::into_inner) = model.clone();
                    // What was under way is lost: begin again with the first batch that has no result.
                    next = batches
                        .iter()
                        .position(|b| b.iter().any(|&i| results[i].is_empty()))
                        .unwrap_or(batches.len());
                    done = results.iter().filter(|r| !r.is_empty()).count();
                }
                Err(e) => return Err(e),
            }
        }
        Ok(results)
    }
}

/// Fails on what the model has no row for.
fn check(spec: &EncoderSpec, texts: &[Tokens]) -> Result<()> {
    for (i, text) in texts.iter().enumerate() {
        if text.ids.is_empty() || !(text.types.is_empty() || text.types.len() == text.ids.len()) {
            return Err(Error::invalid(format!(
                "text {i} has {} tokens and {} segments",
                text.ids.len(),
                text.types.len()
            )));
        }
        if text.ids.len() > spec.context {
            return Err(Error::Limit {
                what: "tokens of a text for this model (truncate or chunk it)",
                max: spec.context as u64,
                got: text.ids.len() as u64,
            });
        }
        if let Some(id) = text.ids.iter().find(|&&id| id as usize >= spec.vocab) {
            return Err(Error::invalid(format!(
                "text {i}: token {id} in a model of {} tokens; the tokenizer is not this model's",
                spec.vocab
            )));
        }
        // A model without segments reads pairs by their separators alone.
        let kind = text.types.iter().find(|&&t| t as usize >= spec.types);
        if let Some(kind) = kind.filter(|_| spec.types > 0) {
            return Err(Error::invalid(format!(
                "text {i}: segment {kind} in a model of {} segments",
                spec.types
            )));
        }
    }
    Ok(())
}

/// Texts by length, the longest first (so that memory is found at once), cut into batches.
fn batches(spec: &EncoderSpec, texts: &[Tokens], batch_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(texts[i].ids.len()));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for i in order {
        let n = length(spec, &texts[i]);
        match batches.last_mut() {
            Some(batch) if tokens + n <= batch_tokens => batch.push(i),
            _ => {
                batches.push(vec![i]);
                tokens = 0;
            }
        }
        tokens += n;
    }
    batches
}

/// Tokens of a text on the device.
fn length(spec: &EncoderSpec, text: &Tokens) -> usize {
    match spec.texts {
        Texts::Padded => spec.context,
        Texts::Whole | Texts::Causal => text.ids.len(),
    }
}

/// Records and submits one batch.
fn submit(model: &LoadedEncoder, texts: &[Tokens], batch: &[usize], want: Want) -> Result<Flight> {
    let mut ids = Vec::new();
    let (mut types, mut positions) = (Vec::new(), Vec::new());
    let (mut rows, mut spans, mut texts_of) = (Vec::new(), Vec::new(), Vec::new());
    let spec = model.model.spec();
    let pad = match spec.texts {
        Texts::Padded => model.text.tokenizer.pad().ok_or_else(|| {
            Error::malformed(
                "tokenizer_config.json",
                "`pad_token` is missing, which this model fills texts up with",
            )
        })?,
        Texts::Whole | Texts::Causal => 0,
    };
    for text in batch.iter().map(|&i| &texts[i]) {
        let (first, n) = (ids.len() as u32, length(spec, text) as u32);
        ids.extend_from_slice(&text.ids);
        ids.resize((first + n) as usize, pad);
        types.extend_from_slice(&text.types);
        types.resize(ids.len(), 0);
        for i in 0..n {
            positions.push(i);
            rows.push([0, first + i]);
            let end = match spec.texts {
                Texts::Causal => i + 1,
                Texts::Whole | Texts::Padded => n,
            };
            spans.push([first, first + end]);
        }
        texts_of.push([first, first + n]);
    }
    let device = &model.device;
    let words = |words: &[u32], shape: &[usize]| {
        device.upload(
            DType::U32,
            shape,
            bytemuck::cast_slice(words),
            Holder::Activations,
        )
    };
    let (t, b) = (ids.len(), batch.len());
    let inputs = [
        words(&ids, &[t])?,
        words(&types, &[t])?,
        words(&positions, &[t])?,
        words(rows.as_flattened(), &[t, 2])?,
        words(spans.as_flattened(), &[t, 2])?,
    ];
    let inputs = EncoderInputs {
        ids: &inputs[0],
        types: &inputs[1],
        positions: &inputs[2],
        rows: &inputs[3],
        spans: &inputs[4],
    };
    let mut rec = Recorder::new(device);
    let x = model.model.forward(&mut rec, inputs)?;
    let tokens = matches!(spec.head, Head::Tokens(_));
    let one = |rec: &mut Recorder, x: &Array, last: bool| -> Result<Array> {
        let at = texts_of.iter().map(|[a, b]| if last { b - 1 } else { *a });
        let at = words(&at.collect::<Vec<_>>(), &[b])?;
        Ok(embed::embed(rec, &at, &Weight::from_array(x)?, 1.0)?)
    };
    let out = match want {
        Want::Hidden => x,
        Want::First => one(&mut rec, &x, false)?,
        Want::Last => one(&mut rec, &x, true)?,
        Want::Pooled(pool) => {
            let texts_of = words(texts_of.as_flattened(), &[b, 2])?;
            span_pool(&mut rec, &x, &texts_of, pool)?
        }
        Want::Pooler => {
            let at = one(&mut rec, &x, spec.texts != Texts::Whole)?;
            model.model.pooler(&mut rec, &at)?
        }
        Want::Logits if tokens => model.model.logits(&mut rec, &x)?,
        Want::Logits => {
            let first = one(&mut rec, &x, false)?;
            model.model.logits(&mut rec, &first)?
        }
    };
    rec.read_back(&out);
    let per_row = out.shape().last().copied().unwrap_or(1);
    let texts = batch
        .iter()
        .map(|&i| {
            let per_token = want == Want::Hidden || want == Want::Logits && tokens;
            let rows = match per_token {
                true => length(spec, &texts[i]),
                false => 1,
            };
            (i, rows * per_row)
        })
        .collect();
    let submission = rec.finish()?.submit()?;
    Ok(Flight { texts, submission })
}

/// Waits for a batch and gives each text what is its own.
async fn collect(flight: Flight, results: &mut [Vec<f32>]) -> Result<()> {
    let bytes = flight.submission.wait().await?;
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
    let mut rest = values.as_slice();
    for (i, n) in flight.texts {
        let (own, others) = rest.split_at(n.min(rest.len()));
        if own.iter().any(|v| !v.is_finite()) {
            return Err(Error::BadLogits { position: i });
        }
        results[i] = own.to_vec();
        rest = others;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_text_once_and_what_fits() {
        let text = |n: usize| Tokens {
            ids: vec![1; n],
            types: Vec::new(),
        };
        let texts: Vec<_> = [3, 10, 1, 7, 30, 2].map(text).into();
        let spec = EncoderSpec {
            vocab: 2,
            context: 30,
            hidden: 8,
            types: 0,
            head: Head::None,
            pooler: None,
            texts: Texts::Whole,
        };
        let padded = EncoderSpec {
            texts: Texts::Padded,
            ..spec.clone()
        };
        assert_eq!(super::batches(&padded, &texts, 60).len(), 3);
        let batches = batches(&spec, &texts, 12);
        // 7 + 3 + 2 = 12; the text of one token no longer fits.
        assert_eq!(batches, [vec![4], vec![1], vec![3, 0, 5], vec![2]]);
        let mut all: Vec<usize> = batches.concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5]);
    }
}
