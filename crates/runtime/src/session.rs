//! A conversation with a model: text in, streamed text out, the cache kept between turns, the ladder below.

use crate::adapter::AdapterUse;
use crate::clock;
use crate::engine::{Engine, LoadedModel};
use crate::source::CancelToken;
use crate::state::State;
use crate::text_side::Rendering;
use crate::{Error, Result};
use firelight_kernels::sample::SampleSettings;
use firelight_text::{Message, StopMatcher, StreamDecoder};
use std::time::Duration;

/// How an answer is generated.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// How tokens are chosen.
    pub sampling: SampleSettings,
    /// Tokens at most.
    pub max_tokens: usize,
    /// Text that ends the answer (not part of it).
    pub stop: Vec<String>,
    /// Ids that end the answer, beside the model's own.
    pub stop_ids: Vec<u32>,
    /// Go on after the model's end-of-text ids.
    pub ignore_eos: bool,
    /// Positions at most; `None`: the model's context.
    pub context: Option<usize>,
    /// Tokens this answer has already, from a session that ended before it: it goes on from them. They count as generated,
    /// and no event tells of them again.
    pub resume: Vec<u32>,
    /// Adapters over the model's weights, for this answer.
    pub adapters: Vec<AdapterUse>,
    /// Lets the model think before it answers, if its template can ([`Session::chat`] only).
    pub thinking: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            sampling: SampleSettings::default(),
            max_tokens: 1024,
            stop: Vec::new(),
            stop_ids: Vec::new(),
            ignore_eos: false,
            context: None,
            resume: Vec::new(),
            adapters: Vec::new(),
            thinking: false,
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model said so.
    Eos,
    /// A stop text or id.
    Stop,
    /// `max_tokens`.
    MaxTokens,
    /// The context is full.
    Context,
    /// The caller cancelled.
    Cancelled,
}

impl Finish {
    /// The name in machine-readable output.
    pub const fn name(self) -> &'static str {
        match self {
            Finish::Eos => "eos",
            Finish::Stop => "stop",
            Finish::MaxTokens => "max_tokens",
            Finish::Context => "context",
            Finish::Cancelled => "cancelled",
        }
    }
}

/// What happens while an answer is made.
#[derive(Clone, Debug)]
pub enum Event {
    /// One more token of the answer; its text follows once it is whole.
    Token(u32),
    /// More text (never broken UTF-8; may be several tokens').
    Text(String),
    /// The device failed and the answer goes on further down the ladder.
    Moved {
        /// What happened.
        why: String,
        /// Where it goes on.
        device: String,
    },
}

/// A finished answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Ids of the prompt.
    pub prompt_ids: Vec<u32>,
    /// Ids generated, without the one that ended it.
    pub ids: Vec<u32>,
    /// Their text, up to a stop text.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Prompt tokens processed; the others were still in the cache.
    pub prefilled: usize,
    /// From the call to the first token.
    pub ttft: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

impl Answer {
    /// Prompt tokens per second.
    pub fn prefill_tps(&self) -> f64 {
        self.prefilled as f64 / self.ttft.as_secs_f64().max(1e-9)
    }

    /// Generated tokens per second after the first; 0 if there are fewer than two.
    pub fn decode_tps(&self) -> f64 {
        match self.ids.len() {
            0 | 1 => 0.0,
            n => (n - 1) as f64 / self.decode.as_secs_f64().max(1e-9),
        }
    }
}

/// See the module's head.
pub struct Session {
    engine: Engine,
    model: LoadedModel,
    state: State,
}

impl Session {
    /// A session with a loaded model.
    ///
    /// # Errors
    /// `Device` if memory runs out.
    pub fn new(engine: &Engine, model: &LoadedModel) -> Result<Self> {
        let state = State::new(&model.device, &model.model)?;
        Ok(Session {
            engine: engine.clone(),
            model: model.clone(),
            state,
        })
    }

    /// The model in use: another copy than at the start if the ladder was stepped down.
    pub fn model(&self) -> &LoadedModel {
        &self.model
    }

    /// The sequence on the device.
    pub fn state(&mut self) -> &mut State {
        &mut self.state
    }

    /// Answers a conversation through the model's chat template.
    ///
    /// # Errors
    /// As [`Session::generate`]; `Unsupported` for a model without a template.
    pub async fn chat(
        &mut self,
        messages: &[Message],
        options: &GenerateOptions,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Answer> {
        let with = Rendering {
            thinking: options.thinking,
            ..Rendering::default()
        };
        let rendered = self.model.text.render_with(messages, true, with)?;
        let ids = self.model.text.encode_rendered(&rendered)?;
        self.generate(&ids, options, cancel, on_event).await
    }

    /// Continues `prompt`. A cancel ends the answer with what there is of it; the session goes on.
    ///
    /// # Errors
    /// What the prompt or the options lack; `Device` if the ladder ends.
    pub async fn generate(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Answer> {
        let mut run = Run {
            answer: Answer {
                prompt_ids: prompt.to_vec(),
                ids: Vec::new(),
                text: String::new(),
                finish: Finish::MaxTokens,
                prefilled: 0,
                ttft: Duration::ZERO,
                decode: Duration::ZERO,
            },
            decoder: self.model.text.tokenizer.stream(true),
            stops: StopMatcher::new(options.stop.iter().cloned()),
            start: clock::now(),
        };
        for &id in &options.resume {
            run.answer.ids.push(id);
            run.push(id, &mut |_| ());
        }
        loop {
            let outcome = self.run(&mut run, prompt, options, cancel, on_event).await;
            self.state.stop();
            match outcome {
                Ok(finish) => {
                    run.answer.finish = finish;
                    run.flush(on_event);
                    return Ok(run.answer);
                }
                Err(e) if e.is_device_fault() => {
                    self.engine.step_down(&e).await?;
                    self.model = self.engine.reload(&self.model).await?;
                    self.state = State::new(&self.model.device, &self.model.model)?;
                    let device = self.engine.report().device;
                    on_event(Event::Moved {
                        why: e.to_string(),
                        device,
                    });
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Goes on from the tokens so far until the answer ends or the device fails.
    async fn run(
        &mut self,
        run: &mut Run,
        prompt: &[u32],
        options: &GenerateOptions,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Finish> {
        let context = options
            .context
            .unwrap_or(usize::MAX)
            .min(self.model.model.spec().context);
        let mut ids = prompt.to_vec();
        ids.extend_from_slice(&run.answer.ids);
        let left = options.max_tokens.saturating_sub(run.answer.ids.len());
        self.state.set_adapters(&options.adapters);
        let begun = self
            .state
            .begin(&ids, options.sampling, left, context, cancel)
            .await;
        match begun {
            Ok(n) => run.answer.prefilled += n,
            Err(Error::Cancelled) => return Ok(Finish::Cancelled),
            Err(e) => return Err(e),
        }
        if left == 0 {
            return Ok(Finish::MaxTokens);
        }
        loop {
            if cancel.heard().await {
                return Ok(Finish::Cancelled);
            }
            let Some(id) = self.state.next().await? else {
                let full = ids.len() + options.max_tokens > context
                    && run.answer.ids.len() < options.max_tokens;
                return Ok(if full {
                    Finish::Context
                } else {
                    Finish::MaxTokens
                });
            };
            let elapsed = run.start.elapsed();
            if run.answer.ids.len() == options.resume.len() {
                run.answer.ttft = elapsed;
            }
            run.answer.decode = elapsed.saturating_sub(run.answer.ttft);
            if !options.ignore_eos && self.model.text.eos_ids.contains(&id) {
                return Ok(Finish::Eos);
            }
            if options.stop_ids.contains(&id) {
                return Ok(Finish::Stop);
            }
            run.answer.ids.push(id);
            on_event(Event::Token(id));
            if run.push(id, on_event) {
                return Ok(Finish::Stop);
            }
            if run.answer.ids.len() >= options.max_tokens {
                return Ok(Finish::MaxTokens);
            }
        }
    }
}

/// An answer under way.
struct Run {
    answer: Answer,
    decoder: StreamDecoder,
    stops: StopMatcher,
    start: clock::Moment,
}

impl Run {
    /// Adds a token's text; true if a stop text was met.
    fn push(&mut self, id: u32, on_event: &mut dyn FnMut(Event)) -> bool {
        let Some(piece) = self.decoder.push(id) else {
            return false;
        };
        let (text, stopped) = self.stops.push(&piece);
        self.emit(text, on_event);
        stopped
    }

    /// What was held back while more might have come.
    fn flush(&mut self, on_event: &mut dyn FnMut(Event)) {
        if self.stops.stopped() {
            return;
        }
        let tail = self.decoder.finish();
        let (text, stopped) = self.stops.push(&tail);
        self.emit(text, on_event);
        if !stopped {
            let rest = self.stops.finish();
            self.emit(rest, on_event);
        }
    }

    fn emit(&mut self, text: String, on_event: &mut dyn FnMut(Event)) {
        if !text.is_empty() {
            self.answer.text.push_str(&text);
            on_event(Event::Text(text));
        }
    }
}
