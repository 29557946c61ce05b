//! A step with the time of each of its calls.

use super::{Kind, State};
use crate::{Error, Result};
use firelight_kernels::CallTime;

impl State {
    /// Processes `prompt` from an empty sequence on, at most one chunk of it, and gives the time of each call.
    ///
    /// # Errors
    /// As [`State::begin`]; `Limit` for more than a chunk.
    pub async fn profile_prompt(&mut self, prompt: &[u32]) -> Result<Vec<CallTime>> {
        self.check_ids(prompt)?;
        let most = self.chunk();
        if prompt.is_empty() || prompt.len() > most {
            return Err(Error::Limit {
                what: "tokens of a profiled prompt",
                max: most as u64,
                got: prompt.len() as u64,
            });
        }
        self.clear();
        self.cache.span(self.model.spec(), prompt.len())?;
        self.cache.place(self.model.spec(), self.places(prompt))?;
        self.cache.reserve(self.model.spec(), prompt.len() + 1)?;
        let mut step = self.record(Kind::Last, prompt.len(), None)?;
        self.set_step(&mut step, prompt, 0)?;
        let times = step.recording.profile().await?;
        self.cache.advance(0, prompt.len());
        self.ids.extend_from_slice(prompt);
        self.filled = prompt.len();
        Ok(times)
    }

    /// Computes the token at the next position and gives the time of each call. Asked again, the same step runs again; recurrent states move on,
    /// so nothing but profiles should follow.
    ///
    /// # Errors
    /// `InvalidInput` before a prompt was processed, `Device`.
    pub async fn profile_token(&mut self) -> Result<Vec<CallTime>> {
        let at = self.filled;
        if at == 0 {
            return Err(Error::invalid("no prompt was processed"));
        }
        self.cache.reserve(self.model.spec(), at + 1)?;
        let mut step = self.record(Kind::Decode, 1, None)?;
        self.set_step(&mut step, &[], at)?;
        Ok(step.recording.profile().await?)
    }
}
