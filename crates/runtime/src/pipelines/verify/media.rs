//! Cases with pictures and sounds: what the processor and the towers made, stage by stage, so that a difference can be placed.

use super::Verify;
use crate::engine::LoadedModel;
use crate::media::{self, MediaKind, Medium, Prepared};
use crate::state::State;
use crate::{Error, Result};
use firelight_kernels::Recorder;
use firelight_tensor::{DType, Tensor, Weights};
use firelight_text::{Message, PartKind};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// The kinds of a case's media in order.
fn kinds(case: &Value) -> Vec<PartKind> {
    let Some(messages) = case.get("messages") else {
        return Vec::new();
    };
    let messages: Vec<Message> = serde_json::from_value(messages.clone()).unwrap_or_default();
    let parts = messages.iter().flat_map(|m| m.content.parts());
    parts
        .map(|part| part.kind())
        .filter(|kind| *kind != PartKind::Text)
        .collect()
}

/// Why a case cannot be run, if it cannot: the model takes nothing of what its messages hold.
pub(super) fn unreadable(model: &LoadedModel, case: &Value) -> Option<String> {
    kinds(case).into_iter().find_map(|kind| {
        let (word, kind) = match kind {
            PartKind::Image => ("image", Some(MediaKind::Image)),
            PartKind::Audio => ("audio", Some(MediaKind::Audio)),
            _ => ("part of another kind", None),
        };
        let taken = kind.is_some_and(|kind| model.model.tower(kind).is_some());
        (!taken).then(|| {
            format!("a message holds an {word}; this version runs the text of this family")
        })
    })
}

/// The media of a case, decoded: the files it names in `images`, else `input.png`, `input2.png`, ….
pub(super) fn open(case: &Value, golden: &Weights, name: &str, dir: &Path) -> Result<Vec<Medium>> {
    let given = case.get("images").and_then(Value::as_array);
    let given: Vec<&str> = given
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let kinds = kinds(case);
    let (images, mut seen_images, mut sounds) = (
        kinds.iter().filter(|k| **k == PartKind::Image).count(),
        0,
        0,
    );
    let numbered = |n: usize, extension: &str| match n {
        1 => format!("input.{extension}"),
        n => format!("input{n}.{extension}"),
    };
    // One family's case shows the second picture first, and says so only by the name of a tensor.
    let turned = golden.info(&format!("{name}.pixel_values_small")).is_some();
    let mut media = Vec::with_capacity(kinds.len());
    for kind in kinds {
        media.push(match kind {
            PartKind::Image => {
                seen_images += 1;
                let n = if turned {
                    images + 1 - seen_images
                } else {
                    seen_images
                };
                let file = match given.get(seen_images - 1) {
                    Some(file) => (*file).to_owned(),
                    None => numbered(n, "png"),
                };
                picture(&dir.join(file))?
            }
            _ => {
                sounds += 1;
                sound(&dir.join(numbered(sounds, "wav")))?
            }
        });
    }
    Ok(media)
}

#[cfg(any(feature = "vision", feature = "audio"))]
fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io {
        path: path.display().to_string(),
        source,
    })
}

#[cfg(feature = "vision")]
pub(super) fn picture(path: &Path) -> Result<Medium> {
    Ok(firelight_vision::decode(&read(path)?)?.into())
}

#[cfg(not(feature = "vision"))]
fn picture(_path: &Path) -> Result<Medium> {
    Err(Error::Unsupported(
        "pictures in a build without the feature `vision`".into(),
    ))
}

#[cfg(feature = "audio")]
fn sound(path: &Path) -> Result<Medium> {
    let samples = firelight_audio::decode(&read(path)?)?.samples;
    Ok(Medium::Audio(samples.into()))
}

#[cfg(not(feature = "audio"))]
fn sound(_path: &Path) -> Result<Medium> {
    Err(Error::Unsupported(
        "sounds in a build without the feature `audio`".into(),
    ))
}

impl Verify<'_> {
    /// Prepares a case's media, compares what comes of them, and gives the prompt's ids.
    pub(super) async fn media(
        &mut self,
        model: &LoadedModel,
        state: &mut State,
        case: &str,
        rendered: &str,
        media: &[Medium],
    ) -> Result<Vec<u32>> {
        let tower = |kind| model.model.tower(kind);
        let mut prepared = Vec::with_capacity(media.len());
        for medium in media {
            let kind = medium.kind();
            let tower = tower(kind).ok_or_else(|| media::takes_none(kind))?;
            prepared.push(Arc::new(tower.prepare(medium, None)?));
        }
        for kind in [MediaKind::Image, MediaKind::Audio] {
            let of: Vec<_> = prepared.iter().filter(|p| p.kind == kind).collect();
            if !of.is_empty() {
                self.tensors(case, &of)?;
                self.features(model, case, kind, &of).await?;
            }
        }
        let (text, order) = media::expand(rendered, &prepared, tower)?;
        // The reference's processor adds the special tokens, even where the template has written one.
        let mut ids = model.text.encode_text(&text)?;
        let firsts = state.place_media(&order)?;
        media::place_soft(&mut ids, &order, &firsts, tower)?;

        let positions = format!("{case}.mrope_position_ids");
        if self.golden.info(&positions).is_some() {
            let places = state.places(&ids);
            let count = ids.len();
            let axis = |axis: usize| {
                let at = |i: usize| i64::from(places.at(i)[axis]);
                (0..count).map(at).collect::<Vec<_>>()
            };
            let all: Vec<i64> = (0..3).flat_map(axis).collect();
            self.integers(positions, &[3, ids.len()], &all)?;
            self.integers(format!("{case}.rope_delta"), &[1], &[places.shift()])?;
        }
        Ok(ids)
    }

    /// What the processor made of all media of a kind, one after the other along the first dimension in which they differ.
    fn tensors(&mut self, case: &str, prepared: &[&Arc<Prepared>]) -> Result<()> {
        let names = prepared
            .iter()
            .flat_map(|p| p.tensors.iter().map(|(n, _)| n.as_str()));
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        names.dedup();
        for tensor in names {
            let all = prepared
                .iter()
                .map(|p| p.tensor(tensor))
                .collect::<Result<Vec<_>>>()?;
            let full = format!("{case}.{tensor}");
            if let Some(info) = self.golden.info(&full) {
                let shape = info.shape.dims().to_vec();
                self.joined(full, &shape, &all)?;
            }
            let small = format!("{case}.{tensor}_small");
            if let (Some(info), [first, ..]) = (self.golden.info(&small), &all[..]) {
                let shape = info.shape.dims().to_vec();
                self.joined(small, &shape, &[first])?;
            }
        }
        Ok(())
    }

    fn joined(&mut self, name: String, shape: &[usize], parts: &[&Tensor]) -> Result<()> {
        // Ids, grids and masks are whole numbers, whatever they are stored as.
        let whole = parts.iter().all(|p| p.dtype() != DType::F32);
        let own = match parts {
            [one] => one.shape().to_vec(),
            _ => shape.to_vec(),
        };
        if whole {
            let mut all = Vec::new();
            for part in parts {
                all.extend(whole_numbers(part)?);
            }
            return self.integers(name, &own, &all);
        }
        let mut all = Vec::new();
        for part in parts {
            all.extend(part.to_f32_vec()?);
        }
        self.floats(name, &own, all)
    }

    fn integers(&mut self, name: String, shape: &[usize], values: &[i64]) -> Result<()> {
        let expected = whole_numbers(&self.golden.read(&name)?)?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = Tensor::new(DType::I64, shape, bytes);
        if let Ok(tensor) = tensor {
            self.report.computed.push((name.clone(), tensor));
        }
        self.equal(name, values.len(), &values.to_vec(), &expected);
        Ok(())
    }

    /// What is known of the way to the towers' features, and those.
    async fn features(
        &mut self,
        model: &LoadedModel,
        case: &str,
        kind: MediaKind,
        prepared: &[&Arc<Prepared>],
    ) -> Result<()> {
        let tower = model
            .model
            .tower(kind)
            .ok_or_else(|| media::takes_none(kind))?;
        let mut stages: Vec<(String, usize, Vec<f32>)> = Vec::new();
        for prepared in prepared {
            let mut rec = Recorder::new(&model.device);
            let recorded = tower.stages(&mut rec, prepared)?;
            let mut recording = rec.finish()?;
            drop(recording.submit()?.wait().await?);
            for (name, array) in recorded {
                let name = format!("{case}.{name}");
                let values = model.device.read_f32(&array).await?;
                let width = array.shape().last().copied().unwrap_or(1);
                match stages.iter_mut().find(|(n, _, _)| *n == name) {
                    Some((_, _, all)) => all.extend(values),
                    None => stages.push((name, width, values)),
                }
            }
        }
        for (name, width, values) in stages {
            if self.golden.info(&name).is_some() {
                let rows = values.len() / width.max(1);
                self.floats(name, &[rows, width], values)?;
            }
        }
        self.last_features(model, case, kind, prepared).await
    }

    async fn last_features(
        &mut self,
        model: &LoadedModel,
        case: &str,
        kind: MediaKind,
        prepared: &[&Arc<Prepared>],
    ) -> Result<()> {
        let name = format!("{case}.{}_features", kind.name());
        let Some(info) = self.golden.info(&name) else {
            return Ok(());
        };
        let expected = info.shape.dims().to_vec();
        let tower = model
            .model
            .tower(kind)
            .ok_or_else(|| media::takes_none(kind))?;
        let (mut all, mut rows, mut width) = (Vec::new(), 0, 0);
        for prepared in prepared {
            let features = media::encode(&model.device, tower, prepared).await?;
            (rows, width) = (rows + features.shape()[0], features.shape()[1]);
            all.extend(model.device.read_f32(&features).await?);
        }
        // Some families keep a dimension for the batch.
        let shape: Vec<usize> = match expected.len() {
            3 => vec![1, rows, width],
            _ => vec![rows, width],
        };
        self.floats(name, &shape, all)
    }
}

/// Integers of any type, bytes as flags included.
fn whole_numbers(tensor: &Tensor) -> Result<Vec<i64>> {
    let bytes = tensor.bytes();
    Ok(match tensor.dtype() {
        DType::I64 => bytemuck::pod_collect_to_vec(bytes),
        DType::I32 => bytemuck::pod_collect_to_vec::<u8, i32>(bytes)
            .into_iter()
            .map(i64::from)
            .collect(),
        DType::U8 | DType::Bool => bytes.iter().map(|&b| i64::from(b)).collect(),
        other => {
            return Err(Error::malformed(
                "golden.safetensors",
                format!("{other} where whole numbers are expected"),
            ));
        }
    })
}
