//! Guessing tokens ahead: a draft of the next tokens is checked in one step of the model, which costs little more than one token where
//! reading the weights is what takes the time.
//!
//! The answer is the one without drafts. A draw depends on the seed and on the position of the token drawn, so the token after each
//! drafted one is sampled as it would have been sampled anyway, and a draft counts as far as it says the same. Hence no rule of acceptance
//! is needed to keep the distribution, and a draft model that draws with the same numbers is right more often than one that
//! draws for itself. What may differ is rounding: a step of several tokens sums in another order on some devices.
//!
//! Sources: Leviathan et al. 2023 (checking drafts in one step), Saxena 2023 (prompt lookup).

use crate::engine::LoadedModel;
use crate::source::CancelToken;
use crate::state::State;
use crate::{Error, Result};
use firelight_kernels::sample::SampleSettings;
use std::sync::Arc;

/// Tokens of a draft at most. With the token before them they fit the kernels for few tokens.
pub const DRAFT: usize = 6;
/// The longest run of tokens that is looked for.
const LONGEST: usize = 4;
/// The shortest.
const SHORTEST: usize = 2;

/// Where drafts come from.
#[derive(Clone)]
pub enum Draft {
    /// What followed when the last few tokens occurred before: for answers that repeat their prompt (summaries, corrections, code).
    Lookup,
    /// A smaller model with the same vocabulary, on whatever device it was loaded.
    Model(LoadedModel),
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Draft::Lookup => f.write_str("Lookup"),
            Draft::Model(model) => write!(f, "Model({})", model.device.name()),
        }
    }
}

impl Draft {
    fn same(&self, other: &Draft) -> bool {
        match (self, other) {
            (Draft::Lookup, Draft::Lookup) => true,
            (Draft::Model(a), Draft::Model(b)) => Arc::ptr_eq(&a.model, &b.model),
            _ => false,
        }
    }
}

/// Makes the drafts of one session.
pub(crate) struct Drafter {
    draft: Draft,
    /// The draft model's sequence.
    state: Option<State>,
    lookup: Lookup,
    /// What the last draft was, to learn from how it went.
    drafted: usize,
}

impl Drafter {
    /// # Errors
    /// `InvalidInput` if the draft model has another vocabulary, or layers that cannot go back; `Device` if memory runs out.
    pub(crate) fn new(draft: &Draft, for_model: &LoadedModel) -> Result<Self> {
        let state = match draft {
            Draft::Lookup => None,
            Draft::Model(model) => {
                fit(model, for_model)?;
                Some(State::new(&model.device, &model.model)?)
            }
        };
        Ok(Drafter {
            draft: draft.clone(),
            state,
            lookup: Lookup::default(),
            drafted: 0,
        })
    }

    pub(crate) fn is(&self, draft: &Draft) -> bool {
        self.draft.same(draft)
    }

    /// Whether making a draft takes time.
    pub(crate) fn is_model(&self) -> bool {
        self.state.is_some()
    }

    /// At most `most` tokens that may follow `ids`. A draft model that fails drafts nothing more.
    pub(crate) async fn draft(
        &mut self,
        ids: &[u32],
        most: usize,
        sampling: SampleSettings,
    ) -> Vec<u32> {
        let most = most.min(DRAFT);
        let draft = match &mut self.state {
            None => self.lookup.draft(ids, most),
            Some(state) => match of_model(state, ids, most, sampling).await {
                Ok(draft) => draft,
                Err(_) => {
                    (self.state, self.draft) = (None, Draft::Lookup);
                    Vec::new()
                }
            },
        };
        self.drafted = draft.len();
        draft
    }

    /// Says how many tokens of the last draft were right.
    pub(crate) fn learn(&mut self, right: usize) {
        if self.drafted > 0 {
            self.lookup.learn(right);
        }
        self.drafted = 0;
    }
}

/// A draft must be in the words of the model it is for, and is taken back where it was wrong.
fn fit(draft: &LoadedModel, model: &LoadedModel) -> Result<()> {
    let (small, large) = (draft.model.spec(), model.model.spec());
    if small.is_recurrent() {
        return Err(Error::invalid(
            "this draft model keeps a recurrent state, which cannot take back a wrong guess; choose one with attention only",
        ));
    }
    let (ours, theirs) = (&draft.text.tokenizer, &model.text.tokenizer);
    let differs = (0..small.vocab.min(large.vocab) as u32)
        .step_by(61)
        .chain(0..512.min(small.vocab as u32))
        .find(|&id| ours.decode(&[id], false) != theirs.decode(&[id], false));
    match differs {
        None => Ok(()),
        Some(id) => Err(Error::invalid(format!(
            "the draft model has another vocabulary: token {id} is {:?} there and {:?} in the model; choose a smaller model of the same family",
            ours.decode(&[id], false),
            theirs.decode(&[id], false)
        ))),
    }
}

async fn of_model(
    state: &mut State,
    ids: &[u32],
    most: usize,
    sampling: SampleSettings,
) -> Result<Vec<u32>> {
    let cancel = CancelToken::new();
    let begun = state.begin(ids, sampling, most, usize::MAX, &cancel).await;
    if let Err(Error::Limit { .. }) = begun {
        // Beyond the draft model's context.
        return Ok(Vec::new());
    }
    begun?;
    let mut draft = Vec::with_capacity(most);
    while draft.len() < most {
        match state.next().await? {
            Some(id) => draft.push(id),
            None => break,
        }
    }
    state.stop();
    Ok(draft)
}

/// Prompt lookup.
#[derive(Debug, Default)]
struct Lookup {
    /// Drafts in a row of which nothing was right: then only longer runs count.
    misses: usize,
}

impl Lookup {
    fn draft(&self, ids: &[u32], most: usize) -> Vec<u32> {
        let shortest = (SHORTEST + self.misses).min(LONGEST);
        for length in (shortest..=LONGEST).rev() {
            let Some(at) = ids.len().checked_sub(length) else {
                continue;
            };
            let (before, run) = ids.split_at(at);
            // The latest occurrence that ends before the run does; what follows it may reach into the run.
            let found = (0..before.len())
                .rev()
                .find(|&i| ids.get(i..i + length) == Some(run));
            if let Some(i) = found {
                let from = i + length;
                return ids[from..(from + most).min(ids.len())].to_vec();
            }
        }
        Vec::new()
    }

    fn learn(&mut self, right: usize) {
        self.misses = match right {
            0 => (self.misses + 1).min(LONGEST),
            _ => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_last_tokens_before_is_drafted() {
        let lookup = Lookup::default();
        let ids = [7, 1, 2, 3, 4, 5, 6, 9, 2, 3];
        assert_eq!(lookup.draft(&ids, 3), [4, 5, 6]);
        assert_eq!(lookup.draft(&ids, 100), [4, 5, 6, 9, 2, 3]);
        assert!(lookup.draft(&ids, 0).is_empty());
        // The latest occurrence wins, the longest run before it.
        assert_eq!(lookup.draft(&[1, 2, 3, 1, 2, 4, 1, 2], 1), [4]);
        assert_eq!(lookup.draft(&[9, 1, 2, 3, 1, 2, 4, 9, 1, 2], 1), [3]);
        // A run that repeats itself goes on repeating.
        assert_eq!(lookup.draft(&[5, 5, 5, 5], 2), [5]);
        assert!(lookup.draft(&[1, 2, 3], 4).is_empty());
        assert!(lookup.draft(&[], 4).is_empty());
    }

    #[test]
    fn after_misses_only_longer_runs_count() {
        let mut lookup = Lookup::default();
        let ids = [1, 2, 3, 4, 1, 2];
        assert_eq!(lookup.draft(&ids, 1), [3]);
        lookup.learn(0);
        assert!(lookup.draft(&ids, 1).is_empty());
        assert_eq!(lookup.draft(&[1, 2, 3, 4, 1, 2, 3], 1), [4]);
        lookup.learn(1);
        assert_eq!(lookup.draft(&ids, 1), [3]);
    }
}
