//! Pictures and sounds in a prompt.
//!
//! A model's [`Tower`] says what a picture becomes: on the host [`Prepared`] tensors and the text that takes the place of the mark in
//! the rendered conversation, on the device the features that take the place of tokens. [`Media`] keeps what the conversation on the
//! device holds, so that a second question about a picture encodes nothing again.
//!
//! Soft tokens have ids of their own from [`FIRST_SOFT`] on: each row of each medium's features has one. So what is cached of a
//! conversation is compared by ids alone, and two pictures are never taken for each other.

use crate::{Error, Result};
use firelight_kernels::{Array, Device, Recorder, Weight};
use firelight_tensor::Tensor;
#[cfg(feature = "vision")]
use firelight_vision::Image;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Ids from here on stand for rows of features; vocabularies end far below.
pub const FIRST_SOFT: u32 = 1 << 30;

/// What a tower takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// A picture.
    Image,
    /// A sound.
    Audio,
}

impl MediaKind {
    /// The word in messages.
    pub const fn name(self) -> &'static str {
        match self {
            MediaKind::Image => "image",
            MediaKind::Audio => "audio",
        }
    }
}

/// A picture or a sound, decoded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Medium {
    /// 8-bit RGB, oriented.
    #[cfg(feature = "vision")]
    Image(Arc<Image>),
    /// Mono samples of ±1 at 16 kHz.
    Audio(Arc<[f32]>),
}

impl Medium {
    /// What it is.
    pub fn kind(&self) -> MediaKind {
        match self {
            #[cfg(feature = "vision")]
            Medium::Image(_) => MediaKind::Image,
            Medium::Audio(_) => MediaKind::Audio,
        }
    }

    fn same(&self, other: &Medium) -> bool {
        match (self, other) {
            #[cfg(feature = "vision")]
            (Medium::Image(a), Medium::Image(b)) => Arc::ptr_eq(a, b) || a == b,
            (Medium::Audio(a), Medium::Audio(b)) => Arc::ptr_eq(a, b),
            #[cfg(feature = "vision")]
            _ => false,
        }
    }
}

#[cfg(feature = "vision")]
impl From<Image> for Medium {
    fn from(image: Image) -> Self {
        Medium::Image(Arc::new(image))
    }
}

/// What a medium becomes before any device sees it.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Picture or sound.
    pub kind: MediaKind,
    /// What takes the place of the mark in the rendered conversation; the model's placeholder is in it once per soft token.
    pub text: String,
    /// Soft tokens.
    pub tokens: usize,
    /// Soft tokens along time, height and width, for models that count positions along each.
    pub grid: [usize; 3],
    /// What the tower reads, under the names of the reference's processor.
    pub tensors: Vec<(String, Tensor)>,
}

impl Prepared {
    /// One of the tensors.
    ///
    /// # Errors
    /// `InvalidInput` if it is not there.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        let found = self.tensors.iter().find(|(n, _)| n == name);
        found
            .map(|(_, t)| t)
            .ok_or_else(|| Error::invalid(format!("a prepared medium without `{name}`")))
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.text.as_bytes());
        for (name, tensor) in &self.tensors {
            hash.update(name.as_bytes());
            for d in tensor.shape() {
                hash.update((*d as u64).to_le_bytes());
            }
            hash.update(tensor.bytes());
        }
        hash.finalize().into()
    }
}

/// The part of a model that turns pictures or sounds into tokens.
pub trait Tower: Send + Sync {
    /// The text that stands for one medium in a rendered conversation.
    fn mark(&self) -> &str;

    /// The token that holds a soft one's place in the encoded text.
    fn placeholder(&self) -> u32;

    /// The token that embeddings of another kind take for soft ones.
    fn padding(&self) -> u32 {
        self.placeholder()
    }

    /// Prepares a medium on the host. With `budget` it becomes at most about so many tokens, as far as the model allows.
    ///
    /// # Errors
    /// `InvalidInput` for another kind, what is wrong with the medium, `Limit` if it would be too many tokens.
    fn prepare(&self, medium: &Medium, budget: Option<usize>) -> Result<Prepared>;

    /// Records the tower: features f32 `[tokens, D]`.
    ///
    /// # Errors
    /// What the kernels refuse.
    fn forward(&self, rec: &mut Recorder, prepared: &Prepared) -> Result<Array>;

    /// Records what a reference shows of the way to the features, under its names: for checks.
    ///
    /// # Errors
    /// As [`Tower::forward`].
    fn stages(
        &self,
        _rec: &mut Recorder,
        _prepared: &Prepared,
    ) -> Result<Vec<(&'static str, Array)>> {
        Ok(Vec::new())
    }
}

/// The media of the conversation that a state holds.
#[derive(Default)]
pub(crate) struct Media {
    entries: Vec<Entry>,
    next: u32,
    encoded: usize,
}

struct Entry {
    first: u32,
    digest: [u8; 32],
    prepared: Arc<Prepared>,
    /// On the device, once a tower has run.
    features: Option<Weight>,
}

impl Media {
    /// Makes these the media of the conversation and gives each one's first id. What was there keeps its ids and features; what is
    /// not listed is forgotten.
    pub(crate) fn place(&mut self, media: &[Arc<Prepared>]) -> Result<Vec<u32>> {
        let mut firsts = Vec::with_capacity(media.len());
        let mut kept: Vec<Entry> = Vec::with_capacity(media.len());
        for prepared in media {
            let digest = prepared.digest();
            if let Some(entry) = kept.iter().find(|e| e.digest == digest) {
                firsts.push(entry.first);
                continue;
            }
            let entry = match self.entries.iter().position(|e| e.digest == digest) {
                Some(i) => self.entries.swap_remove(i),
                None => {
                    let first = FIRST_SOFT + self.next;
                    let tokens = u32::try_from(prepared.tokens).unwrap_or(u32::MAX);
                    self.next = self
                        .next
                        .checked_add(tokens)
                        .filter(|&n| n < FIRST_SOFT)
                        .ok_or_else(|| {
                            Error::invalid("more than 2³⁰ tokens of pictures and sounds in a session; begin a new one")
                        })?;
                    Entry {
                        first,
                        digest,
                        prepared: Arc::clone(prepared),
                        features: None,
                    }
                }
            };
            firsts.push(entry.first);
            kept.push(entry);
        }
        self.entries = kept;
        Ok(firsts)
    }

    /// The same media with the same ids, on no device yet.
    pub(crate) fn moved(&self) -> Media {
        let entries = self.entries.iter().map(|e| Entry {
            prepared: Arc::clone(&e.prepared),
            features: None,
            ..*e
        });
        Media {
            entries: entries.collect(),
            next: self.next,
            encoded: self.encoded,
        }
    }

    /// The medium a soft id is of.
    pub(crate) fn of(&self, id: u32) -> Option<(u32, &Prepared)> {
        let entry = self
            .entries
            .iter()
            .find(|e| (e.first..e.first + e.prepared.tokens as u32).contains(&id))?;
        Some((entry.first, &entry.prepared))
    }

    /// Times a tower has run.
    pub(crate) fn encoded(&self) -> usize {
        self.encoded
    }

    /// The features that `ids` name, each with its first id; a tower runs for what is not on the device yet.
    pub(crate) async fn features<'t>(
        &mut self,
        device: &Device,
        ids: &[u32],
        tower: impl Fn(MediaKind) -> Option<&'t dyn Tower>,
    ) -> Result<Vec<(u32, Weight)>> {
        let mut tables = Vec::new();
        for entry in &mut self.entries {
            let range = entry.first..entry.first + entry.prepared.tokens as u32;
            if !ids.iter().any(|id| range.contains(id)) {
                continue;
            }
            let weight = match &entry.features {
                Some(weight) => weight.clone(),
                None => {
                    let kind = entry.prepared.kind;
                    let tower = tower(kind).ok_or_else(|| takes_none(kind))?;
                    let weight =
                        Weight::from_array(&encode(device, tower, &entry.prepared).await?)?;
                    self.encoded += 1;
                    entry.features.insert(weight).clone()
                }
            };
            tables.push((entry.first, weight));
        }
        Ok(tables)
    }
}

/// Runs a tower: features f32 `[tokens, D]` on the device.
///
/// # Errors
/// What the tower refuses, `Device` if the device failed.
pub async fn encode(device: &Device, tower: &dyn Tower, prepared: &Prepared) -> Result<Array> {
    let mut rec = Recorder::new(device);
    let features = tower.forward(&mut rec, prepared)?;
    let rows = features.shape().first().copied().unwrap_or(0);
    if rows != prepared.tokens {
        return Err(Error::invalid(format!(
            "a tower made {rows} features for {} tokens",
            prepared.tokens
        )));
    }
    let mut recording = rec.finish()?;
    drop(recording.submit()?.wait().await?);
    Ok(features)
}

/// The error for a medium that a model has no tower for.
pub(crate) fn takes_none(kind: MediaKind) -> Error {
    let takes = match kind {
        MediaKind::Image => {
            "pictures; take a vision-language model (firelight-spark, SmolVLM, Qwen2-VL, Gemma 4)"
        }
        MediaKind::Audio => "sounds; take one that hears (Gemma 4, Whisper for transcripts)",
    };
    Error::Unsupported(format!("this model takes no {takes}"))
}

/// Media prepared for a model, the ones of the last conversation kept.
#[derive(Default)]
pub(crate) struct Preparations(Vec<(Medium, Option<usize>, Arc<Prepared>)>);

impl Preparations {
    /// Prepares `media` with a budget for each, or finds them as they were prepared before.
    pub(crate) fn of<'t>(
        &mut self,
        media: &[Medium],
        budget: Option<usize>,
        tower: impl Fn(MediaKind) -> Option<&'t dyn Tower>,
    ) -> Result<Vec<Arc<Prepared>>> {
        let mut now = Vec::with_capacity(media.len());
        for medium in media {
            let known = self
                .0
                .iter()
                .chain(&now)
                .find(|(m, b, _)| *b == budget && m.same(medium));
            let prepared = match known {
                Some((_, _, prepared)) => Arc::clone(prepared),
                None => {
                    let tower = tower(medium.kind()).ok_or_else(|| takes_none(medium.kind()))?;
                    Arc::new(tower.prepare(medium, budget)?)
                }
            };
            now.push((medium.clone(), budget, prepared));
        }
        self.0 = now;
        Ok(self.0.iter().map(|(_, _, p)| Arc::clone(p)).collect())
    }
}

/// The rendered conversation with each mark replaced by what its medium became, and the kinds in order.
pub(crate) fn expand<'t>(
    rendered: &str,
    media: &[Arc<Prepared>],
    tower: impl Fn(MediaKind) -> Option<&'t dyn Tower>,
) -> Result<(String, Vec<Arc<Prepared>>)> {
    let marks: Vec<(MediaKind, String)> = [MediaKind::Image, MediaKind::Audio]
        .into_iter()
        .filter_map(|kind| Some((kind, tower(kind)?.mark().to_owned())))
        .collect();
    let mut queues: Vec<(MediaKind, std::collections::VecDeque<&Arc<Prepared>>)> =
        [MediaKind::Image, MediaKind::Audio]
            .into_iter()
            .map(|kind| (kind, media.iter().filter(|m| m.kind == kind).collect()))
            .collect();
    let (mut text, mut rest, mut order) = (String::new(), rendered, Vec::new());
    loop {
        let next = marks
            .iter()
            .filter_map(|(kind, mark)| Some((rest.find(mark.as_str())?, *kind, mark)))
            .min_by_key(|(at, _, _)| *at);
        let Some((at, kind, mark)) = next else {
            break;
        };
        let queue = queues.iter_mut().find(|(k, _)| *k == kind);
        let Some(medium) = queue.and_then(|(_, q)| q.pop_front()) else {
            return Err(counts(rendered, media, kind, mark));
        };
        text.push_str(&rest[..at]);
        text.push_str(&medium.text);
        order.push(Arc::clone(medium));
        rest = &rest[at + mark.len()..];
    }
    text.push_str(rest);
    match queues.iter().find(|(_, q)| !q.is_empty()) {
        None => Ok((text, order)),
        Some((kind, _)) => {
            let mark = tower(*kind).map_or("", |t| t.mark());
            Err(counts(rendered, media, *kind, mark))
        }
    }
}

fn counts(rendered: &str, media: &[Arc<Prepared>], kind: MediaKind, mark: &str) -> Error {
    let given = media.iter().filter(|m| m.kind == kind).count();
    let marks = rendered.matches(mark).count();
    Error::invalid(format!(
        "{given} {} given and {marks} places for them in the conversation; each needs a part {{\"type\": \"{0}\"}}, and a text must not contain `{mark}`",
        kind.name()
    ))
}

/// The ids of an encoded conversation with placeholders replaced by soft ids, in the order of `media` and their `firsts`.
pub(crate) fn place_soft<'t>(
    ids: &mut [u32],
    media: &[Arc<Prepared>],
    firsts: &[u32],
    tower: impl Fn(MediaKind) -> Option<&'t dyn Tower>,
) -> Result<()> {
    let placeholders: Vec<u32> = [MediaKind::Image, MediaKind::Audio]
        .into_iter()
        .filter_map(|kind| Some(tower(kind)?.placeholder()))
        .collect();
    let mut soft = media.iter().zip(firsts).flat_map(|(m, &first)| {
        let placeholder = tower(m.kind).map(|t| t.placeholder());
        (first..first + m.tokens as u32).map(move |id| (placeholder, id))
    });
    let wrong = || {
        Error::invalid(
            "the tokenizer did not keep the placeholders of a picture or sound apart: is this the model's own tokenizer?",
        )
    };
    for id in ids.iter_mut().filter(|id| placeholders.contains(id)) {
        let (placeholder, soft_id) = soft.next().ok_or_else(wrong)?;
        if placeholder != Some(*id) {
            return Err(wrong());
        }
        *id = soft_id;
    }
    match soft.next() {
        None => Ok(()),
        Some(_) => Err(wrong()),
    }
}
