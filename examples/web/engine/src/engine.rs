//! [`WebEngine`]: device, model, conversation.

use crate::error::{invalid, no_model, other_part, to_js, unsupported, watch_panics};
use crate::files::{FileHandle, JsFiles};
use crate::pause::{now, pause, set_turn};
use crate::{media, probe, reports};
use firelight_runtime::checkpoint::{Checkpoint, Config};
use firelight_runtime::media::{MediaKind, Medium};
use firelight_runtime::stream::Arrivals;
use firelight_runtime::{
    CancelToken, DeviceChoice, Engine, EngineOptions, Error, Event, GenerateOptions, Grammar,
    Message, SampleSettings, Session, models,
};
use js_sys::Function;
use serde::Deserialize;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use wasm_bindgen::prelude::*;

type Outcome<T> = std::result::Result<T, JsValue>;

/// A request to stop, for [`WebEngine::load`] and [`WebEngine::chat`].
#[wasm_bindgen]
#[derive(Clone)]
pub struct Cancel(CancelToken);

#[wasm_bindgen]
impl Cancel {
    /// Nothing is asked yet.
    #[wasm_bindgen(constructor)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Cancel(CancelToken::with_pause(pause))
    }

    /// Asks for a stop at the next step.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CreateRequest {
    device: Option<String>,
    rung: Option<String>,
    exact: bool,
    fast: bool,
    software: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChatRequest {
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    options: ChatOptions,
    #[serde(default)]
    resume: Vec<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ChatOptions {
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
    audio: Option<serde_json::Value>,
    schema: Option<serde_json::Value>,
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

/// The engine of one worker.
#[wasm_bindgen]
pub struct WebEngine {
    engine: Engine,
    created_ms: f64,
    /// The conversation with the loaded model; away while an answer is made.
    session: RefCell<Option<Session>>,
    /// The loaded model, if it is one that gives vectors.
    #[cfg(feature = "embed")]
    embedder: RefCell<Option<std::rc::Rc<crate::embed::Embedder>>>,
    /// Grows with each load and unload: an answer that ends later leaves its session to be freed.
    epoch: Cell<u32>,
}

#[wasm_bindgen]
impl WebEngine {
    /// Chooses a device. `options` is JSON; `turn()` gives a promise that resolves after waiting messages were handled.
    ///
    /// # Errors
    /// An object with a code if nothing that was asked for works.
    pub async fn create(options: String, turn: Function) -> Outcome<WebEngine> {
        watch_panics();
        set_turn(turn);
        let request: CreateRequest = serde_json::from_str(&options).map_err(invalid)?;
        let options = EngineOptions {
            device: match request.device.as_deref() {
                None | Some("auto") => DeviceChoice::Auto,
                Some("gpu") => DeviceChoice::Gpu,
                Some("cpu") => DeviceChoice::Cpu,
                Some(other) => {
                    return Err(invalid(format!("device `{other}`; known: auto, gpu, cpu")));
                }
            },
            rung: request
                .rung
                .map(|r| r.parse())
                .transpose()
                .map_err(invalid)?,
            // The one adapter a browser has, whatever it is: the processor stays below it.
            adapter: request.software.then_some(0),
            exact: request.exact,
            fast: request.fast,
            ..EngineOptions::default()
        };
        let start = now();
        let engine = Engine::new(options).await.map_err(to_js)?;
        Ok(WebEngine {
            engine,
            created_ms: now() - start,
            session: RefCell::new(None),
            #[cfg(feature = "embed")]
            embedder: RefCell::new(None),
            epoch: Cell::new(0),
        })
    }

    /// What runs, on what, and what was tried: JSON.
    pub fn report(&self) -> String {
        let report = self.engine.report();
        reports::device(&report, &self.engine.device(), self.created_ms).to_string()
    }

    /// Device memory: JSON.
    pub fn memory(&self) -> String {
        reports::memory(&self.engine.device()).to_string()
    }

    /// How fast the device is: JSON; takes about a second.
    ///
    /// # Errors
    /// An object with a code if the device fails.
    pub async fn probe(&self) -> Outcome<String> {
        let engine = self.engine.clone();
        Ok(probe::probe(&engine).await.map_err(to_js)?.to_string())
    }

    /// Loads a model; the one before must be unloaded. `weights` are its files with tensors, which may still be arriving,
    /// `side` holds the small files beside them: names and contents. Gives JSON about the model.
    ///
    /// # Errors
    /// An object with a code, or what `weights` threw.
    pub async fn load(
        &self,
        name: String,
        weights: Vec<FileHandle>,
        side_names: Vec<String>,
        side_bytes: Vec<js_sys::Uint8Array>,
        cancel: &Cancel,
        progress: Function,
    ) -> Outcome<String> {
        self.unload();
        let epoch = self.epoch.get();
        let cancel = cancel.0.clone();
        let coming = JsFiles::new(weights);
        let side: BTreeMap<String, Vec<u8>> = side_names
            .into_iter()
            .zip(side_bytes.iter().map(js_sys::Uint8Array::to_vec))
            .collect();
        let checkpoint = loop {
            match Checkpoint::from_parts(&name, coming.sources(), side.clone()) {
                Ok(checkpoint) => break Arc::new(checkpoint),
                Err(e) => match coming.missing() {
                    Some(wait) => wait.await.map_err(to_js)?,
                    None => return Err(to_js(e)),
                },
            }
            if cancel.heard().await {
                return Err(to_js(Error::Cancelled));
            }
        };
        let mut report = |done: u64, total: u64| {
            // A progress function that throws must not end the load.
            let _ = progress.call2(
                &JsValue::NULL,
                &(done as f64).into(),
                &(total as f64).into(),
            );
        };
        let family = checkpoint.model_type().map_err(to_js)?;
        if cfg!(not(feature = "everything")) && !is_text(&checkpoint, &family).map_err(to_js)? {
            return Err(other_part(&format!("models of the family `{family}`")));
        }
        #[cfg(feature = "embed")]
        if models::encoder_families().any(|name| name == family) {
            let loaded =
                crate::embed::load(&self.engine, checkpoint, &coming, &cancel, &mut report);
            let (embedder, mut about) = loaded.await.map_err(to_js)?;
            if epoch != self.epoch.get() {
                drop(embedder);
                self.engine.device().trim();
                return Err(to_js(Error::Cancelled));
            }
            about["name"] = name.into();
            self.embedder.replace(Some(std::rc::Rc::new(embedder)));
            return Ok(about.to_string());
        }
        let model = self
            .engine
            .load_arriving(checkpoint, &coming, &cancel, &mut report)
            .await
            .map_err(to_js)?;
        if epoch != self.epoch.get() {
            self.engine.dispose(model);
            return Err(to_js(Error::Cancelled));
        }
        let spec = model.model.spec();
        let about = json!({
            "name": name,
            "family": family,
            "context": spec.context,
            "vocab": spec.vocab,
            "chat": model.text.template.is_some(),
            "embed": false,
            "weightBytes": model.checkpoint.weights().total_bytes(),
            "accepts": {
                "images": media::accepts(&model, MediaKind::Image),
                "audio": false,
            },
        });
        let session = Session::new(&self.engine, &model).map_err(to_js)?;
        self.session.replace(Some(session));
        Ok(about.to_string())
    }

    /// Makes the pipelines of an answer's steps, so that the first answer does not wait for them.
    ///
    /// # Errors
    /// An object with a code if the device fails.
    pub async fn warm_up(&self, cancel: &Cancel) -> Outcome<()> {
        #[cfg(feature = "embed")]
        if self.embedder().is_some() {
            return Ok(());
        }
        let Some(mut session) = self.session.take() else {
            return Err(no_model());
        };
        let epoch = self.epoch.get();
        let options = GenerateOptions {
            max_tokens: 2,
            ignore_eos: true,
            ..Default::default()
        };
        let cancel = cancel.0.clone();
        let outcome = session.generate(&[0], &options, &cancel, &mut |_| ()).await;
        session.state().clear();
        self.put_back(session, epoch);
        outcome.map(|_| ()).map_err(to_js)
    }

    /// Tokens of a conversation, and the context: JSON.
    ///
    /// # Errors
    /// An object with a code.
    pub fn count(&self, messages: String) -> Outcome<String> {
        let messages: Vec<Message> = serde_json::from_str(&messages).map_err(invalid)?;
        let session = self.session.borrow();
        let session = session.as_ref().ok_or_else(no_model)?;
        let text = &session.model().text;
        let rendered = text.render(&messages, true).map_err(to_js)?;
        let tokens = text.encode_rendered(&rendered).map_err(to_js)?.len();
        let context = session.model().model.spec().context;
        Ok(json!({"tokens": tokens, "context": context}).to_string())
    }

    /// Answers. `request` is JSON, `images` are encoded pictures in the order of the messages' parts; `on_event(type, text, ids)` gets
    /// `start` (ids: how many prompt tokens, pictures not counted), `token`, `moved` (text: why) and `scaled` (text: how). Gives JSON
    /// of the finished answer.
    ///
    /// # Errors
    /// An object with a code.
    pub async fn chat(
        &self,
        request: String,
        images: Vec<js_sys::Uint8Array>,
        cancel: &Cancel,
        on_event: Function,
    ) -> Outcome<String> {
        let request: ChatRequest = serde_json::from_str(&request).map_err(invalid)?;
        let options = &request.options;
        if options.audio.is_some() {
            return Err(unsupported(
                "`audio`: not in this engine",
                "Leave it out; `device().features` says what this engine can do.",
            ));
        }
        #[cfg(feature = "embed")]
        if self.embedder().is_some() {
            return Err(unsupported(
                "the loaded model gives vectors and writes no text",
                "Load a language model.",
            ));
        }
        if options.schema.is_some() && cfg!(not(feature = "grammar")) {
            return Err(other_part("answers under a schema"));
        }
        let pictures = match &*self.session.borrow() {
            Some(session) => media::pictures(session.model(), &images)?,
            None => return Err(no_model()),
        };
        let Some(mut session) = self.session.take() else {
            return Err(no_model());
        };
        let epoch = self.epoch.get();
        let cancel = cancel.0.clone();
        let outcome = answer(&mut session, &request, pictures, &cancel, &on_event).await;
        self.put_back(session, epoch);
        outcome.map_err(to_js)
    }

    /// Vectors of texts. `texts` and `options` are JSON; gives JSON about them, and calls `vectors` with the elements of all, one
    /// text's after the other's.
    ///
    /// # Errors
    /// An object with a code.
    #[cfg_attr(not(feature = "embed"), allow(unused_variables, clippy::unused_async))]
    pub async fn embed(
        &self,
        texts: String,
        options: String,
        cancel: &Cancel,
        vectors: Function,
    ) -> Outcome<String> {
        #[cfg(feature = "embed")]
        if let Some(embedder) = self.embedder() {
            let cancel = cancel.0.clone();
            return crate::embed::embed(&embedder, &texts, &options, cancel, &vectors).await;
        }
        if self.session.borrow().is_none() {
            return Err(no_model());
        }
        Err(unsupported(
            "the loaded model writes text and gives no vectors",
            "Load an embedding model.",
        ))
    }

    #[cfg(feature = "embed")]
    fn embedder(&self) -> Option<std::rc::Rc<crate::embed::Embedder>> {
        self.embedder.borrow().clone()
    }

    fn put_back(&self, session: Session, epoch: u32) {
        if epoch == self.epoch.get() {
            self.session.replace(Some(session));
        } else {
            drop(session);
            self.engine.device().trim();
        }
    }

    /// Frees the model. An answer under way frees it when it ends.
    pub fn unload(&self) {
        self.epoch.set(self.epoch.get().wrapping_add(1));
        drop(self.session.take());
        #[cfg(feature = "embed")]
        drop(self.embedder.take());
        self.engine.device().trim();
    }

    /// Makes the GPU device fail as a driver reset would.
    pub fn simulate_loss(&self) {
        self.engine.device().simulate_loss();
    }
}

/// Whether the engine for text alone can do all that a model can.
fn is_text(checkpoint: &Checkpoint, family: &str) -> firelight_runtime::Result<bool> {
    let sees_or_hears = match checkpoint.config()? {
        Config::Json(config) => ["vision_config", "audio_config"]
            .iter()
            .any(|part| config.get(part).is_some_and(|v| !v.is_null())),
        Config::Gguf(_) => false,
    };
    Ok(models::families().any(|name| name == family) && !sees_or_hears)
}

async fn answer(
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
