//! A [`State`]'s pictures and sounds.

use super::State;
use crate::Result;
use crate::media::{FIRST_SOFT, Media, MediaKind, Prepared};
use crate::rope::Places;
use firelight_kernels::{Dynamic, Recorder, Recording, Weight};
use std::sync::Arc;

/// The features of a step's soft tokens, and where the step's plain ids go.
pub(super) struct Soft {
    pub tables: Vec<(u32, Weight)>,
    pub plain: Dynamic,
    /// See [`crate::models::SoftTokens::ends`].
    pub ends: Option<Dynamic>,
}

impl State {
    /// Makes these the media of the conversation: the first id of each one's soft tokens, for the prompt of [`State::begin`].
    ///
    /// # Errors
    /// `InvalidInput` if a session has seen too many.
    pub fn place_media(&mut self, media: &[Arc<Prepared>]) -> Result<Vec<u32>> {
        self.media.place(media)
    }

    /// Times a tower has run for this sequence.
    pub fn media_encoded(&self) -> usize {
        self.media.encoded()
    }

    /// The media with their ids, for a state on another device.
    pub(crate) fn moved_media(&self) -> Media {
        self.media.moved()
    }

    /// Takes over what [`State::moved_media`] gave.
    pub(crate) fn set_media(&mut self, media: Media) {
        self.media = media;
    }

    /// The id in the model's vocabulary that stands where `id` is: for a soft token its placeholder.
    pub fn plain_id(&self, id: u32) -> u32 {
        self.instead(id, |tower| tower.placeholder())
    }

    /// Where the tokens of a prompt are: a picture's along time, height and width, what follows behind the largest of them. Models that do
    /// not count along several axes take none of it.
    pub fn places(&self, prompt: &[u32]) -> Places {
        if self
            .model
            .spec()
            .ropes
            .iter()
            .all(|rope| rope.axes.is_empty())
        {
            return Places::default();
        }
        let mut given = Vec::with_capacity(prompt.len());
        let (mut next, mut at) = (0u32, 0);
        while let Some(&id) = prompt.get(at) {
            let medium = self.media.of(id).filter(|(first, _)| *first == id);
            let Some((_, medium)) = medium else {
                given.push([next; 3]);
                (next, at) = (next + 1, at + 1);
                continue;
            };
            let [frames, height, width] = medium.grid.map(|n| n as u32);
            for t in 0..frames {
                for y in 0..height {
                    given.extend((0..width).map(|x| [next + t, next + y, next + x]));
                }
            }
            next += height.max(width);
            at += medium.tokens;
        }
        Places::new(given)
    }

    fn instead(&self, id: u32, of: impl Fn(&dyn crate::media::Tower) -> u32) -> u32 {
        if id < FIRST_SOFT {
            return id;
        }
        let kind = self.media.of(id).map(|(_, prepared)| prepared.kind);
        let tower = kind.and_then(|kind| self.model.tower(kind));
        tower.map_or(0, of)
    }

    /// The ids with padding in the place of soft tokens.
    pub(super) fn padded(&self, ids: &[u32]) -> Vec<u32> {
        ids.iter()
            .map(|&id| self.instead(id, |tower| tower.padding()))
            .collect()
    }

    /// One past the last position that each of `ids`, from position `at` on, sees: a picture's tokens see its end.
    pub(super) fn ends(&self, ids: &[u32], at: usize) -> Vec<u32> {
        let end = |(i, &id): (usize, &u32)| {
            let rest = match self.picture(id) {
                Some((first, tokens)) => first + tokens - id,
                None => 1,
            };
            (at + i) as u32 + rest
        };
        ids.iter().enumerate().map(end).collect()
    }

    /// First id and number of tokens of the picture that a soft id is of.
    fn picture(&self, id: u32) -> Option<(u32, u32)> {
        let (first, prepared) = self.media.of(id)?;
        (prepared.kind == MediaKind::Image).then_some((first, prepared.tokens as u32))
    }

    /// Where the step from position `at` of `ids` ends that would end at `end`: pictures whose tokens see each other are not split.
    pub(super) fn step_end(&self, ids: &[u32], at: usize, end: usize) -> usize {
        let split = match ids.get(end) {
            Some(&id) if self.model.spec().mutual > 0 => self.picture(id).map(|p| (id, p)),
            _ => None,
        };
        let Some((id, (first, tokens))) = split else {
            return end;
        };
        let (before, behind) = ((id - first) as usize, (first + tokens - id) as usize);
        match end.checked_sub(before) {
            Some(start) if start > at => start,
            _ => (end + behind).min(ids.len()),
        }
    }

    /// What a step of `ids` needs for its soft tokens: towers run that have not yet. `None` if there are no such tokens.
    pub(super) async fn soft_tables(&mut self, ids: &[u32]) -> Result<Option<Vec<(u32, Weight)>>> {
        if ids.iter().all(|&id| id < FIRST_SOFT) {
            return Ok(None);
        }
        let model = Arc::clone(&self.model);
        let tables = self
            .media
            .features(&self.device, ids, |kind| model.tower(kind));
        tables.await.map(Some)
    }

    /// Writes what a step's soft tokens need.
    pub(super) fn set_soft(
        &self,
        recording: &mut Recording,
        soft: &Soft,
        ids: &[u32],
        at: usize,
    ) -> Result<()> {
        recording.set(&soft.plain, &self.padded(ids))?;
        if let Some(ends) = &soft.ends {
            recording.set(ends, &self.ends(ids, at))?;
        }
        Ok(())
    }

    /// The inputs' part for soft tokens.
    pub(super) fn soft(
        &self,
        rec: &mut Recorder,
        tables: Option<Vec<(u32, Weight)>>,
        tokens: usize,
    ) -> Result<Option<Soft>> {
        let Some(tables) = tables else {
            return Ok(None);
        };
        let plain = rec.dynamic(tokens)?;
        let ends = match self.model.spec().mutual {
            0 => None,
            _ => Some(rec.dynamic(tokens)?),
        };
        Ok(Some(Soft {
            tables,
            plain,
            ends,
        }))
    }
}

impl Soft {
    pub(super) fn inputs(&self) -> crate::models::SoftTokens<'_> {
        crate::models::SoftTokens {
            plain: self.plain.array(),
            tables: &self.tables,
            ends: self.ends.as_ref().map(Dynamic::array),
        }
    }
}
