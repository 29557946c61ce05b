//! Sequence classification: what a text is, how well a passage answers a question, which label fits best.
//!
//! | | |
//! |---|---|
//! | [`Classifier::classify`] | a fine-tuned head's labels, with probabilities |
//! | [`Classifier::rerank`] | a cross-encoder's score of each (query, passage) pair, the best first |
//! | [`zero_shot`] | labels nobody trained for, by the similarity of embeddings |
//!
//! Labels are those of `id2label`. Probabilities are a softmax over the labels, or one sigmoid each where `problem_type` is
//! `multi_label_classification` or there is only one label; for `regression` they are the logits themselves.

use crate::checkpoint::Config;
use crate::encoder::{EncoderRun, Head, LoadedEncoder, Tokens, Want};
use crate::engine::Engine;
use crate::pipelines::embed::{EmbedOptions, Embedder, cosine};
use crate::sentence::SentenceConfig;
use crate::source::CancelToken;
use crate::{Error, Result};
use serde_json::Value;

/// How classes are computed.
#[derive(Clone, Debug, Default)]
pub struct ClassifyOptions {
    /// Tokens of the longest text or pair, special ones counted; `None`: what the files or the model's positions allow.
    pub max_tokens: Option<usize>,
    /// Tokens of a batch; `None`: what suits the device.
    pub batch_tokens: Option<usize>,
    /// Ends the work early.
    pub cancel: CancelToken,
}

/// A label and how sure the model is.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Label {
    /// Its name in `id2label`, or what was asked for.
    pub label: String,
    /// Probability; for regression the value, for [`zero_shot`] the cosine.
    pub score: f32,
}

/// What a text was found to be.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Classified {
    /// All labels, the likeliest first.
    pub labels: Vec<Label>,
    /// Tokens of the text that were left out.
    pub truncated: usize,
}

/// A passage and its score.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Ranked {
    /// Its place among the passages given.
    pub index: usize,
    /// The model's logit: comparable within one query.
    pub score: f32,
    /// Tokens of the pair that were left out.
    pub truncated: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    OneLabel,
    ManyLabels,
    Regression,
}

/// A model with a head for texts, on a device.
pub struct Classifier {
    run: EncoderRun,
    labels: Vec<String>,
    problem: Problem,
    max_tokens: usize,
}

impl Classifier {
    /// Loads a model's folder onto the engine's device. `progress` gets bytes loaded and bytes in all.
    ///
    /// # Errors
    /// As [`Engine::load_encoder`], and `Unsupported` for a model without a head for texts.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn load(
        engine: &Engine,
        path: impl AsRef<std::path::Path>,
        progress: &mut (dyn FnMut(u64, u64) + '_),
    ) -> Result<Self> {
        let model = engine.load_encoder(path, progress).await?;
        Classifier::new(engine, model)
    }

    /// A classifier of a model that `engine` loaded.
    ///
    /// # Errors
    /// `Unsupported` for a model without a head for texts.
    pub fn new(engine: &Engine, model: LoadedEncoder) -> Result<Self> {
        let spec = model.model.spec();
        let Head::Sequence(n) = spec.head else {
            return Err(Error::Unsupported(format!(
                "{}: no head for whole texts (…ForSequenceClassification with `classifier` tensors); it can embed, and so \
                 classify by similarity with labels of your own",
                model.checkpoint.root().display()
            )));
        };
        let problem = match problem_type(&model) {
            Some("regression") => Problem::Regression,
            Some("multi_label_classification") => Problem::ManyLabels,
            _ if n == 1 => Problem::ManyLabels,
            _ => Problem::OneLabel,
        };
        let asked = SentenceConfig::read(&model.checkpoint)?.max_tokens;
        let max_tokens = asked.unwrap_or(spec.context).min(spec.context);
        Ok(Classifier {
            labels: label_names(&model, n),
            problem,
            max_tokens,
            run: EncoderRun::new(engine, model),
        })
    }

    /// The model, where it is now.
    pub fn model(&self) -> LoadedEncoder {
        self.run.model()
    }

    /// The names of the labels.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What each text is.
    ///
    /// # Errors
    /// `Text` for text the tokenizer refuses, or what [`EncoderRun::run`] gives.
    pub async fn classify<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &ClassifyOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Classified>> {
        let model = self.run.model();
        let max = self.bound(options, false)?;
        let (before, after) = model.text.tokenizer.around();
        let mut cuts = Vec::with_capacity(texts.len());
        let mut inputs = Vec::with_capacity(texts.len());
        for text in texts {
            let mut ids = model.text.tokenizer.encode_plain(text.as_ref(), true)?;
            let cut = ids.len().saturating_sub(max);
            let body_end = ids.len() - after.min(ids.len() - before.min(ids.len()));
            ids.drain(body_end - cut..body_end);
            cuts.push(cut);
            inputs.push(Tokens {
                ids,
                types: Vec::new(),
            });
        }
        let logits = self.logits(&inputs, options, progress).await?;
        let results = logits.into_iter().zip(cuts);
        Ok(results
            .map(|(logits, truncated)| Classified {
                labels: self.ranked(&logits),
                truncated,
            })
            .collect())
    }

    /// Scores each passage against the query with a cross-encoder; the best first. Of a pair that is too long the longer
    /// text loses tokens first, as in the reference.
    ///
    /// # Errors
    /// `Unsupported` for a head with several labels or a tokenizer without a template for pairs, `Text` for text the
    /// tokenizer refuses, or what [`EncoderRun::run`] gives.
    pub async fn rerank<T: AsRef<str>>(
        &self,
        query: &str,
        passages: &[T],
        options: &ClassifyOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Ranked>> {
        if self.labels.len() != 1 {
            return Err(Error::Unsupported(format!(
                "a head of {} labels ({}) does not rank; a cross-encoder has one",
                self.labels.len(),
                self.labels.join(", ")
            )));
        }
        let model = self.run.model();
        let tokenizer = &model.text.tokenizer;
        let max = self.bound(options, true)?;
        let query = tokenizer.encode_plain(query, false)?;
        let special = tokenizer.join(&[], &[])?.0.len();
        let mut cuts = Vec::with_capacity(passages.len());
        let mut inputs = Vec::with_capacity(passages.len());
        for passage in passages {
            let passage = tokenizer.encode_plain(passage.as_ref(), false)?;
            let (a, b) = longest_first(query.len(), passage.len(), max.saturating_sub(special));
            cuts.push(query.len() - a + passage.len() - b);
            let (ids, types) = tokenizer.join(&query[..a], &passage[..b])?;
            inputs.push(Tokens { ids, types });
        }
        let logits = self.logits(&inputs, options, progress).await?;
        let mut ranked: Vec<Ranked> = logits
            .iter()
            .zip(cuts)
            .enumerate()
            .map(|(index, (logits, truncated))| Ranked {
                index,
                score: logits.first().copied().unwrap_or(f32::NEG_INFINITY),
                truncated,
            })
            .collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
        Ok(ranked)
    }

    async fn logits(
        &self,
        inputs: &[Tokens],
        options: &ClassifyOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Vec<f32>>> {
        let batch = options
            .batch_tokens
            .unwrap_or_else(|| self.run.batch_tokens());
        self.run
            .run(inputs, Want::Logits, batch, &options.cancel, progress)
            .await
    }

    /// Tokens of the longest input; there is room for at least one token of each text.
    fn bound(&self, options: &ClassifyOptions, pair: bool) -> Result<usize> {
        let model = self.run.model();
        let (before, after) = model.text.tokenizer.around();
        let special = match pair {
            true => model.text.tokenizer.join(&[], &[])?.0.len() + 1,
            false => before + after,
        };
        let context = model.model.spec().context;
        let max = options.max_tokens.unwrap_or(self.max_tokens).min(context);
        if max <= special {
            return Err(Error::invalid(format!(
                "at most {max} tokens, of which the tokenizer's own take {special}; there has to be room for a text"
            )));
        }
        Ok(max)
    }

    fn ranked(&self, logits: &[f32]) -> Vec<Label> {
        let scores: Vec<f32> = match self.problem {
            Problem::Regression => logits.to_vec(),
            Problem::ManyLabels => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            Problem::OneLabel => softmax(logits),
        };
        let pairs = self.labels.iter().zip(scores);
        let mut labels: Vec<Label> = pairs
            .map(|(label, score)| Label {
                label: label.clone(),
                score,
            })
            .collect();
        labels.sort_by(|a, b| b.score.total_cmp(&a.score));
        labels
    }
}

/// Which of `labels` fits each text best, by the cosine between their embeddings; `{}` in `template` stands for the label
/// ("This text is about {}."). The scores are cosines, no probabilities: only their order means something.
///
/// # Errors
/// `InvalidInput` without labels or with a template that has no place for them, or what [`Embedder::embed`] gives.
pub async fn zero_shot<T: AsRef<str>>(
    embedder: &Embedder,
    texts: &[T],
    labels: &[String],
    template: &str,
    options: &EmbedOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Classified>> {
    if labels.is_empty() || !template.contains("{}") {
        return Err(Error::invalid(format!(
            "{} labels and the template {template:?}; give at least one label, and {{}} where it goes",
            labels.len()
        )));
    }
    let written: Vec<String> = labels
        .iter()
        .map(|label| template.replace("{}", label))
        .collect();
    let targets = embedder.embed(&written, options).await?.vectors();
    let found = embedder.embed_with(texts, options, progress).await?;
    let one = |row: crate::pipelines::embed::Embedding| {
        let scores = targets.iter().map(|target| cosine(&row.vector, target));
        let mut ranked: Vec<Label> = labels
            .iter()
            .zip(scores)
            .map(|(label, score)| Label {
                label: label.clone(),
                score,
            })
            .collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        Classified {
            labels: ranked,
            truncated: row.truncated,
        }
    };
    Ok(found.rows.into_iter().map(one).collect())
}

fn problem_type(model: &LoadedEncoder) -> Option<&str> {
    match model.checkpoint.config() {
        Ok(Config::Json(value)) => value.get("problem_type").and_then(Value::as_str),
        _ => None,
    }
}

/// The names of a head's `n` labels: `id2label` of the configuration, else `LABEL_0`, ….
pub(super) fn label_names(model: &LoadedEncoder, n: usize) -> Vec<String> {
    let names = match model.checkpoint.config() {
        Ok(Config::Json(value)) => value.get("id2label"),
        _ => None,
    };
    let name = |i: usize| {
        let name = names
            .and_then(|v| v.get(i.to_string()))
            .and_then(Value::as_str);
        name.map_or_else(|| format!("LABEL_{i}"), str::to_owned)
    };
    (0..n).map(name).collect()
}

/// Numbers to probabilities.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f32> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = logits.iter().map(|x| (x - top).exp()).collect();
    let total: f32 = weights.iter().sum();
    weights.into_iter().map(|w| w / total).collect()
}

/// How many tokens of each of two texts are kept: the longer one loses first; where both lose, the longer one keeps the odd
/// token. Source: `truncate_encodings` of tokenizers 0.23, `LongestFirst`.
fn longest_first(a: usize, b: usize, room: usize) -> (usize, usize) {
    if a + b <= room {
        return (a, b);
    }
    let (half, rest) = (room / 2, room - room / 2);
    match a.min(b) {
        short if short <= half && a <= b => (a, room - a),
        short if short <= half => (room - b, b),
        _ if a <= b => (half, rest),
        _ => (rest, half),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_text_loses_first() {
        assert_eq!(longest_first(3, 4, 7), (3, 4));
        assert_eq!(longest_first(3, 40, 10), (3, 7));
        assert_eq!(longest_first(40, 3, 10), (7, 3));
        assert_eq!(longest_first(8, 8, 7), (3, 4));
        assert_eq!(longest_first(9, 8, 7), (4, 3));
        for (a, b, room) in [(0, 9, 4), (9, 0, 4), (5, 5, 0), (6, 4, 9), (4, 6, 9)] {
            let (x, y) = longest_first(a, b, room);
            assert!(x <= a && y <= b && x + y == room, "{a} {b} {room}");
        }
    }

    #[test]
    fn softmax_of_large_numbers() {
        let p = softmax(&[1000.0, 1000.0, 0.0]);
        assert_eq!(p, [0.5, 0.5, 0.0]);
    }
}
