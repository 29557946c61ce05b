//! Several prompts answered together: one cache with a sequence for each, one step for all of them.
//!
//! Prompts are processed one after the other, then every decoding step takes one token of each sequence, whatever their lengths; a matrix
//! is read once for all. A sequence that has ended keeps its place until all have. The answers are those that each prompt would get
//! alone, up to rounding where a larger step takes another kernel.

use crate::adapter::Uses;
use crate::cache::Cache;
use crate::engine::{Engine, LoadedModel};
use crate::models::{Inputs, Logits};
use crate::session::{Finish, GenerateOptions};
use crate::source::CancelToken;
use crate::state::CHUNK;
use crate::{Error, Result};
use firelight_kernels::sample::{self, SampleSettings};
use firelight_kernels::{Array, DType, Device, Holder, Recorder, Span};
use firelight_text::StopMatcher;
use std::sync::Arc;

/// Sequences of a batch at most.
pub const MAX_SEQUENCES: usize = 256;

/// The answer to one prompt of a batch.
#[derive(Clone, Debug)]
pub struct BatchAnswer {
    /// Ids generated, without the one that ended it.
    pub ids: Vec<u32>,
    /// Their text, up to a stop text.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
}

/// Answers every prompt (ids, each of any length). `options` are the same for all; the `n`-th prompt is sampled with the seed
/// `sampling.seed + n`. A cancel ends all answers with what there is of them. If the device fails, the answers go on from their
/// tokens on the next rung of the ladder, and `model` is then the one that was loaded there.
///
/// # Errors
/// `InvalidInput` for an empty prompt or an unknown id, `Limit` for too many prompts or one that fills the context, `Device` if
/// there is no rung left.
pub async fn generate_batch(
    engine: &Engine,
    model: &mut LoadedModel,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    cancel: &CancelToken,
) -> Result<Vec<BatchAnswer>> {
    let spec = model.model.spec();
    // How far keys are turned depends on the length of the longest sequence there: each alone, then.
    let together = match spec.ropes.iter().any(|r| r.switch().is_some()) {
        true => 1,
        false => prompts.len().max(1),
    };
    if prompts.len() > MAX_SEQUENCES {
        return Err(Error::Limit {
            what: "sequences of a batch",
            max: MAX_SEQUENCES as u64,
            got: prompts.len() as u64,
        });
    }
    options.sampling.check()?;
    let context = options.context.unwrap_or(usize::MAX).min(spec.context);
    for prompt in prompts {
        check(prompt, spec.vocab, context)?;
    }
    let mut answers = Vec::with_capacity(prompts.len());
    for (i, group) in prompts.chunks(together).enumerate() {
        let seed = options.sampling.seed.wrapping_add((i * together) as u64);
        let mut sequences = Sequence::all(group, options, seed, context);
        loop {
            let run = async {
                Batch::new(model, &mut sequences, options)?
                    .run(cancel)
                    .await
            };
            match run.await {
                Ok(()) => break,
                Err(e) if e.is_device_fault() => {
                    engine.step_down(&e).await?;
                    *model = engine.reload(model).await?;
                }
                Err(e) => return Err(e),
            }
        }
        answers.extend(sequences.into_iter().map(|s| s.answer(model)));
    }
    Ok(answers)
}

fn check(prompt: &[u32], vocab: usize, context: usize) -> Result<()> {
    if prompt.is_empty() {
        return Err(Error::invalid(
            "an empty prompt: there is no token to go on from",
        ));
    }
    if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocab) {
        return Err(Error::invalid(format!(
            "token id {id}; the model knows 0..{vocab}"
        )));
    }
    if prompt.len() >= context {
        return Err(Error::Limit {
            what: "tokens of the prompt",
            max: context as u64 - 1,
            got: prompt.len() as u64,
        });
    }
    Ok(())
}

struct Sequence {
    prompt: Vec<u32>,
    ids: Vec<u32>,
    /// Tokens at most.
    room: usize,
    full: Finish,
    finish: Option<Finish>,
    stops: StopMatcher,
    settings: SampleSettings,
}

impl Sequence {
    /// One for each prompt.
    fn all(
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
        seed: u64,
        context: usize,
    ) -> Vec<Self> {
        let sequence = |(i, prompt): (usize, &Vec<u32>)| {
            let left = context - prompt.len();
            Sequence {
                prompt: prompt.clone(),
                ids: Vec::new(),
                room: options.max_tokens.min(left),
                full: match options.max_tokens <= left {
                    true => Finish::MaxTokens,
                    false => Finish::Context,
                },
                finish: (options.max_tokens == 0).then_some(Finish::MaxTokens),
                stops: StopMatcher::new(options.stop.iter().cloned()),
                settings: SampleSettings {
                    seed: seed.wrapping_add(i as u64),
                    ..options.sampling
                },
            }
        };
        prompts.iter().enumerate().map(sequence).collect()
    }

    /// The prompt, and what there is of the answer.
    fn so_far(&self) -> Vec<u32> {
        [&self.prompt[..], &self.ids].concat()
    }

    /// Takes the next id.
    fn push(&mut self, model: &LoadedModel, options: &GenerateOptions, id: u32) {
        if self.finish.is_some() {
            return;
        }
        if !options.ignore_eos && model.text.eos_ids.contains(&id) {
            self.finish = Some(Finish::Eos);
        } else if options.stop_ids.contains(&id) {
            self.finish = Some(Finish::Stop);
        } else {
            self.ids.push(id);
            if !options.stop.is_empty() {
                // What a stop text is in shows only once it is decoded as a whole.
                let text = model.text.tokenizer.decode(&self.ids, true);
                if options
                    .stop
                    .iter()
                    .any(|s| !s.is_empty() && text.contains(s.as_str()))
                {
                    self.finish = Some(Finish::Stop);
                }
            }
            if self.finish.is_none() && self.ids.len() >= self.room {
                self.finish = Some(self.full);
            }
        }
    }

    fn answer(mut self, model: &LoadedModel) -> BatchAnswer {
        let whole = model.text.tokenizer.decode(&self.ids, true);
        let (mut text, stopped) = self.stops.push(&whole);
        if !stopped {
            text.push_str(&self.stops.finish());
        }
        BatchAnswer {
            ids: self.ids,
            text,
            finish: self.finish.unwrap_or(Finish::Cancelled),
        }
    }

    /// The position of the token sampled last.
    fn position(&self) -> usize {
        self.prompt.len() + self.ids.len().saturating_sub(1)
    }
}

struct Batch<'a> {
    model: &'a LoadedModel,
    options: &'a GenerateOptions,
    device: Device,
    cache: Cache,
    sequences: &'a mut [Sequence],
    /// The token sampled last of each sequence, u32 `[B]`, and how often each has every id, `[B, V]`.
    tokens: Array,
    counts: Array,
    /// The same of the sequence whose prompt is being processed: parts of the others cannot be bound at any place.
    token: Array,
    count: Array,
}

impl<'a> Batch<'a> {
    fn new(
        model: &'a LoadedModel,
        sequences: &'a mut [Sequence],
        options: &'a GenerateOptions,
    ) -> Result<Self> {
        let (device, spec) = (model.device.clone(), model.model.spec());
        let n = sequences.len().max(1);
        Ok(Batch {
            cache: Cache::new(&device, n),
            tokens: device.array(DType::U32, &[n], Holder::Cache)?,
            counts: device.array(DType::U32, &[n, spec.vocab], Holder::Cache)?,
            token: device.array(DType::U32, &[1], Holder::Cache)?,
            count: device.array(DType::U32, &[1, spec.vocab], Holder::Cache)?,
            model,
            options,
            device,
            sequences,
        })
    }

    async fn run(&mut self, cancel: &CancelToken) -> Result<()> {
        let longest = |s: &Sequence| s.prompt.len() + s.room;
        let Some(most) = self.sequences.iter().map(longest).max() else {
            return Ok(());
        };
        // Answers of unknown length get room as they need it.
        let fed = |s: &Sequence| s.prompt.len() + s.ids.len();
        let prompts = self.sequences.iter().map(fed).max();
        let spec = self.model.model.spec();
        self.cache.span(spec, prompts.unwrap_or(1))?;
        self.cache
            .reserve(spec, most.min(prompts.unwrap_or(0) + 512))?;
        for s in 0..self.sequences.len() {
            if !self.prefill(s, cancel).await? {
                return Ok(());
            }
        }
        self.decode(cancel).await
    }

    /// A recorder that knows of the adapters.
    fn recorder(&self) -> Recorder {
        let mut rec = Recorder::new(&self.device);
        if !self.options.adapters.is_empty() {
            rec.correct(Some(Arc::new(Uses(self.options.adapters.clone()))));
        }
        rec
    }

    /// Processes a prompt with what there is of its answer and samples the next token. False if it was cancelled.
    async fn prefill(&mut self, s: usize, cancel: &CancelToken) -> Result<bool> {
        let prompt = self.sequences[s].so_far();
        let mut counts = vec![0u32; self.model.model.spec().vocab];
        for &id in &prompt {
            counts[id as usize] += 1;
        }
        self.device
            .write(&self.count, bytemuck::cast_slice(&counts))?;
        let mut at = 0;
        while at < prompt.len() {
            if cancel.is_cancelled() {
                return Ok(false);
            }
            let end = (at + CHUNK).min(prompt.len());
            let last = end == prompt.len();
            let mut rec = self.recorder();
            let (ids, rows) = (rec.dynamic(end - at)?, rec.dynamic(2 * (end - at))?);
            let (row, words) = (rec.dynamic(1)?, rec.dynamic(8)?);
            let inputs = Inputs::text(
                ids.array(),
                rows.array(),
                match last {
                    true => Logits::Rows(row.array()),
                    false => Logits::None,
                },
            );
            let logits = self.model.model.forward(&mut rec, inputs, &self.cache)?;
            if let Some(logits) = &logits {
                let (words, count) = (words.array(), &self.count);
                sample::sample(&mut rec, logits, words, count, &self.token)?;
                rec.read_back(&self.token);
            }
            drop(logits);
            let mut recording = rec.finish()?;
            recording.set(&ids, &prompt[at..end])?;
            let places = (at..end).flat_map(|p| [s as u32, p as u32]);
            recording.set(&rows, &places.collect::<Vec<_>>())?;
            recording.set(&row, &[(end - at - 1) as u32])?;
            recording.set(&words, &self.sequences[s].settings.words(end as u32))?;
            let submission = recording.submit()?;
            self.cache.advance(s, end);
            let bytes = submission.wait().await?;
            if last {
                let id = words_of(&bytes).next();
                self.take(s, id, end)?;
                self.device.copy_all(&[
                    place(&self.token, &self.tokens, s),
                    place(&self.count, &self.counts, s),
                ])?;
            }
            at = end;
        }
        Ok(true)
    }

    /// One token of each sequence at a time, until all have ended.
    async fn decode(&mut self, cancel: &CancelToken) -> Result<()> {
        let n = self.sequences.len();
        let mut step = None;
        while self.sequences.iter().any(|s| s.finish.is_none()) {
            if cancel.is_cancelled() {
                return Ok(());
            }
            // Before the first token of an answer that ends at once there is nothing to feed: its last prompt token is fed again.
            let positions: Vec<usize> = self.sequences.iter().map(Sequence::position).collect();
            let most = positions.iter().max().map_or(0, |p| p + 1);
            let spec = self.model.model.spec();
            if self.cache.switches(spec, most) {
                return self.alone(cancel).await;
            }
            let grown = self.cache.capacity() < most;
            self.cache.reserve(spec, most)?;
            if step.is_none() || grown {
                let mut rec = self.recorder();
                let (rows, words) = (rec.dynamic(2 * n)?, rec.dynamic(8 * n)?);
                let inputs = Inputs::text(&self.tokens, rows.array(), Logits::All);
                let logits = self.model.model.forward(&mut rec, inputs, &self.cache)?;
                let logits = logits.ok_or_else(|| Error::invalid("the model gave no logits"))?;
                sample::sample(&mut rec, &logits, words.array(), &self.counts, &self.tokens)?;
                rec.read_back(&self.tokens);
                drop(logits);
                step = Some((rec.finish()?, rows, words));
            }
            let Some((recording, rows, words)) = step.as_mut() else {
                break;
            };
            let places = positions.iter().enumerate();
            let places = places.flat_map(|(s, &p)| [s as u32, p as u32]);
            recording.set(rows, &places.collect::<Vec<_>>())?;
            let settings = self.sequences.iter().zip(&positions);
            let settings = settings.flat_map(|(s, &p)| s.settings.words(p as u32 + 1));
            recording.set(words, &settings.collect::<Vec<_>>())?;
            let submission = recording.submit()?;
            for (s, &p) in positions.iter().enumerate() {
                self.cache.advance(s, p + 1);
            }
            let bytes = submission.wait().await?;
            let sampled: Vec<u32> = words_of(&bytes).collect();
            for (s, &position) in positions.iter().enumerate() {
                self.take(s, sampled.get(s).copied(), position + 1)?;
            }
        }
        Ok(())
    }

    /// Goes on where the keys cached so far do not hold any more (LongRoPE); such batches have one sequence.
    async fn alone(&mut self, cancel: &CancelToken) -> Result<()> {
        let mut state = crate::State::new(&self.device, &self.model.model)?;
        state.set_adapters(&self.options.adapters);
        let Some(s) = self.sequences.first_mut() else {
            return Ok(());
        };
        let ids = s.so_far();
        let left = s.room - s.ids.len();
        let context = self.model.model.spec().context;
        match state.begin(&ids, s.settings, left, context, cancel).await {
            Err(Error::Cancelled) => return Ok(()),
            done => done?,
        };
        while s.finish.is_none() && !cancel.is_cancelled() {
            match state.next().await? {
                Some(id) => s.push(self.model, self.options, id),
                None => s.finish = Some(s.full),
            }
        }
        Ok(())
    }

    fn take(&mut self, s: usize, id: Option<u32>, position: usize) -> Result<()> {
        let sequence = &mut self.sequences[s];
        if sequence.finish.is_some() {
            return Ok(());
        }
        match id.filter(|&id| (id as usize) < self.model.model.spec().vocab) {
            Some(id) => sequence.push(self.model, self.options, id),
            None => return Err(Error::BadLogits { position }),
        }
        Ok(())
    }
}

/// The whole of `from` into row `s` of `to`.
fn place<'a>(from: &'a Array, to: &'a Array, s: usize) -> Span<'a> {
    Span {
        from,
        from_byte: 0,
        to,
        to_byte: s as u64 * from.nbytes(),
        bytes: from.nbytes(),
    }
}

fn words_of(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let words = bytes.as_chunks::<4>().0.iter();
    words.map(|b| u32::from_le_bytes(*b))
}
