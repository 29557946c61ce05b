//! Decoding with drafts: several tokens that may follow go through one step, and count as far as the model says the same.

use super::{Kind, State, Step};
use crate::speculate::DRAFT;
use crate::{Error, Result};
use firelight_kernels::sample::BAD_LOGITS;
use firelight_kernels::{Array, DType, Holder};
use std::collections::VecDeque;

/// What a [`State`] has for it.
#[derive(Default)]
pub(super) struct Checked {
    /// Tokens that were found right and are not given out yet.
    ready: VecDeque<u32>,
    /// By their number of tokens less two.
    steps: Vec<Option<Step>>,
    /// The sampled tokens and the counters, `[T]` and `[T, V]`, of which the steps use the first rows.
    tokens: Vec<Option<(Array, Array)>>,
    /// Tokens drafted, and those of them that were right.
    pub(super) drafted: u64,
    pub(super) right: u64,
}

impl Checked {
    pub(super) fn forget_steps(&mut self) {
        self.steps.clear();
        self.ready.clear();
    }

    pub(super) fn forget_tokens(&mut self) {
        self.ready.clear();
    }
}

impl State {
    /// Tokens drafted for [`State::next_of`] so far, and those of them that were right.
    pub fn drafts(&self) -> (u64, u64) {
        (self.checked.drafted, self.checked.right)
    }

    /// How long a draft may be now: 0 if there is no use for one. Answers under masks or penalties take none, nor do
    /// models with recurrent states, which cannot take a token back.
    pub fn draft_room(&self) -> usize {
        let spec = self.model.spec();
        let no = self.masked.is_on()
            || self.settings.repetition_penalty != 1.0
            || spec.is_recurrent()
            || !self.checked.ready.is_empty();
        if no {
            return 0;
        }
        // The step also samples the token after the draft.
        let room = self.limit.saturating_sub(self.ids.len() + 1).min(DRAFT);
        match self.cache.switches(spec, self.ids.len() + room + 1) {
            true => 0,
            false => room,
        }
    }

    /// True while a token is under way that nobody has seen.
    pub fn is_under_way(&self) -> bool {
        !self.pending.is_empty()
    }

    /// As [`State::next`], with a draft of the tokens that follow [`State::ids`], at most [`State::draft_room`]. While a token is under way the
    /// draft is not used.
    ///
    /// # Errors
    /// As [`State::next`].
    pub async fn next_of(&mut self, draft: &[u32]) -> Result<Option<u32>> {
        let vocab = self.model.spec().vocab;
        let words = draft.iter().take_while(|&&id| (id as usize) < vocab);
        let draft: Vec<u32> = words.copied().take(self.draft_room()).collect();
        if draft.is_empty() {
            return self.next().await;
        }
        if !self.pending.is_empty() {
            return self.arrived().await;
        }
        self.check(&draft).await?;
        Ok(self.given())
    }

    /// The next token that was found right already.
    pub(super) fn given(&mut self) -> Option<u32> {
        let id = self.checked.ready.pop_front()?;
        if self.ids.len() >= self.limit {
            self.checked.ready.clear();
            return None;
        }
        self.ids.push(id);
        Some(id)
    }

    /// Computes the last token and those of the draft, and takes what the model samples as far as it agrees.
    async fn check(&mut self, draft: &[u32]) -> Result<()> {
        let at = self.filled;
        let n = draft.len() + 1;
        let Some(&last) = self.ids.get(at).filter(|_| at + 1 == self.ids.len()) else {
            return Err(Error::invalid("a draft before the prompt was computed"));
        };
        self.cache.reserve(self.model.spec(), at + n)?;
        let generation = self.cache.generation();
        let kept = self.checked.steps.get_mut(n - 2).and_then(Option::take);
        let mut step = match kept.filter(|s| s.generation == generation) {
            Some(step) => step,
            None => self.record_check(n)?,
        };
        let mut ids = vec![last];
        ids.extend_from_slice(draft);
        let submission = self.submit(&mut step, &ids, at)?;
        self.cache.advance(0, at + n);
        self.decode_steps += 1;
        if self.checked.steps.len() < n - 1 {
            self.checked.steps.resize_with(n - 1, || None);
        }
        self.checked.steps[n - 2] = Some(step);
        let bytes = submission.wait().await?;
        let sampled: Vec<u32> = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| u32::from_le_bytes(*b))
            .collect();
        let agreed = draft
            .iter()
            .zip(&sampled)
            .take_while(|(drafted, sampled)| drafted == sampled)
            .count();
        self.checked.drafted += draft.len() as u64;
        self.checked.right += agreed as u64;
        let right = sampled.get(..=agreed).unwrap_or_default();
        let bad = |id: &u32| *id == BAD_LOGITS || *id as usize >= self.model.spec().vocab;
        if right.is_empty() || right.iter().any(bad) {
            return Err(Error::BadLogits {
                position: self.ids.len(),
            });
        }
        self.checked.ready.extend(right);
        // Keys and values of wrong guesses are written over.
        self.filled = at + right.len();
        let next = right[right.len() - 1];
        self.device.write(&self.token, &next.to_le_bytes())?;
        Ok(())
    }

    fn record_check(&mut self, n: usize) -> Result<Step> {
        if self.checked.tokens.len() <= n {
            self.checked.tokens.resize_with(n + 1, || None);
        }
        let (token, counts) = match self.checked.tokens[n].take() {
            Some(pair) => pair,
            None => {
                let vocab = self.model.spec().vocab;
                (
                    self.device.array(DType::U32, &[n], Holder::Cache)?,
                    self.device.array(DType::U32, &[n, vocab], Holder::Cache)?,
                )
            }
        };
        let step = self.record_into(Kind::Check, n, None, &token, &counts);
        self.checked.tokens[n] = Some((token, counts));
        step
    }
}
