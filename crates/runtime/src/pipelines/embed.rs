//! Texts to vectors.
//!
//! ```no_run
//! # async fn f() -> firelight_runtime::Result<()> {
//! use firelight_runtime::pipelines::embed::{EmbedOptions, Embedder, nearest};
//! use firelight_runtime::{Engine, EngineOptions};
//!
//! let engine = Engine::new(EngineOptions::default()).await?;
//! let embedder = Embedder::load(&engine, "all-MiniLM-L6-v2", &mut |_, _| ()).await?;
//! let texts = ["A cat sleeps.", "Two dogs play.", "Shares fell."];
//! let vectors = embedder.embed(&texts, &EmbedOptions::default()).await?.vectors();
//! let query = embedder.embed(&["Animals"], &EmbedOptions::default()).await?.vectors();
//! for (i, similarity) in nearest(&query[0], &vectors, 2) {
//!     println!("{similarity:.3} {}", texts[i]);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Pooling, normalisation, the longest text and prompts are what the model's files say ([`crate::sentence`]), unless the
//! options say otherwise. What is longer is cut, or becomes several chunks, as [`Long`] says; nothing is cut in silence:
//! [`Embedding::truncated`].

use crate::encoder::{EncoderRun, LoadedEncoder, Texts, Tokens, Want};
use crate::engine::Engine;
use crate::sentence::{Pooling, SentenceConfig};
use crate::source::CancelToken;
use crate::{Error, Result};

/// What happens to a text with more tokens than the model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Long {
    /// What is beyond is left out.
    #[default]
    Truncate,
    /// Each piece becomes an embedding of its own.
    Chunks {
        /// Tokens that two neighbouring pieces share.
        overlap: usize,
    },
    /// Pieces are embedded and their vectors averaged, weighted by their tokens.
    Mean {
        /// Tokens that two neighbouring pieces share.
        overlap: usize,
    },
    /// It is an error.
    Refuse,
}

/// How texts are embedded; the default is what the model's files say.
#[derive(Clone, Debug, Default)]
pub struct EmbedOptions {
    /// How hidden states are pooled; `None`: as the files say, else the mean.
    pub pooling: Option<Pooling>,
    /// Scale vectors to length 1; `None`: as the files say.
    pub normalize: Option<bool>,
    /// Tokens of the longest text, special ones counted; `None`: as the files say. Never more than the model's positions.
    pub max_tokens: Option<usize>,
    /// What to do with longer texts.
    pub long: Long,
    /// The name of a prompt of the model's files, or the text itself, to put before every text; `None`: the files' default.
    pub prompt: Option<String>,
    /// Tokens of a batch; `None`: what suits the device.
    pub batch_tokens: Option<usize>,
    /// Ends the work early.
    pub cancel: CancelToken,
}

/// One vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Which text it belongs to.
    pub text: usize,
    /// Which piece of it; 0 unless [`Long::Chunks`] made several.
    pub chunk: usize,
    /// Tokens that went into it, special ones counted.
    pub tokens: usize,
    /// Tokens of the text that were left out.
    pub truncated: usize,
    /// `[D]`.
    pub vector: Vec<f32>,
}

/// What [`Embedder::embed`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// The texts' vectors in their order, a text's pieces next to each other.
    pub rows: Vec<Embedding>,
    /// Elements of a vector.
    pub dims: usize,
    /// The bound that texts were held to.
    pub max_tokens: usize,
}

impl Embeddings {
    /// Only the vectors.
    pub fn vectors(self) -> Vec<Vec<f32>> {
        self.rows.into_iter().map(|row| row.vector).collect()
    }

    /// How many texts were cut.
    pub fn truncated(&self) -> usize {
        self.rows.iter().filter(|row| row.truncated > 0).count()
    }
}

/// An embedding model on a device. See the module's head.
pub struct Embedder {
    run: EncoderRun,
    config: SentenceConfig,
}

/// A piece of a text on its way through the model.
struct Piece {
    text: usize,
    chunk: usize,
    truncated: usize,
}

impl Embedder {
    /// Loads a model's folder onto the engine's device. `progress` gets bytes loaded and bytes in all.
    ///
    /// # Errors
    /// As [`Engine::load_encoder`], and what is wrong with the files of sentence-transformers.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn load(
        engine: &Engine,
        path: impl AsRef<std::path::Path>,
        progress: &mut (dyn FnMut(u64, u64) + '_),
    ) -> Result<Self> {
        let model = engine.load_encoder(path, progress).await?;
        Embedder::new(engine, model)
    }

    /// An embedder of a model that `engine` loaded.
    ///
    /// # Errors
    /// What is wrong with the files of sentence-transformers.
    pub fn new(engine: &Engine, model: LoadedEncoder) -> Result<Self> {
        let config = SentenceConfig::read(&model.checkpoint)?;
        Ok(Embedder {
            run: EncoderRun::new(engine, model),
            config,
        })
    }

    /// The model, where it is now.
    pub fn model(&self) -> LoadedEncoder {
        self.run.model()
    }

    /// What the model's files say.
    pub fn config(&self) -> &SentenceConfig {
        &self.config
    }

    /// The model's batches.
    #[cfg(feature = "vision")]
    pub(crate) fn run(&self) -> &EncoderRun {
        &self.run
    }

    /// Elements of a vector.
    pub fn dims(&self) -> usize {
        let model = self.run.model();
        let spec = model.model.spec();
        match spec.pooler.filter(|_| self.has_own_vector()) {
            Some(dims) => dims,
            None => spec.hidden,
        }
    }

    /// The model itself says what a text's vector is (CLIP, SigLIP), so that nothing is pooled unless it is asked for.
    pub fn has_own_vector(&self) -> bool {
        self.run.model().model.spec().texts != Texts::Whole
    }

    /// Embeds texts.
    ///
    /// # Errors
    /// As [`Embedder::embed_with`].
    pub async fn embed<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &EmbedOptions,
    ) -> Result<Embeddings> {
        self.embed_with(texts, options, &mut |_, _| ()).await
    }

    /// Embeds texts; `progress` gets texts (or pieces) done and in all.
    ///
    /// # Errors
    /// `Limit` for a text that is too long under [`Long::Refuse`], `InvalidInput` for bounds that leave no room or an overlap as
    /// long as a piece, `Text` for text the tokenizer refuses, or what [`EncoderRun::run`] gives.
    pub async fn embed_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &EmbedOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Embeddings> {
        let model = self.run.model();
        let max_tokens = self.max_tokens(options)?;
        let prompt = self.prompt(options);
        let mut pieces = Vec::new();
        let mut inputs = Vec::new();
        for (text, content) in texts.iter().enumerate() {
            let ids = match prompt {
                "" => model.text.tokenizer.encode_plain(content.as_ref(), true)?,
                prompt => {
                    let content = format!("{prompt}{}", content.as_ref());
                    model.text.tokenizer.encode_plain(&content, true)?
                }
            };
            self.cut(
                text,
                ids,
                max_tokens,
                options.long,
                &mut pieces,
                &mut inputs,
            )?;
        }
        let own = self.has_own_vector();
        let want = match options.pooling.or(self.config.pooling) {
            Some(pooling) => pooling.want(),
            None if own => Want::Pooler,
            None => Pooling::Mean.want(),
        };
        let batch = options
            .batch_tokens
            .unwrap_or_else(|| self.run.batch_tokens());
        let vectors = self
            .run
            .run(&inputs, want, batch, &options.cancel, progress)
            .await?;
        let mut rows: Vec<Embedding> = Vec::with_capacity(texts.len());
        for ((piece, input), vector) in pieces.into_iter().zip(&inputs).zip(vectors) {
            rows.push(Embedding {
                text: piece.text,
                chunk: piece.chunk,
                tokens: input.ids.len(),
                truncated: piece.truncated,
                vector,
            });
        }
        if let Long::Mean { .. } = options.long {
            rows = averaged(rows);
        }
        if options.normalize.unwrap_or(self.config.normalize || own) {
            rows.iter_mut().for_each(|row| normalize(&mut row.vector));
        }
        Ok(Embeddings {
            dims: rows.first().map_or(self.dims(), |row| row.vector.len()),
            rows,
            max_tokens,
        })
    }

    /// The bound of a text's tokens.
    fn max_tokens(&self, options: &EmbedOptions) -> Result<usize> {
        let model = self.run.model();
        let context = model.model.spec().context;
        let (before, after) = model.text.tokenizer.around();
        let asked = options.max_tokens.or(self.config.max_tokens);
        let max = asked.unwrap_or(context).min(context);
        if max <= before + after {
            return Err(Error::invalid(format!(
                "at most {max} tokens per text, of which the tokenizer's own take {}; there has to be room for one more",
                before + after
            )));
        }
        Ok(max)
    }

    /// What is put before every text.
    fn prompt<'a>(&'a self, options: &'a EmbedOptions) -> &'a str {
        let named = |name: &String| self.config.prompts.get(name).map(String::as_str);
        match &options.prompt {
            Some(prompt) => named(prompt).unwrap_or(prompt),
            None => self
                .config
                .default_prompt
                .as_ref()
                .and_then(named)
                .unwrap_or(""),
        }
    }

    /// Makes one or several inputs of a text's ids.
    fn cut(
        &self,
        text: usize,
        ids: Vec<u32>,
        max: usize,
        long: Long,
        pieces: &mut Vec<Piece>,
        inputs: &mut Vec<Tokens>,
    ) -> Result<()> {
        let (before, after) = self.run.model().text.tokenizer.around();
        let mut push = |chunk, truncated, ids| {
            pieces.push(Piece {
                text,
                chunk,
                truncated,
            });
            inputs.push(Tokens {
                ids,
                types: Vec::new(),
            });
        };
        if ids.len() <= max {
            push(0, 0, ids);
            return Ok(());
        }
        let (head, rest) = ids.split_at(before.min(ids.len()));
        let (body, tail) = rest.split_at(rest.len() - after.min(rest.len()));
        let room = max - before - after;
        match long {
            Long::Refuse => Err(Error::Limit {
                what: "tokens of a text",
                max: max as u64,
                got: ids.len() as u64,
            }),
            Long::Truncate => {
                let cut = [head, &body[..room], tail].concat();
                push(0, ids.len() - cut.len(), cut);
                Ok(())
            }
            Long::Chunks { overlap } | Long::Mean { overlap } => {
                if overlap >= room {
                    return Err(Error::invalid(format!(
                        "pieces of {room} tokens that share {overlap}; they have to share fewer"
                    )));
                }
                let mut start = 0;
                for chunk in 0.. {
                    let end = (start + room).min(body.len());
                    push(chunk, 0, [head, &body[start..end], tail].concat());
                    if end == body.len() {
                        break;
                    }
                    start = end - overlap;
                }
                Ok(())
            }
        }
    }
}

/// One row per text: the mean of its pieces, weighted by their tokens.
fn averaged(rows: Vec<Embedding>) -> Vec<Embedding> {
    let mut means: Vec<Embedding> = Vec::new();
    for mut row in rows {
        let weight = row.tokens as f32;
        match means.last_mut().filter(|mean| mean.text == row.text) {
            Some(mean) => {
                for (m, v) in mean.vector.iter_mut().zip(&row.vector) {
                    *m += v * weight;
                }
                mean.tokens += row.tokens;
            }
            None => {
                row.vector.iter_mut().for_each(|v| *v *= weight);
                means.push(row);
            }
        }
    }
    for mean in &mut means {
        let weight = mean.tokens as f32;
        mean.vector.iter_mut().for_each(|v| *v /= weight);
    }
    means
}

/// Scales a vector to length 1; one of zeroes stays.
pub fn normalize(vector: &mut [f32]) {
    let length = vector
        .iter()
        .map(|v| f64::from(*v).powi(2))
        .sum::<f64>()
        .sqrt();
    let by = length.max(1e-12);
    vector
        .iter_mut()
        .for_each(|v| *v = (f64::from(*v) / by) as f32);
}

/// The cosine of the angle between two vectors, 0 if one is zero. The longer one's surplus is not looked at.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (f64::from(a), f64::from(b));
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    let lengths = (aa * bb).sqrt();
    if lengths == 0.0 {
        0.0
    } else {
        (ab / lengths) as f32
    }
}

/// The `k` vectors with the largest cosine to `query`, the closest first: their index and the cosine.
pub fn nearest(query: &[f32], vectors: &[Vec<f32>], k: usize) -> Vec<(usize, f32)> {
    let all = vectors.iter().map(|v| cosine(query, v));
    let mut all: Vec<(usize, f32)> = all.enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(k);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_angles() {
        let mut v = [3.0, 4.0];
        normalize(&mut v);
        assert_eq!(v, [0.6, 0.8]);
        let mut zero = [0.0; 3];
        normalize(&mut zero);
        assert_eq!(zero, [0.0; 3]);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert_eq!(cosine(&[1.0, 1.0], &[-2.0, -2.0]), -1.0);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
        let vectors = vec![
            vec![1.0, 0.0],
            vec![0.0, 1.0],
            vec![1.0, 0.1],
            vec![2.0, 0.0],
        ];
        let found: Vec<usize> = nearest(&[1.0, 0.0], &vectors, 3)
            .iter()
            .map(|f| f.0)
            .collect();
        assert_eq!(found, [0, 3, 2]);
    }

    #[test]
    fn pieces_are_averaged_by_their_tokens() {
        let row = |text, chunk, tokens, x: f32| Embedding {
            text,
            chunk,
            tokens,
            truncated: 0,
            vector: vec![x],
        };
        let rows = averaged(vec![
            row(0, 0, 10, 1.0),
            row(0, 1, 5, 4.0),
            row(1, 0, 3, 7.0),
        ]);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].tokens, rows[0].vector[0]), (15, 2.0));
        assert_eq!((rows[1].tokens, rows[1].vector[0]), (3, 7.0));
    }
}
