//! Decoding under masks: which token may come next is known only when the one before it is.
//!
//! So the step is cut in two. The model's part needs no mask: on a GPU it is queued as soon as its token is sampled there, and
//! runs while the host reads that token and works out the mask. Masking and sampling follow in a submit of their own.

use super::{Kind, State, Step};
use crate::{Error, Result};
use firelight_kernels::mask_logits::{mask_logits, mask_words};
use firelight_kernels::{Dynamic, Recorder, Recording, sample};

/// What a [`State`] has for it.
#[derive(Default)]
pub(super) struct Masked {
    words: Option<Vec<u32>>,
    step: Option<Halves>,
    /// The model's part of the next step was submitted.
    forwarded: bool,
}

/// The two parts of a step.
struct Halves {
    forward: Step,
    choose: Recording,
    sampling: Dynamic,
    mask: Dynamic,
}

impl Masked {
    pub(super) fn is_on(&self) -> bool {
        self.words.is_some()
    }

    pub(super) fn words(&self) -> &[u32] {
        self.words.as_deref().unwrap_or_default()
    }

    /// What was recorded does not hold any more.
    pub(super) fn forget_steps(&mut self) {
        self.step = None;
        self.forget_logits();
    }

    /// What was submitted ahead does not count any more.
    pub(super) fn forget_logits(&mut self) {
        self.forwarded = false;
    }
}

impl State {
    /// The tokens that may be sampled next: bit `id mod 32` of word `⌊id / 32⌋`, `⌈V / 32⌉` words. Set before [`State::begin`] and
    /// before each [`State::next`]; `None`: all, as it is without (set before [`State::begin`] only).
    ///
    /// # Errors
    /// `InvalidInput` for a mask of another size or without a token.
    pub fn set_mask(&mut self, mask: Option<&[u32]>) -> Result<()> {
        let Some(mask) = mask else {
            self.masked.words = None;
            return Ok(());
        };
        let vocab = self.model.spec().vocab;
        if mask.len() != mask_words(vocab) {
            return Err(Error::invalid(format!(
                "a mask of {} words; {vocab} tokens take {}",
                mask.len(),
                mask_words(vocab)
            )));
        }
        let last = u32::MAX >> ((32 - vocab % 32) % 32);
        let some = match mask.split_last() {
            Some((end, rest)) => end & last != 0 || rest.iter().any(|&word| word != 0),
            None => false,
        };
        if !some {
            return Err(Error::invalid("a mask that allows no token"));
        }
        let words = self.masked.words.get_or_insert_default();
        words.clear();
        words.extend_from_slice(mask);
        Ok(())
    }

    /// Has the next token under way, if there is to be one.
    pub(super) async fn submit_masked(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            if self.ids.len() >= self.limit {
                return Ok(());
            }
            let switches = self.cache.switches(self.model.spec(), self.filled + 1);
            if !self.masked.forwarded && switches {
                // Samples under the mask, too.
                self.refill().await?;
            } else {
                self.choose()?;
            }
        }
        let next = self.filled + 1;
        if self.device.is_gpu()
            && next <= self.limit
            && !self.cache.switches(self.model.spec(), next)
        {
            self.forward()?;
        }
        Ok(())
    }

    /// Masks and samples, the model's part before it if that is not under way.
    fn choose(&mut self) -> Result<()> {
        self.forward()?;
        let Some(halves) = &mut self.masked.step else {
            return Ok(());
        };
        let words = self.masked.words.as_deref().unwrap_or_default();
        // The draw's number is the position of the token drawn, as without masks.
        let settings = self.settings.words(self.filled as u32);
        halves.choose.set(&halves.sampling, &settings)?;
        halves.choose.set(&halves.mask, words)?;
        let submission = halves.choose.submit()?;
        self.pending.push_back(submission);
        self.masked.forwarded = false;
        Ok(())
    }

    /// The model's part for the token sampled last.
    fn forward(&mut self) -> Result<()> {
        if self.masked.forwarded {
            return Ok(());
        }
        let at = self.filled;
        self.cache.reserve(self.model.spec(), at + 1)?;
        let generation = self.cache.generation();
        let kept = self.masked.step.take();
        let mut halves = match kept.filter(|h| h.forward.generation == generation) {
            Some(halves) => halves,
            None => self.record_halves()?,
        };
        let submission = self.submit(&mut halves.forward, &[], at);
        self.masked.step = Some(halves);
        drop(submission?);
        self.cache.advance(0, at + 1);
        self.filled = at + 1;
        self.masked.forwarded = true;
        Ok(())
    }

    fn record_halves(&self) -> Result<Halves> {
        let forward = self.record(Kind::Forward, 1, None)?;
        let logits = forward
            .logits
            .as_ref()
            .ok_or_else(|| Error::invalid("the model gave no logits"))?;
        let mut rec = Recorder::new(&self.device);
        let sampling = rec.dynamic(8)?;
        let mask = rec.dynamic(mask_words(self.model.spec().vocab))?;
        mask_logits(&mut rec, logits, mask.array())?;
        sample::sample(
            &mut rec,
            logits,
            sampling.array(),
            &self.counts,
            &self.token,
        )?;
        rec.read_back(&self.token);
        Ok(Halves {
            choose: rec.finish()?,
            forward,
            sampling,
            mask,
        })
    }
}
