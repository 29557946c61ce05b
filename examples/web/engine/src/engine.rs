//! [`WebEngine`]: device, model, conversation.

use crate::chat::{ChatRequest, answer};
use crate::error::{invalid, no_model, other_part, to_js, unsupported, watch_panics};
use crate::files::{FileHandle, JsFiles};
use crate::pause::{now, pause, set_turn};
use crate::threads::{Threads, share};
use crate::{media, probe, reports};
use firelight_runtime::checkpoint::{Checkpoint, Config};
use firelight_runtime::media::MediaKind;
use firelight_runtime::{
    CancelToken, DeviceChoice, Engine, EngineOptions, Error, GenerateOptions, Message, Session,
    models,
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
    self_test: Option<bool>,
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
    /// The loaded model, if it is one that hears.
    #[cfg(feature = "audio")]
    speech: RefCell<Option<firelight_runtime::speech::LoadedSpeech>>,
    /// What listens; away while it works.
    #[cfg(feature = "audio")]
    listener: RefCell<Option<crate::sound::Ear>>,
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
            self_test: request.self_test.unwrap_or(true),
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
            #[cfg(feature = "audio")]
            speech: RefCell::new(None),
            #[cfg(feature = "audio")]
            listener: RefCell::new(None),
            epoch: Cell::new(0),
        })
    }

    /// What runs, on what, and what was tried: JSON.
    pub fn report(&self) -> String {
        let report = self.engine.report();
        reports::device(&report, &self.engine.device(), self.created_ms).to_string()
    }

    /// Lets helpers compute their part of large products on the processor's rung from now on.
    ///
    /// # Errors
    /// An object with a code if the device has no use for them.
    pub fn share_with(&self, threads: Threads) -> Outcome<()> {
        share(&self.engine.device(), threads)
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
        let open = async || Checkpoint::from_parts(&name, coming.sources(), side.clone());
        let checkpoint = coming.until_there(&cancel, open).await.map_err(to_js)?;
        let checkpoint = Arc::new(checkpoint);
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
        #[cfg(feature = "audio")]
        if models::speech_families().any(|name| name == family) {
            let loaded =
                crate::sound::load(&self.engine, checkpoint, &coming, &cancel, &mut report);
            let (model, mut about) = loaded.await.map_err(to_js)?;
            if epoch != self.epoch.get() {
                drop(model);
                self.engine.device().trim();
                return Err(to_js(Error::Cancelled));
            }
            about["name"] = name.into();
            self.speech.replace(Some(model));
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
            "transcribe": false,
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
        #[cfg(feature = "audio")]
        if self.speech.borrow().is_some() {
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
        #[cfg(feature = "audio")]
        if self.speech.borrow().is_some() {
            return Err(unsupported(
                "the loaded model writes down what is said and answers nothing",
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

    /// Writes down a recording, an encoded file. `options` is JSON; `on_event(type, json)` gets `language`, `segment`, `progress` and
    /// `moved`. Gives the transcript as JSON.
    ///
    /// # Errors
    /// An object with a code.
    #[cfg_attr(not(feature = "audio"), allow(unused_variables, clippy::unused_async))]
    pub async fn transcribe(
        &self,
        file: js_sys::Uint8Array,
        options: String,
        cancel: &Cancel,
        on_event: Function,
    ) -> Outcome<String> {
        #[cfg(feature = "audio")]
        {
            let (model, cancel) = (self.hears()?, cancel.0.clone());
            let bytes = file.to_vec();
            crate::sound::transcribe(&self.engine, model, &bytes, &options, &cancel, &on_event)
                .await
        }
        #[cfg(not(feature = "audio"))]
        Err(other_part("speech"))
    }

    /// Begins to listen: an utterance under way is forgotten. `options` is JSON. Gives the sample rate, Hz.
    ///
    /// # Errors
    /// An object with a code.
    #[cfg_attr(not(feature = "audio"), allow(unused_variables))]
    pub fn listen(&self, options: String) -> Outcome<u32> {
        #[cfg(feature = "audio")]
        {
            let listener = crate::sound::Ear::open(&self.engine, self.hears()?, &options)?;
            let rate = listener.rate();
            self.listener.replace(Some(listener));
            Ok(rate)
        }
        #[cfg(not(feature = "audio"))]
        Err(other_part("speech"))
    }

    /// Takes mono samples, or ends the utterance under way without any. `on_event(type, json)` gets `start`, `partial` and `final`.
    ///
    /// # Errors
    /// An object with a code.
    #[cfg_attr(not(feature = "audio"), allow(unused_variables, clippy::unused_async))]
    pub async fn hear(
        &self,
        samples: Option<js_sys::Float32Array>,
        cancel: &Cancel,
        on_event: Function,
    ) -> Outcome<()> {
        #[cfg(feature = "audio")]
        {
            let Some(mut listener) = self.listener.take() else {
                return Err(invalid("nothing listens; call listen first"));
            };
            let (epoch, cancel) = (self.epoch.get(), cancel.0.clone());
            let samples = samples.map(|s| s.to_vec());
            let heard = listener.hear(samples.as_deref(), &cancel, &on_event).await;
            if epoch == self.epoch.get() {
                self.listener.replace(Some(listener));
            } else {
                drop(listener);
                self.engine.device().trim();
            }
            heard.map_err(to_js)
        }
        #[cfg(not(feature = "audio"))]
        Err(other_part("speech"))
    }

    /// What a front end makes of a recording, an encoded file: `front` is one's name (`whisper80`, …) or the text of a
    /// `preprocessor_config.json`. Calls `tensor(name, dtype, shape, bytes)` for each tensor. No model is needed.
    ///
    /// # Errors
    /// An object with a code.
    #[cfg_attr(not(feature = "audio"), allow(unused_variables))]
    pub fn features(
        &self,
        file: js_sys::Uint8Array,
        front: String,
        tensor: Function,
    ) -> Outcome<()> {
        #[cfg(feature = "audio")]
        {
            crate::sound::features(&file.to_vec(), &front, &tensor).map_err(to_js)
        }
        #[cfg(not(feature = "audio"))]
        Err(other_part("sound"))
    }

    #[cfg(feature = "audio")]
    fn hears(&self) -> Outcome<firelight_runtime::speech::LoadedSpeech> {
        if let Some(model) = &*self.speech.borrow() {
            return Ok(model.clone());
        }
        if self.session.borrow().is_none() && self.embedder.borrow().is_none() {
            return Err(no_model());
        }
        Err(unsupported(
            "the loaded model does not hear",
            "Load a speech model: whisper-tiny.en, whisper-base.",
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
        #[cfg(feature = "audio")]
        drop((self.listener.take(), self.speech.take()));
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
