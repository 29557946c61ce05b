//! How a [`State`]'s steps are recorded and submitted.

use super::*;
use crate::speculate::DRAFT;
use firelight_kernels::Weight;

impl State {
    pub(super) fn set_counts(&mut self, prompt: &[u32]) -> Result<()> {
        let needed = self.settings.repetition_penalty != 1.0;
        if needed || self.counted {
            let mut counts = vec![0u32; self.model.spec().vocab];
            for &id in prompt.iter().filter(|_| needed) {
                // Soft tokens are not said again.
                if let Some(count) = counts.get_mut(id as usize) {
                    *count += 1;
                }
            }
            self.device
                .write(&self.counts, bytemuck::cast_slice(&counts))?;
        }
        self.counted = needed;
        Ok(())
    }

    pub(super) fn record(
        &self,
        kind: Kind,
        tokens: usize,
        soft: Option<Vec<(u32, Weight)>>,
    ) -> Result<Step> {
        self.record_into(kind, tokens, soft, &self.token, &self.counts)
    }

    /// Records a step that samples into `token`.
    pub(super) fn record_into(
        &self,
        kind: Kind,
        tokens: usize,
        soft: Option<Vec<(u32, Weight)>>,
        token: &Array,
        counts: &Array,
    ) -> Result<Step> {
        let mut rec = self.recorder();
        let ids = match kind {
            Kind::Decode | Kind::Forward => None,
            Kind::Fill | Kind::Last | Kind::Check => Some(rec.dynamic(tokens)?),
        };
        let rows = rec.dynamic(2 * tokens)?;
        let sampling = match kind {
            Kind::Fill | Kind::Forward => None,
            Kind::Last | Kind::Decode => Some(rec.dynamic(8)?),
            Kind::Check => Some(rec.dynamic(8 * tokens)?),
        };
        let mask = match (&sampling, self.masked.is_on()) {
            (Some(_), true) => Some(rec.dynamic(mask_words(self.model.spec().vocab))?),
            _ => None,
        };
        let last = rec.dynamic(1)?;
        let soft = self.soft(&mut rec, soft, tokens)?;
        let inputs = Inputs {
            ids: ids.as_ref().map_or(&self.token, Dynamic::array),
            rows: rows.array(),
            logits: match kind {
                Kind::Fill => Logits::None,
                Kind::Last => Logits::Rows(last.array()),
                Kind::Decode | Kind::Forward | Kind::Check => Logits::All,
            },
            soft: soft.as_ref().map(super::soft::Soft::inputs),
        };
        let logits = self.model.forward(&mut rec, inputs, &self.cache)?;
        if let (Some(logits), Some(sampling)) = (&logits, &sampling) {
            if let Some(mask) = &mask {
                mask_logits(&mut rec, logits, mask.array())?;
            }
            sample::sample(&mut rec, logits, sampling.array(), counts, token)?;
            rec.read_back(token);
        }
        let logits = logits.filter(|_| kind == Kind::Forward);
        let mut recording = rec.finish()?;
        recording.set(&last, &[tokens as u32 - 1])?;
        Ok(Step {
            tokens,
            samples: match kind {
                Kind::Check => tokens,
                Kind::Last | Kind::Decode => 1,
                Kind::Fill | Kind::Forward => 0,
            },
            generation: self.cache.generation(),
            recording,
            ids,
            soft,
            rows,
            sampling,
            mask,
            logits,
        })
    }

    pub(super) fn submit(&self, step: &mut Step, ids: &[u32], at: usize) -> Result<Submission> {
        self.set_step(step, ids, at)?;
        Ok(step.recording.submit()?)
    }

    /// Sets what differs between two submits of a step.
    pub(super) fn set_step(&self, step: &mut Step, ids: &[u32], at: usize) -> Result<()> {
        if let Some(words) = &step.ids {
            step.recording.set(words, ids)?;
        }
        if let Some(soft) = &step.soft {
            self.set_soft(&mut step.recording, soft, ids, at)?;
        }
        step.recording.set(&step.rows, &rows(at, step.tokens))?;
        if let Some(words) = &step.sampling {
            // The draw's number is the position of the token drawn.
            let first = at + step.tokens + 1 - step.samples;
            let draws = (first..first + step.samples).flat_map(|n| self.settings.words(n as u32));
            step.recording.set(words, &draws.collect::<Vec<_>>())?;
        }
        if let Some(words) = &step.mask {
            step.recording.set(words, self.masked.words())?;
        }
        Ok(())
    }

    pub(super) fn prompt_step(
        &mut self,
        kind: Kind,
        ids: &[u32],
        at: usize,
        soft: Option<Vec<(u32, Weight)>>,
    ) -> Result<Submission> {
        let generation = self.cache.generation();
        // Full chunks repeat within a long prompt, a few tokens when a draft model catches up; other lengths rarely come twice.
        let repeats = match kind {
            Kind::Fill => ids.len() == self.chunk(),
            _ => ids.len() <= DRAFT + 2 && !self.masked.is_on(),
        };
        let reuse = repeats && soft.is_none();
        self.prompts.retain(|s| s.generation == generation);
        let samples = usize::from(kind == Kind::Last);
        let same = |s: &Step| s.tokens == ids.len() && s.samples == samples;
        let kept = self.prompts.iter().position(same).filter(|_| reuse);
        let kept = kept.map(|i| self.prompts.swap_remove(i));
        let mut step = match kept {
            Some(step) => step,
            None => self.record(kind, ids.len(), soft)?,
        };
        let submission = self.submit(&mut step, ids, at)?;
        self.cache.advance(0, at + ids.len());
        if reuse {
            self.prompts.push(step);
        }
        Ok(submission)
    }

    pub(super) fn decode_step(&mut self) -> Result<Submission> {
        let at = self.filled;
        self.cache.reserve(self.model.spec(), at + 1)?;
        let generation = self.cache.generation();
        let kept = self.decode.take().filter(|s| s.generation == generation);
        let mut step = match kept {
            Some(step) => step,
            None => self.record(Kind::Decode, 1, None)?,
        };
        let start = crate::clock::now();
        let submission = self.submit(&mut step, &[], at)?;
        self.cache.advance(0, at + 1);
        self.encode_time += start.elapsed();
        self.decode_steps += 1;
        self.decode = Some(step);
        self.filled = at + 1;
        Ok(submission)
    }
}
