//! An answer: what JavaScript asks for, and what it is told.

use firelight_runtime::media::Medium;
use firelight_runtime::{
    CancelToken, Event, GenerateOptions, Grammar, Message, SampleSettings, Session,
};
use js_sys::Function;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use wasm_bindgen::JsValue;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChatRequest {
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    pub(crate) options: ChatOptions,
    #[serde(default)]
    resume: Vec<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ChatOptions {
    system: Option<String>,
    prompt: Option<String>,
    max_tokens: Option<usize>,
    greedy: bool,
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: Option<f64>,
    stop: Vec<String>,
    context: Option<usize>,
    ignore_eos: bool,
    pub(crate) audio: Option<serde_json::Value>,
    pub(crate) schema: Option<serde_json::Value>,
}

impl ChatOptions {
    fn sampling(&self) -> SampleSettings {
        let greedy = SampleSettings::default();
        if self.greedy {
            return greedy;
        }
        SampleSettings {
            temperature: self.temperature.unwrap_or(0.7),
            top_k: self.top_k.unwrap_or(40),
            top_p: self.top_p.unwrap_or(0.95),
            min_p: self.min_p.unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
            seed: self.seed.unwrap_or(0.0) as u64,
        }
    }
}

/// Answers with what `on_event` is told on the way; gives JSON of the finished answer.
pub(crate) async fn answer(
    session: &mut Session,
    request: &ChatRequest,
    media: Vec<Medium>,
    cancel: &CancelToken,
    on_event: &Function,
) -> firelight_runtime::Result<String> {
    let options = &request.options;
    let text = Arc::clone(&session.model().text);
    let mut messages = request.messages.clone();
    if let Some(system) = &options.system
        && messages.first().is_none_or(|m| m.role != "system")
    {
        messages.insert(0, Message::system(system.as_str()));
    }
    let prompt = match &options.prompt {
        Some(prompt) => text.encode_text(prompt)?,
        None => text.encode_rendered(&text.render(&messages, true)?)?,
    };
    let generate = GenerateOptions {
        sampling: options.sampling(),
        max_tokens: options.max_tokens.unwrap_or(1024),
        stop: options.stop.clone(),
        ignore_eos: options.ignore_eos,
        context: options.context,
        resume: request.resume.clone(),
        grammar: options.schema.clone().map(Grammar::JsonSchema),
        media,
        ..Default::default()
    };
    let send = |kind: &str, text: &str, ids: &[u32]| {
        // A listener that throws must not end the answer.
        let ids = js_sys::Uint32Array::from(ids);
        let _ = on_event.call3(&JsValue::NULL, &kind.into(), &text.into(), &ids);
    };
    send("start", "", &[prompt.len() as u32]);
    let mut ids = Vec::new();
    let mut listen = |event| match event {
        Event::Token(id) => ids.push(id),
        Event::Text(text) => send("token", &text, &std::mem::take(&mut ids)),
        Event::Moved { why, .. } => send("moved", &why, &[]),
        // The page is told of no tools.
        Event::Call(_) => {}
        Event::Scaled { from, to } => {
            let how = format!("{to} tokens of pictures instead of {from}");
            send("scaled", &how, &[]);
        }
    };
    let answer = match options.prompt {
        Some(_) => {
            session
                .generate(&prompt, &generate, cancel, &mut listen)
                .await?
        }
        None => {
            session
                .chat(&messages, &generate, cancel, &mut listen)
                .await?
        }
    };
    let (_, encode) = session.state().decode_cost();
    let context = session.model().model.spec().context;
    Ok(json!({
        "text": answer.text,
        "ids": answer.ids,
        "finish": answer.finish.name(),
        "stats": {
            "promptTokens": answer.prompt_ids.len(),
            "prefilled": answer.prefilled,
            "tokens": answer.ids.len(),
            "ttftMs": answer.ttft.as_secs_f64() * 1e3,
            "prefillTps": answer.prefill_tps(),
            "decodeTps": answer.decode_tps(),
            "encodeMsPerToken": encode.as_secs_f64() * 1e3,
            "contextUsed": answer.prompt_ids.len() + answer.ids.len(),
            "context": context,
        },
    })
    .to_string())
}
