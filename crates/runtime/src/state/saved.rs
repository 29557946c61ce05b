//! What a [`State`] keeps in a file, and back.

use super::State;
use crate::cache::saved::Reach;
use crate::{Error, Result};
use firelight_tensor::Tensor;
use std::collections::BTreeMap;

impl State {
    /// The ids, how far the cache holds them, and what it holds. Ends an answer under way.
    pub(crate) async fn save(&mut self) -> Result<(Vec<u32>, Reach, Vec<(String, Tensor)>)> {
        if !self.adapters.is_empty() {
            return Err(Error::Unsupported(
                "a prompt cache of a model with adapters".to_owned(),
            ));
        }
        self.stop();
        let held = self.filled.min(self.ids.len());
        let (reach, tensors) = self.cache.save(self.model.spec(), held).await?;
        Ok((self.ids.clone(), reach, tensors))
    }

    /// Holds what [`State::save`] gave, or on an error nothing.
    pub(crate) fn restore(
        &mut self,
        ids: Vec<u32>,
        reach: &Reach,
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<()> {
        self.clear();
        self.check_ids(&ids)?;
        self.cache.restore(self.model.spec(), reach, tensors)?;
        self.filled = ids.len();
        self.ids = ids;
        Ok(())
    }
}
