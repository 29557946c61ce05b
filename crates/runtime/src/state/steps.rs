//! How a [`State`]'s steps are recorded and submitted.

use super::*;
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
        let mut rec = self.recorder();
        let ids = match kind {
            Kind::Decode | Kind::Forward => None,
            Kind::Fill | Kind::Last => Some(rec.dynamic(tokens)?),
        };
        let rows = rec.dynamic(2 * tokens)?;
        let sampling = match kind {
            Kind::Fill | Kind::Forward => None,
            Kind::Last | Kind::Decode => Some(rec.dynamic(8)?),
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
                Kind::Decode | Kind::Forward => Logits::All,
            },
            soft: soft.as_ref().map(super::soft::Soft::inputs),
        };
        let logits = self.model.forward(&mut rec, inputs, &self.cache)?;
        if let (Some(logits), Some(sampling)) = (&logits, &sampling) {
            if let Some(mask) = &mask {
                mask_logits(&mut rec, logits, mask.array())?;
            }
            sample::sample(
                &mut rec,
                logits,
                sampling.array(),
                &self.counts,
                &self.token,
            )?;
            rec.read_back(&self.token);
        }
        let logits = logits.filter(|_| kind == Kind::Forward);
        let mut recording = rec.finish()?;
        recording.set(&last, &[tokens as u32 - 1])?;
        Ok(Step {
            tokens,
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
        if let Some(words) = &step.ids {
            step.recording.set(words, ids)?;
        }
        if let Some(soft) = &step.soft {
            self.set_soft(&mut step.recording, soft, ids, at)?;
        }
        step.recording.set(&step.rows, &rows(at, step.tokens))?;
        if let Some(words) = &step.sampling {
            // The draw's number is the position of the token drawn.
            step.recording
                .set(words, &self.settings.words((at + step.tokens) as u32))?;
        }
        if let Some(words) = &step.mask {
            step.recording.set(words, self.masked.words())?;
        }
        Ok(step.recording.submit()?)
    }

    pub(super) fn prompt_step(
        &mut self,
        kind: Kind,
        ids: &[u32],
        at: usize,
        soft: Option<Vec<(u32, Weight)>>,
    ) -> Result<Submission> {
        let generation = self.cache.generation();
        // Full chunks repeat within a long prompt; other lengths rarely come twice.
        let reuse = kind == Kind::Fill && ids.len() == self.chunk() && soft.is_none();
        let kept = self
            .fill
            .take()
            .filter(|s| reuse && s.generation == generation);
        let mut step = match kept {
            Some(step) => step,
            None => self.record(kind, ids.len(), soft)?,
        };
        let submission = self.submit(&mut step, ids, at)?;
        self.cache.advance(0, at + ids.len());
        if reuse {
            self.fill = Some(step);
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
