//! One sequence of a model on a device: its cache, its recorded steps, and the tokens under way.
//!
//! Decoding replays one recording. What changes per token is its position and the sampling words; the sampled id stays on
//! the device, where the next step reads it, and four bytes come back. On a GPU step `n + 1` is submitted before the token of
//! step `n` is read.

mod checked;
mod masked;
#[cfg(not(target_arch = "wasm32"))]
mod profile;
#[cfg(not(target_arch = "wasm32"))]
mod saved;
mod soft;
mod steps;

use crate::adapter::{AdapterUse, Uses};
use crate::cache::Cache;
use crate::media::Media;
use crate::models::{CausalLm, Inputs, LayerCache, Logits};
use crate::source::CancelToken;
use crate::{Error, Result};
use firelight_kernels::mask_logits::{mask_logits, mask_words};
use firelight_kernels::sample::{self, BAD_LOGITS, SampleSettings};
use firelight_kernels::{
    Array, Cost, DType, Device, Dynamic, Holder, Recorder, Recording, Submission,
};
use masked::Masked;
use std::collections::VecDeque;
use std::sync::Arc;

/// Tokens of a prompt processed in one step.
pub const CHUNK: usize = 256;
/// Positions reserved ahead of an answer of unknown length.
const AHEAD: usize = 512;
/// Recurrent states are kept this many tokens before a prompt's end: what a template puts there to begin the answer is often
/// different, or gone, when the next turn shows it as history.
const TAIL: usize = 16;

/// A recorded step for a fixed number of tokens.
struct Step {
    tokens: usize,
    /// Tokens sampled: after the last of `tokens`, after each of them, or none.
    samples: usize,
    /// [`Cache::generation`] it was recorded for.
    generation: u64,
    recording: Recording,
    /// `None`: ids come from the token sampled last.
    ids: Option<Dynamic>,
    /// What stands for soft tokens, if there are any.
    soft: Option<soft::Soft>,
    rows: Dynamic,
    /// With the row whose logits are sampled; `None`: the step only fills the cache, or leaves its logits.
    sampling: Option<Dynamic>,
    /// Bits of the tokens that may be sampled; `None`: all.
    mask: Option<Dynamic>,
    /// What [`Kind::Forward`] leaves, f32 `[1, V]`.
    logits: Option<Array>,
}

/// Which step to record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Prompt tokens, nothing sampled.
    Fill,
    /// Prompt tokens, the next one sampled from the last.
    Last,
    /// The token sampled before, the next one sampled.
    Decode,
    /// The token sampled before, nothing sampled: the logits wait for a mask.
    Forward,
    /// Tokens from the host, the one after each of them sampled.
    Check,
}

/// See the module's head.
pub struct State {
    device: Device,
    model: Arc<dyn CausalLm>,
    cache: Cache,
    /// Tokens known, oldest first.
    ids: Vec<u32>,
    /// Positions whose keys and values are in the cache (or queued).
    filled: usize,
    token: Array,
    counts: Array,
    /// Counters of `counts` are in use and must be set anew.
    counted: bool,
    decode: Option<Step>,
    /// Steps of prompts that come again.
    prompts: Vec<Step>,
    masked: Masked,
    checked: checked::Checked,
    pending: VecDeque<Submission>,
    settings: SampleSettings,
    adapters: Vec<AdapterUse>,
    media: Media,
    limit: usize,
    encode_time: std::time::Duration,
    decode_steps: u64,
}

impl State {
    /// An empty sequence.
    ///
    /// # Errors
    /// `Device` if memory runs out.
    pub fn new(device: &Device, model: &Arc<dyn CausalLm>) -> Result<Self> {
        let vocab = model.spec().vocab;
        Ok(State {
            device: device.clone(),
            model: Arc::clone(model),
            cache: Cache::new(device, 1),
            ids: Vec::new(),
            filled: 0,
            token: device.array(DType::U32, &[1], Holder::Cache)?,
            counts: device.array(DType::U32, &[1, vocab], Holder::Cache)?,
            counted: false,
            decode: None,
            prompts: Vec::new(),
            masked: Masked::default(),
            checked: checked::Checked::default(),
            pending: VecDeque::new(),
            settings: SampleSettings::default(),
            adapters: Vec::new(),
            media: Media::default(),
            limit: 0,
            encode_time: std::time::Duration::ZERO,
            decode_steps: 0,
        })
    }

    /// Tokens of the sequence so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Bytes of the cache.
    pub fn cache_bytes(&self) -> u64 {
        self.cache.nbytes()
    }

    /// Positions the cache has room for now.
    pub fn capacity(&self) -> usize {
        self.cache.capacity()
    }

    /// Forgets the sequence; the memory stays for the next one.
    pub fn clear(&mut self) {
        self.pending.clear();
        self.checked.forget_tokens();
        self.masked.forget_logits();
        self.ids.clear();
        self.filled = 0;
        self.cache.forget(0);
    }

    /// Tokens of a prompt's step here: fewer on a browser's single thread, which hears nothing while it computes.
    fn chunk(&self) -> usize {
        match cfg!(target_arch = "wasm32") && !self.device.is_gpu() {
            true => CHUNK / 4,
            false => CHUNK,
        }
    }

    /// Sets the adapters of what follows. Others than before make the sequence start anew: what was computed with the ones is
    /// not what the others would have computed.
    pub fn set_adapters(&mut self, adapters: &[AdapterUse]) {
        if self.adapters != adapters {
            self.clear();
            self.decode = None;
            self.prompts.clear();
            self.masked.forget_steps();
            self.checked.forget_steps();
            self.adapters = adapters.to_vec();
        }
    }

    /// A recorder for a step of the model.
    fn recorder(&self) -> Recorder {
        let mut rec = Recorder::new(&self.device);
        if !self.adapters.is_empty() {
            rec.correct(Some(Arc::new(Uses(self.adapters.clone()))));
        }
        rec
    }

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let vocab = self.model.spec().vocab;
        let unknown = |id: u32| id as usize >= vocab && self.media.of(id).is_none();
        match ids.iter().find(|&&id| unknown(id)) {
            Some(id) => Err(Error::invalid(format!(
                "token id {id}; the model knows 0..{vocab}"
            ))),
            None => Ok(()),
        }
    }

    /// Starts an answer to `prompt` (the whole conversation's ids): what the cache already holds of it is reused, the rest is
    /// processed, the first token is under way on return. At most `max_new` tokens follow, and no position beyond `context`.
    /// Returns how many prompt tokens were processed (the others were reused).
    ///
    /// # Errors
    /// `InvalidInput` for an empty prompt or an unknown id, `Limit` if the prompt fills the context, `Cancelled`, `Device`.
    pub async fn begin(
        &mut self,
        prompt: &[u32],
        settings: SampleSettings,
        max_new: usize,
        context: usize,
        cancel: &CancelToken,
    ) -> Result<usize> {
        settings.check()?;
        self.check_ids(prompt)?;
        let context = context.min(self.model.spec().context);
        if prompt.is_empty() {
            return Err(Error::invalid(
                "an empty prompt: there is no token to go on from",
            ));
        }
        if prompt.len() >= context {
            return Err(Error::Limit {
                what: "tokens of the prompt",
                max: context as u64 - 1,
                got: prompt.len() as u64,
            });
        }
        self.pending.clear();
        self.checked.forget_tokens();
        if self.cache.span(self.model.spec(), prompt.len())? {
            self.filled = 0;
        }
        self.cache.place(self.model.spec(), self.places(prompt))?;
        self.masked.forget_logits();
        // The last token is always processed: its logits are needed.
        let held = self.filled.min(self.ids.len()).min(prompt.len() - 1);
        let same = self.ids[..held]
            .iter()
            .zip(prompt)
            .take_while(|(a, b)| a == b)
            .count();
        let keep = self.cache.rewind(self.model.spec(), 0, same)?;
        self.ids.truncate(keep);
        self.filled = keep;
        self.settings = settings;
        self.limit = prompt.len().saturating_add(max_new).min(context);
        let reserve = (prompt.len() + max_new.min(AHEAD)).min(context);
        self.cache.reserve(self.model.spec(), reserve)?;
        self.set_counts(prompt)?;
        self.fill(prompt, keep, Some(cancel)).await?;
        Ok(prompt.len() - keep)
    }

    /// Processes `prompt` from position `at` on in chunks; the token after it is under way on return.
    async fn fill(
        &mut self,
        prompt: &[u32],
        mut at: usize,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        let recurrent = self.model.spec().is_recurrent();
        let tail = prompt.len().saturating_sub(TAIL);
        let chunk = self.chunk();
        while at < prompt.len() {
            let stopped = match cancel {
                Some(cancel) => cancel.heard().await,
                None => false,
            };
            if stopped {
                return Err(Error::Cancelled);
            }
            let mut end = (at + chunk).min(prompt.len());
            if recurrent && at < tail && tail < end {
                end = tail;
            }
            end = self.step_end(prompt, at, end);
            let kind = if end == prompt.len() {
                Kind::Last
            } else {
                Kind::Fill
            };
            let soft = self.soft_tables(&prompt[at..end]).await?;
            let submission = self.prompt_step(kind, &prompt[at..end], at, soft)?;
            self.ids.truncate(at);
            self.ids.extend_from_slice(&prompt[at..end]);
            self.filled = end;
            if recurrent && kind == Kind::Fill {
                self.cache.snapshot(self.model.spec(), 0)?;
            }
            match kind {
                Kind::Last => self.pending.push_back(submission),
                // One chunk at a time in flight: memory stays bounded and a cancel is heard.
                _ => drop(submission.wait().await?),
            }
            at = end;
        }
        Ok(())
    }

    /// The next position is the first for which the cached keys do not hold: waits until every token before it is known, then
    /// computes all of them again. False while tokens are under way.
    async fn refill(&mut self) -> Result<bool> {
        if !self.pending.is_empty() {
            return Ok(false);
        }
        let ids = std::mem::take(&mut self.ids);
        self.cache.span(self.model.spec(), ids.len())?;
        self.cache.reserve(self.model.spec(), ids.len())?;
        self.filled = self.cache.rewind(self.model.spec(), 0, 0)?;
        self.fill(&ids, 0, None).await?;
        Ok(true)
    }

    /// The next token, or `None` when the limit given to [`State::begin`] is reached.
    ///
    /// # Errors
    /// `BadLogits` if the model computed NaN, `Device` if the device failed.
    pub async fn next(&mut self) -> Result<Option<u32>> {
        if let Some(id) = self.given() {
            return Ok(Some(id));
        }
        if self.masked.is_on() {
            self.submit_masked().await?;
            return self.arrived().await;
        }
        // The CPU has nothing to gain from running ahead.
        let ahead = if self.device.is_gpu() { 2 } else { 1 };
        while self.pending.len() < ahead && self.filled < self.limit {
            if self.pending.is_empty() && self.filled == self.ids.len() {
                break;
            }
            if self.cache.switches(self.model.spec(), self.filled + 1) {
                if self.refill().await? {
                    continue;
                }
                break;
            }
            let submission = self.decode_step()?;
            self.pending.push_back(submission);
        }
        self.arrived().await
    }

    /// Waits for the oldest token under way.
    pub(crate) async fn arrived(&mut self) -> Result<Option<u32>> {
        let Some(submission) = self.pending.pop_front() else {
            return Ok(None);
        };
        let bytes = submission.wait().await?;
        let id = bytes
            .first_chunk()
            .map_or(BAD_LOGITS, |b| u32::from_le_bytes(*b));
        if id as usize >= self.model.spec().vocab {
            self.pending.clear();
            return Err(Error::BadLogits {
                position: self.ids.len(),
            });
        }
        if self.ids.len() >= self.limit {
            self.pending.clear();
            return Ok(None);
        }
        self.ids.push(id);
        Ok(Some(id))
    }

    /// Ends the answer: steps under way are dropped.
    pub fn stop(&mut self) {
        self.pending.clear();
        self.checked.forget_tokens();
        self.masked.forget_logits();
        // What ran ahead of the known tokens is written over.
        self.filled = self.filled.min(self.ids.len());
    }

    /// The logits of every position of `ids`, f32 `[T, V]` in chunks: `each(first position, logits)`. Replaces the sequence.
    ///
    /// # Errors
    /// As [`State::begin`], or what `each` returns.
    pub async fn logits(
        &mut self,
        ids: &[u32],
        mut each: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.check_ids(ids)?;
        let spec = self.model.spec();
        let (vocab, context) = (spec.vocab, spec.context);
        if ids.is_empty() || ids.len() > context {
            return Err(Error::Limit {
                what: "tokens of a window",
                max: context as u64,
                got: ids.len() as u64,
            });
        }
        self.clear();
        self.cache.span(self.model.spec(), ids.len())?;
        self.cache.place(self.model.spec(), self.places(ids))?;
        self.cache.reserve(self.model.spec(), ids.len())?;
        // Logits of a chunk stay under 32 MiB, so that they fit any device's binding.
        let chunk = ((8 << 20) / vocab).clamp(1, CHUNK);
        let mut at = 0;
        while at < ids.len() {
            let end = self.step_end(ids, at, (at + chunk).min(ids.len()));
            let soft = self.soft_tables(&ids[at..end]).await?;
            let mut rec = self.recorder();
            let (id_words, row_words) = (rec.dynamic(end - at)?, rec.dynamic(2 * (end - at))?);
            let soft = self.soft(&mut rec, soft, end - at)?;
            let inputs = Inputs {
                soft: soft.as_ref().map(soft::Soft::inputs),
                ..Inputs::text(id_words.array(), row_words.array(), Logits::All)
            };
            let logits = self.model.forward(&mut rec, inputs, &self.cache)?;
            let logits = logits.ok_or_else(|| Error::invalid("the model gave no logits"))?;
            let mut recording = rec.finish()?;
            recording.set(&id_words, &ids[at..end])?;
            recording.set(&row_words, &rows(at, end - at))?;
            if let Some(soft) = &soft {
                self.set_soft(&mut recording, soft, &ids[at..end], at)?;
            }
            let submission = recording.submit()?;
            self.cache.advance(0, end);
            drop(submission.wait().await?);
            let values = self.device.read_f32(&logits).await?;
            each(at, &values)?;
            self.ids.extend_from_slice(&ids[at..end]);
            self.filled = end;
            at = end;
        }
        Ok(())
    }

    /// The logits after feeding one more token, f32 `[V]`: cached decoding step by step, for checks.
    ///
    /// # Errors
    /// As [`State::logits`].
    pub async fn step_logits(&mut self, id: u32) -> Result<Vec<f32>> {
        self.check_ids(&[id])?;
        let at = self.filled;
        if self.cache.switches(self.model.spec(), at + 1) {
            let mut ids = self.ids[..at.min(self.ids.len())].to_vec();
            ids.push(id);
            let (vocab, mut last) = (self.model.spec().vocab, Vec::new());
            let keep = |_, chunk: &[f32]| {
                last = chunk[chunk.len().saturating_sub(vocab)..].to_vec();
                Ok(())
            };
            self.logits(&ids, keep).await?;
            return Ok(last);
        }
        self.cache.reserve(self.model.spec(), at + 1)?;
        let mut rec = self.recorder();
        let (ids, row) = (rec.dynamic(1)?, rec.dynamic(2)?);
        let inputs = Inputs::text(ids.array(), row.array(), Logits::All);
        let logits = self.model.forward(&mut rec, inputs, &self.cache)?;
        let logits = logits.ok_or_else(|| Error::invalid("the model gave no logits"))?;
        let mut recording = rec.finish()?;
        recording.set(&ids, &[id])?;
        recording.set(&row, &rows(at, 1))?;
        let submission = recording.submit()?;
        self.cache.advance(0, at + 1);
        drop(submission.wait().await?);
        self.ids.truncate(at);
        self.ids.push(id);
        self.filled = at + 1;
        Ok(self.device.read_f32(&logits).await?)
    }

    /// A recurrent layer's state, f32: the last inputs of its convolution, `[C, K]` with the newest last (zero before the sequence's
    /// start), and its matrices `[NV, HK, HV]`. `None` for a layer of another kind, or before the first step.
    ///
    /// # Errors
    /// `Device` if the device failed.
    pub async fn recurrent_state(&self, layer: usize) -> Result<Option<(Vec<f32>, Vec<f32>)>> {
        let kind = self.model.spec().layers.get(layer);
        let Some(&LayerCache::Recurrent { taps, channels, .. }) = kind else {
            return Ok(None);
        };
        if self.cache.capacity() == 0 {
            return Ok(None);
        }
        let (inputs, matrices) = self.cache.layer(layer);
        let (ring, matrices) = (
            self.device.read_f32(inputs).await?,
            self.device.read_f32(matrices).await?,
        );
        let mut ordered = vec![0.0; channels * taps];
        for (back, column) in (0..taps).rev().enumerate() {
            let Some(position) = self.filled.checked_sub(back + 1) else {
                break;
            };
            let row = &ring[position % taps * channels..][..channels];
            for (c, value) in row.iter().enumerate() {
                ordered[c * taps + column] = *value;
            }
        }
        Ok(Some((ordered, matrices)))
    }

    /// What one decoded token costs, and the mean time to encode and submit it.
    pub fn decode_cost(&self) -> (Cost, std::time::Duration) {
        let cost = self
            .decode
            .as_ref()
            .map(|s| s.recording.cost())
            .unwrap_or_default();
        (cost, self.encode_time / self.decode_steps.max(1) as u32)
    }

    /// The decode step's calls as text.
    pub fn decode_listing(&self) -> Option<String> {
        self.decode.as_ref().map(|s| s.recording.listing())
    }
}

/// `(sequence 0, position)` for `n` tokens from `first`.
fn rows(first: usize, n: usize) -> Vec<u32> {
    (first..first + n).flat_map(|p| [0, p as u32]).collect()
}
