//! Pictures to vectors in the space of texts (CLIP, SigLIP), and labels for them that nobody trained for.
//!
//! ```no_run
//! # async fn f() -> firelight_runtime::Result<()> {
//! use firelight_runtime::pipelines::embed::Embedder;
//! use firelight_runtime::pipelines::pictures::PictureOptions;
//! use firelight_runtime::{Engine, EngineOptions};
//!
//! let engine = Engine::new(EngineOptions::default()).await?;
//! let embedder = Embedder::load(&engine, "siglip-base-patch16-224", &mut |_, _| ()).await?;
//! let picture = firelight_vision::decode(&std::fs::read("photo.jpg").unwrap_or_default())?;
//! let labels = ["a cat", "a dog"].map(String::from);
//! let options = PictureOptions::default();
//! for label in &embedder.label_pictures(&[picture], &labels, "This is a photo of {}.", &options).await?[0] {
//!     println!("{:.3} {}", label.score, label.label);
//! }
//! # Ok(())
//! # }
//! ```

use crate::encoder::{PictureSpec, Want};
use crate::pipelines::classify::Label;
use crate::pipelines::embed::{EmbedOptions, Embedder, cosine, normalize};
use crate::source::CancelToken;
use crate::{Error, Result};
use firelight_tensor::Tensor;
use firelight_vision::Image;

/// How pictures are embedded.
#[derive(Clone, Debug, Default)]
pub struct PictureOptions {
    /// Leave vectors at the length the model gives; the default is length 1.
    pub raw: bool,
    /// Pictures of a batch; `None`: what suits the device.
    pub batch: Option<usize>,
    /// Ends the work early.
    pub cancel: CancelToken,
}

impl Embedder {
    /// What the model makes of pictures; `None`: it reads texts alone.
    pub fn pictures(&self) -> Option<PictureSpec> {
        let model = self.model();
        Some(model.model.pictures()?.spec().clone())
    }

    /// Vectors of pictures, comparable with those of texts.
    ///
    /// # Errors
    /// `Unsupported` for a model that reads texts alone, or what [`EncoderRun::run_pictures`](crate::encoder::EncoderRun::run_pictures)
    /// gives.
    pub async fn embed_pictures(
        &self,
        pictures: &[Image],
        options: &PictureOptions,
    ) -> Result<Vec<Vec<f32>>> {
        let model = self.model();
        let prepared = pictures
            .iter()
            .map(|p| model.prepare(p))
            .collect::<Result<Vec<_>>>()?;
        self.embed_prepared(&prepared, options).await
    }

    /// As [`Embedder::embed_pictures`], for pictures that [`LoadedEncoder::prepare`](crate::LoadedEncoder::prepare) made ready.
    ///
    /// # Errors
    /// As [`Embedder::embed_pictures`].
    pub async fn embed_prepared(
        &self,
        prepared: &[Tensor],
        options: &PictureOptions,
    ) -> Result<Vec<Vec<f32>>> {
        let run = self.run();
        let batch = match options.batch {
            Some(batch) => batch,
            None => run.batch_pictures()?,
        };
        let mut vectors = run
            .run_pictures(
                prepared,
                Want::Pooler,
                batch,
                &options.cancel,
                &mut |_, _| (),
            )
            .await?;
        if !options.raw {
            vectors.iter_mut().for_each(|v| normalize(v));
        }
        Ok(vectors)
    }

    /// Vectors of `labels` put into words: `{}` in `template` stands for the label.
    ///
    /// # Errors
    /// `InvalidInput` without labels or with a template that has no place for them, or what [`Embedder::embed`] gives.
    pub async fn embed_labels(&self, labels: &[String], template: &str) -> Result<Vec<Vec<f32>>> {
        if labels.is_empty() || !template.contains("{}") {
            return Err(Error::invalid(format!(
                "{} labels and the template {template:?}; give at least one label, and {{}} where it goes",
                labels.len()
            )));
        }
        let written = labels.iter().map(|label| template.replace("{}", label));
        let written: Vec<String> = written.collect();
        Ok(self
            .embed(&written, &EmbedOptions::default())
            .await?
            .vectors())
    }

    /// The labels of a picture's vector with their probabilities, the likeliest first; `vectors` are the labels'.
    ///
    /// # Errors
    /// `Unsupported` for a model that reads texts alone.
    pub fn rank_labels(
        &self,
        picture: &[f32],
        labels: &[String],
        vectors: &[Vec<f32>],
    ) -> Result<Vec<Label>> {
        let similarity = self.model().sees()?.spec().similarity;
        let cosines: Vec<f32> = vectors.iter().map(|v| cosine(picture, v)).collect();
        let scores = similarity.probabilities(&cosines);
        let mut ranked: Vec<Label> = labels
            .iter()
            .zip(scores)
            .map(|(label, score)| Label {
                label: label.clone(),
                score,
            })
            .collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(ranked)
    }

    /// Which of `labels` fit each picture. Probabilities are shared among the labels (CLIP), or each label has its own (SigLIP).
    ///
    /// # Errors
    /// As [`Embedder::embed_pictures`] and [`Embedder::embed_labels`].
    pub async fn label_pictures(
        &self,
        pictures: &[Image],
        labels: &[String],
        template: &str,
        options: &PictureOptions,
    ) -> Result<Vec<Vec<Label>>> {
        let vectors = self.embed_labels(labels, template).await?;
        let pictures = self.embed_pictures(pictures, options).await?;
        pictures
            .iter()
            .map(|picture| self.rank_labels(picture, labels, &vectors))
            .collect()
    }

    /// Embeds `count` pictures that `open` reads, on threads of its own, while the device works on those before. `each` gets a
    /// picture's number and its vector or what is wrong with it, in any order; its own error ends the work.
    ///
    /// # Errors
    /// As [`Embedder::embed_pictures`], but for what is wrong with single pictures; `Cancelled`.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn embed_each(
        &self,
        count: usize,
        open: impl Fn(usize) -> Result<Image> + Send + Sync + 'static,
        options: &PictureOptions,
        each: &mut dyn FnMut(usize, Result<Vec<f32>>) -> Result<()>,
    ) -> Result<()> {
        let batch = match options.batch {
            Some(batch) => batch.max(1),
            None => self.run().batch_pictures()?,
        };
        let model = self.model();
        let prepared = super::feed::start(count, batch, move |i| model.prepare(&open(i)?));
        loop {
            if options.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let (mut numbers, mut tensors) = (Vec::new(), Vec::new());
            while numbers.len() < batch {
                match prepared.recv() {
                    Ok((i, Ok(tensor))) => {
                        numbers.push(i);
                        tensors.push(tensor);
                    }
                    Ok((i, Err(e))) => each(i, Err(e))?,
                    Err(_) => break,
                }
            }
            if numbers.is_empty() {
                return Ok(());
            }
            let vectors = self.embed_prepared(&tensors, options).await?;
            for (i, vector) in numbers.into_iter().zip(vectors) {
                each(i, Ok(vector))?;
            }
        }
    }
}
