//! Mean next-token loss of a model over a text.
//!
//! ```no_run
//! # use firelight_runtime::{Engine, EngineOptions, pipelines::perplexity::perplexity};
//! # async fn example() -> firelight_runtime::Result<()> {
//! let engine = Engine::new(EngineOptions::default()).await?;
//! let model = engine.load("model.gguf", &mut |_, _| ()).await?;
//! let ids = model.text.encode_text("It was a bright cold day in April")?;
//! let result = perplexity(&model, &ids, 512, &mut |_, _| ()).await?;
//! assert!(result.ppl >= 1.0);
//! # Ok(()) }
//! ```

use crate::engine::LoadedModel;
use crate::state::State;
use crate::{Error, Result};

/// A text's loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// Mean negative log-likelihood of the next token, in nats.
    pub nll: f64,
    /// `exp(nll)`.
    pub ppl: f64,
    /// Tokens predicted.
    pub tokens: usize,
}

/// Splits `ids` into windows of `ctx` tokens, each on its own, and averages the loss of every token given those before it in
/// its window (the first of a window is not predicted). `on_progress` gets tokens done and tokens in all.
///
/// # Errors
/// `InvalidInput` for fewer than two tokens or a window under two, `BadLogits`, `Device`.
pub async fn perplexity(
    model: &LoadedModel,
    ids: &[u32],
    ctx: usize,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<Perplexity> {
    if ids.len() < 2 || ctx < 2 {
        return Err(Error::invalid(format!(
            "{} tokens in windows of {ctx}: at least two of each are needed to predict one",
            ids.len()
        )));
    }
    let vocab = model.model.spec().vocab;
    let mut state = State::new(&model.device, &model.model)?;
    let (mut sum, mut count, mut done) = (0f64, 0usize, 0usize);
    for window in ids.chunks(ctx.min(model.model.spec().context)) {
        if window.len() > 1 {
            state
                .logits(window, |first, logits| {
                    for (i, row) in logits.chunks_exact(vocab).enumerate() {
                        let Some(&next) = window.get(first + i + 1) else {
                            break;
                        };
                        let loss = loss(row, next as usize);
                        if !loss.is_finite() {
                            return Err(Error::BadLogits {
                                position: first + i,
                            });
                        }
                        sum += loss;
                        count += 1;
                    }
                    on_progress(done + first + logits.len() / vocab, ids.len());
                    Ok(())
                })
                .await?;
        }
        done += window.len();
    }
    let nll = sum / count.max(1) as f64;
    Ok(Perplexity {
        nll,
        ppl: nll.exp(),
        tokens: count,
    })
}

/// `−ln softmax(logits)[target]`.
fn loss(logits: &[f32], target: usize) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - top).exp()).sum();
    sum.ln() - f64::from(logits[target] - top)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_of_even_logits_is_the_log_of_their_number() {
        assert!((loss(&[3.0; 8], 5) - 8f64.ln()).abs() < 1e-12);
        assert!(loss(&[0.0, 50.0], 1) < 1e-9);
        assert!(loss(&[0.0, f32::NAN], 1).is_nan());
    }
}
