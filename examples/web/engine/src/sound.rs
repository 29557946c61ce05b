//! Speech to text: recordings, and sound while it is recorded.

use crate::error::{invalid, to_js};
use crate::files::JsFiles;
use firelight_audio::{DecodeOptions, Decoder, Resampler};
use firelight_runtime::checkpoint::Checkpoint;
use firelight_runtime::pipelines::features::FrontEnd;
use firelight_runtime::pipelines::listen::{self, Listener};
use firelight_runtime::pipelines::transcribe::{self, Task, Transcriber};
use firelight_runtime::speech::LoadedSpeech;
use firelight_runtime::{CancelToken, Engine, Error, Result};
use js_sys::{Array, Function, Uint8Array, Uint32Array};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use wasm_bindgen::JsValue;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Request {
    /// `transcribe` (default) or `translate`.
    task: Option<String>,
    language: Option<String>,
    /// `none`, `segment` (default) or `word`.
    timestamps: Option<String>,
    prompt: Option<String>,
    hotwords: Option<String>,
    vad: bool,
    /// Live: seconds of new sound between partial texts; 0: none.
    partial: Option<f64>,
    /// Live: seconds of silence that end an utterance.
    pause: Option<f64>,
    /// Live: Hz of the samples to come; the model's own if there is none.
    rate: Option<u32>,
}

impl Request {
    fn read(json: &str) -> std::result::Result<Self, JsValue> {
        serde_json::from_str(json).map_err(invalid)
    }

    fn apply(&self, options: &mut transcribe::Options) -> std::result::Result<(), JsValue> {
        options.task = match self.task.as_deref() {
            None | Some("transcribe") => Task::Transcribe,
            Some("translate") => Task::Translate,
            Some(other) => {
                return Err(invalid(format!(
                    "task `{other}`; known: transcribe, translate"
                )));
            }
        };
        (options.timestamps, options.word_timestamps) = match self.timestamps.as_deref() {
            None => (options.timestamps, false),
            Some("none") => (false, false),
            Some("segment") => (true, false),
            Some("word") => (true, true),
            Some(other) => {
                return Err(invalid(format!(
                    "timestamps `{other}`; known: none, segment, word"
                )));
            }
        };
        options.language.clone_from(&self.language);
        options.prompt.clone_from(&self.prompt);
        options.hotwords.clone_from(&self.hotwords);
        options.vad = self.vad;
        Ok(())
    }
}

/// Loads a speech model.
pub(crate) async fn load(
    engine: &Engine,
    checkpoint: Arc<Checkpoint>,
    coming: &JsFiles,
    cancel: &CancelToken,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(LoadedSpeech, Value)> {
    let load = async || {
        engine
            .load_speech_checkpoint(Arc::clone(&checkpoint), progress)
            .await
    };
    let model = coming.until_there(cancel, load).await?;
    let decoder = &model.model.spec().decoder;
    let about = json!({
        "family": checkpoint.model_type()?,
        "context": decoder.context,
        "vocab": decoder.vocab,
        "chat": false,
        "embed": false,
        "transcribe": true,
        "weightBytes": checkpoint.weights().total_bytes(),
        "accepts": {"images": false, "audio": false},
    });
    Ok((model, about))
}

/// Gives a file's mono samples at `rate` Hz, about a second at a time, with the length of the whole in seconds where the file says it.
struct Recording<'a> {
    decoder: Decoder<'a>,
    resampler: Resampler,
    rate: u32,
    samples: Vec<f32>,
    ended: bool,
}

impl<'a> Recording<'a> {
    fn open(file: &'a [u8], rate: u32) -> Result<Self> {
        let decoder = Decoder::new(file, &DecodeOptions::default())?;
        Ok(Recording {
            resampler: Resampler::new(decoder.rate(), rate)?,
            decoder,
            rate,
            samples: Vec::new(),
            ended: false,
        })
    }

    fn seconds(&self) -> Option<f64> {
        let n = self.decoder.promised_samples()?;
        Some(n as f64 / f64::from(self.decoder.rate()))
    }

    /// The next samples; `None` at the end.
    fn next(&mut self) -> Result<Option<&[f32]>> {
        if self.ended {
            return Ok(None);
        }
        self.samples.clear();
        while self.samples.len() < self.rate as usize {
            let Some(block) = self.decoder.next_block()? else {
                self.resampler.finish(&mut self.samples);
                self.ended = true;
                break;
            };
            self.resampler.push(block, &mut self.samples)?;
        }
        Ok(Some(&self.samples))
    }
}

/// Writes down a recording in a file of any format that is read. `on_event(type, json)` gets `language`, `segment`, `progress` (seconds
/// done, and in all where the file says it) and `moved`. Gives the transcript as JSON.
pub(crate) async fn transcribe(
    engine: &Engine,
    model: LoadedSpeech,
    file: &[u8],
    options: &str,
    cancel: &CancelToken,
    on_event: &Function,
) -> std::result::Result<String, JsValue> {
    let mut wanted = transcribe::Options::default();
    Request::read(options)?.apply(&mut wanted)?;
    let written = written(engine, model, file, wanted, cancel, on_event).await;
    Ok(written.map_err(to_js)?.to_string())
}

async fn written(
    engine: &Engine,
    model: LoadedSpeech,
    file: &[u8],
    options: transcribe::Options,
    cancel: &CancelToken,
    on_event: &Function,
) -> Result<Value> {
    let live = model.clone();
    let mut transcriber = match Transcriber::new(engine, model, options.clone()) {
        Ok(transcriber) => transcriber,
        // A model without times: utterance by utterance, as if it were being said.
        Err(Error::Unsupported(_)) => {
            return overheard(engine, live, file, options, cancel, on_event).await;
        }
        Err(e) => return Err(e),
    };
    let mut recording = Recording::open(file, transcriber.rate())?;
    let total = recording.seconds();
    let mut tell = |event: transcribe::Event| {
        let (kind, what) = match event {
            transcribe::Event::Language(code, probability) => (
                "language",
                json!({"language": code, "probability": probability}),
            ),
            transcribe::Event::Segment(segment) => ("segment", json!({"segment": segment})),
            transcribe::Event::Progress(done) => {
                ("progress", json!({"done": done, "total": total}))
            }
            transcribe::Event::Moved(why) => ("moved", json!({"why": why})),
        };
        send(on_event, kind, &what);
    };
    while let Some(samples) = recording.next()? {
        transcriber.push(samples, cancel, &mut tell).await?;
    }
    let transcript = transcriber.finish(cancel, &mut tell).await?;
    Ok(json!({
        "text": transcript.text(),
        "language": transcript.language,
        "languageProbability": transcript.language_probability,
        "duration": transcript.duration,
        "segments": transcript.segments,
    }))
}

async fn overheard(
    engine: &Engine,
    model: LoadedSpeech,
    file: &[u8],
    options: transcribe::Options,
    cancel: &CancelToken,
    on_event: &Function,
) -> Result<Value> {
    let wanted = listen::Options {
        transcribe: transcribe::Options {
            timestamps: false,
            ..options
        },
        partial: 0.0,
        ..listen::Options::default()
    };
    let mut listener = Listener::new(engine, model, wanted)?;
    let rate = f64::from(listener.rate());
    let mut recording = Recording::open(file, listener.rate())?;
    let total = recording.seconds();
    let mut segments = Vec::new();
    let mut tell = |event: listen::Event| {
        if let listen::Event::Final(said) = event
            && !said.text.is_empty()
        {
            let segment = json!({"start": said.start, "end": said.end, "text": said.text});
            send(on_event, "segment", &json!({"segment": segment}));
            segments.push(segment);
        }
    };
    let mut heard = 0;
    while let Some(samples) = recording.next()? {
        heard += samples.len();
        listener.push(samples, cancel, &mut tell).await?;
        let done = heard as f64 / rate;
        send(on_event, "progress", &json!({"done": done, "total": total}));
    }
    listener.finish(cancel, &mut tell).await?;
    let texts: Vec<&str> = segments.iter().filter_map(|s| s["text"].as_str()).collect();
    Ok(json!({
        "text": texts.join(" "),
        "language": null,
        "languageProbability": null,
        "duration": heard as f64 / rate,
        "segments": segments,
    }))
}

/// What listens, at the microphone's rate.
pub(crate) struct Ear {
    listener: Listener,
    resampler: Resampler,
    rate: u32,
}

impl Ear {
    /// Begins to listen.
    pub(crate) fn open(
        engine: &Engine,
        model: LoadedSpeech,
        options: &str,
    ) -> std::result::Result<Self, JsValue> {
        let request = Request::read(options)?;
        let mut wanted = listen::Options::default();
        request.apply(&mut wanted.transcribe)?;
        wanted.transcribe.timestamps = false;
        wanted.partial = request.partial.unwrap_or(wanted.partial);
        wanted.pause = request.pause.unwrap_or(wanted.pause);
        let listener = Listener::new(engine, model, wanted).map_err(to_js)?;
        let rate = request.rate.unwrap_or(listener.rate());
        let resampler = Resampler::new(rate, listener.rate());
        Ok(Ear {
            resampler: resampler.map_err(|e| to_js(Error::Audio(e)))?,
            listener,
            rate,
        })
    }

    /// Hz of the samples that [`Ear::hear`] takes.
    pub(crate) fn rate(&self) -> u32 {
        self.rate
    }

    /// Takes samples, or ends the utterance under way without any. `on_event(type, json)` gets `start`, `partial` and `final`.
    pub(crate) async fn hear(
        &mut self,
        samples: Option<&[f32]>,
        cancel: &CancelToken,
        on_event: &Function,
    ) -> Result<()> {
        let mut tell = |event: listen::Event| {
            let (kind, what) = match event {
                listen::Event::Start(at) => ("start", json!({"start": at})),
                listen::Event::Partial(said) => ("partial", told(&said)),
                listen::Event::Final(said) => ("final", told(&said)),
            };
            send(on_event, kind, &what);
        };
        let mut heard = Vec::new();
        match samples {
            Some(samples) => self.resampler.push(samples, &mut heard)?,
            None => self.resampler.finish(&mut heard),
        }
        self.listener.push(&heard, cancel, &mut tell).await?;
        if samples.is_none() {
            self.listener.finish(cancel, &mut tell).await?;
        }
        Ok(())
    }
}

/// What a front end makes of a recording: `front` is one's name, or the text of a `preprocessor_config.json`. Calls
/// `tensor(name, dtype, shape, bytes)` for each tensor, under the reference's names, `dtype` being `f32` or `bool`.
pub(crate) fn features(file: &[u8], front: &str, tensor: &Function) -> Result<()> {
    let front = match front.trim_start().starts_with('{') {
        true => FrontEnd::of_config(front)?,
        false => FrontEnd::named(front)?,
    };
    let mut recording = Recording::open(file, front.rate())?;
    let mut samples = Vec::new();
    while let Some(more) = recording.next()? {
        samples.extend_from_slice(more);
    }
    for (name, t) in front.compute(&samples, None)? {
        let shape: Vec<u32> = t.shape().iter().map(|&n| n as u32).collect();
        let args = Array::of4(
            &name.into(),
            &t.dtype().to_string().into(),
            &Uint32Array::from(shape.as_slice()),
            &Uint8Array::from(t.bytes()),
        );
        // A function that throws takes no further tensor.
        if tensor.apply(&JsValue::NULL, &args).is_err() {
            break;
        }
    }
    Ok(())
}

fn told(said: &listen::Said) -> Value {
    json!({"text": said.text, "start": said.start, "end": said.end, "workMs": said.work.as_secs_f64() * 1e3})
}

fn send(on_event: &Function, kind: &str, what: &Value) {
    // A listener that throws must not end the work.
    let _ = on_event.call2(&JsValue::NULL, &kind.into(), &what.to_string().into());
}
