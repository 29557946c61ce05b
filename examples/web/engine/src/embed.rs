//! Texts to vectors.

use crate::error::{invalid, to_js};
use crate::files::JsFiles;
use firelight_runtime::checkpoint::Checkpoint;
pub(crate) use firelight_runtime::pipelines::embed::Embedder;
use firelight_runtime::pipelines::embed::{EmbedOptions, Long};
use firelight_runtime::{CancelToken, Engine, Result};
use js_sys::{Float32Array, Function};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use wasm_bindgen::JsValue;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Request {
    prompt: Option<String>,
    normalize: Option<bool>,
    max_tokens: Option<usize>,
    /// `truncate` (default), `mean` or `refuse`.
    long: Option<String>,
}

/// Loads an encoder.
pub(crate) async fn load(
    engine: &Engine,
    checkpoint: Arc<Checkpoint>,
    coming: &JsFiles,
    cancel: &CancelToken,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Embedder, Value)> {
    let load = async || {
        engine
            .load_encoder_checkpoint(Arc::clone(&checkpoint), progress)
            .await
    };
    let model = coming.until_there(cancel, load).await?;
    let spec = model.model.spec().clone();
    let about = json!({
        "family": checkpoint.model_type()?,
        "context": spec.context,
        "vocab": spec.vocab,
        "chat": false,
        "embed": true,
        "dims": spec.hidden,
        "weightBytes": checkpoint.weights().total_bytes(),
        "accepts": {"images": false, "audio": false},
    });
    Ok((Embedder::new(engine, model)?, about))
}

/// Gives JSON about the vectors, and `vectors` all their elements.
pub(crate) async fn embed(
    embedder: &Embedder,
    texts: &str,
    options: &str,
    cancel: CancelToken,
    vectors: &Function,
) -> std::result::Result<String, JsValue> {
    let texts: Vec<String> = serde_json::from_str(texts).map_err(invalid)?;
    let request: Request = serde_json::from_str(options).map_err(invalid)?;
    let long = match request.long.as_deref() {
        None | Some("truncate") => Long::Truncate,
        Some("mean") => Long::Mean { overlap: 0 },
        Some("refuse") => Long::Refuse,
        Some(other) => {
            return Err(invalid(format!(
                "long `{other}`; known: truncate, mean, refuse"
            )));
        }
    };
    let options = EmbedOptions {
        prompt: request.prompt,
        normalize: request.normalize,
        max_tokens: request.max_tokens,
        long,
        cancel,
        ..EmbedOptions::default()
    };
    let made = embedder.embed(&texts, &options).await.map_err(to_js)?;
    let flat: Vec<f32> = made
        .rows
        .iter()
        .flat_map(|r| r.vector.iter().copied())
        .collect();
    vectors.call1(&JsValue::NULL, &Float32Array::from(flat.as_slice()))?;
    let tokens: Vec<usize> = made.rows.iter().map(|r| r.tokens).collect();
    let about = json!({"dims": made.dims, "tokens": tokens, "truncated": made.truncated()});
    Ok(about.to_string())
}
