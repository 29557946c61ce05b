//! How fast this device is, without a model: a synthetic one runs for about a second.

use crate::pause::{now, pause};
use firelight_kernels::{DType, Holder};
use firelight_runtime::pipelines::synthetic::synthetic;
use firelight_runtime::{CancelToken, Engine, Result, SampleSettings, State};
use serde_json::{Value, json};
use std::sync::Arc;

/// Two layers as wide as a model of a billion parameters has: 16 MB at four bits, read once per token.
const CONFIG: &[u8] = br#"{"model_type": "llama", "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 2,
    "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 4096, "max_position_embeddings": 512}"#;
const PROMPT: usize = 64;
const MILLISECONDS: f64 = 500.0;

/// Weight bytes per second in decoding, multiply-adds per second in prefill, and how long an empty wait takes.
pub(crate) async fn probe(engine: &Engine) -> Result<Value> {
    let checkpoint = Arc::new(synthetic(CONFIG, "q4")?);
    let model = engine.load_checkpoint(checkpoint, &mut |_, _| ()).await?;
    let device = model.device.clone();
    // A tied embedding is read once per token, as the head.
    let weights = device.memory().bytes(Holder::Weights) as f64;
    let mut state = State::new(&device, &model.model)?;
    let cancel = CancelToken::with_pause(pause);
    let prompt: Vec<u32> = (0..PROMPT as u32).map(|i| i * 7919 % 4096).collect();
    let mut prefill = f64::INFINITY;
    // The first run makes the pipelines.
    for _ in 0..3 {
        state.clear();
        let start = now();
        state
            .begin(&prompt, SampleSettings::default(), 400, 512, &cancel)
            .await?;
        state.next().await?;
        prefill = prefill.min(now() - start);
    }
    state.next().await?;
    let (start, mut tokens) = (now(), 0.0);
    while now() - start < MILLISECONDS && state.next().await?.is_some() {
        tokens += 1.0;
        cancel.heard().await;
    }
    let per_token = (now() - start) / f64::max(tokens, 1.0);
    state.stop();
    drop(state);
    engine.dispose(model);
    let start = now();
    let array = device.upload(DType::U32, &[4 << 20], &vec![0; 16 << 20], Holder::User)?;
    device.flushed().await?;
    let upload = now() - start;
    drop(array);
    let start = now();
    device.flushed().await?;
    let round_trip = now() - start;
    device.trim();
    // Four-bit weights have 18 bytes per 32.
    let parameters = weights * 32.0 / 18.0;
    Ok(json!({
        "decodeBytesPerSecond": weights / per_token * 1e3,
        "prefillMacsPerSecond": parameters * PROMPT as f64 / prefill * 1e3,
        "uploadBytesPerSecond": f64::from(16 << 20) / upload.max(0.01) * 1e3,
        "roundTripMs": round_trip,
        "msPerToken": per_token,
    }))
}
