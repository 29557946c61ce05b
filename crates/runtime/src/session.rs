//! A conversation with a model: text in, streamed text out, the cache kept between turns, the ladder below.

#[cfg(not(target_arch = "wasm32"))]
mod saved;

use crate::adapter::AdapterUse;
use crate::clock;
use crate::engine::{Engine, LoadedModel};
use crate::media::{self, MediaKind, Medium, Preparations};
use crate::source::CancelToken;
use crate::speculate::{Draft, Drafter};
use crate::state::State;
use crate::text_side::Rendering;
use crate::{Error, Result};
use firelight_kernels::sample::SampleSettings;
use firelight_text::{
    Grammar, Matcher, Message, Part, PartKind, StopMatcher, StreamDecoder, ToolCall, tool_calls,
};
use std::sync::Arc;
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
    /// The law of the answer: a JSON Schema, a regular expression, a list of choices. The answer fulfils it or is
    /// [`Error::Unfinished`]; when three quarters of the tokens are used up, what closes the answer is preferred.
    pub grammar: Option<Grammar>,
    /// The tools the model may call, as [`Rendering`] takes them; [`Session::chat`] gives them to the template. The calls are read
    /// out of the answer.
    pub tools: Option<serde_json::Value>,
    /// The pictures and sounds of the messages, in the order of their parts ([`Session::chat`] only).
    pub media: Vec<Medium>,
    /// Guesses tokens ahead and checks them several at a time; the answer stays the same. Not used under a grammar, with a repetition
    /// penalty, and by models with recurrent layers.
    pub draft: Option<Draft>,
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
            grammar: None,
            tools: None,
            media: Vec::new(),
            draft: None,
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model said so, or the grammar allows nothing more.
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
    /// The model wants a tool called; comes at the end of the answer, after its text.
    Call(ToolCall),
    /// The conversation with its pictures did not fit into the context: they were made smaller.
    Scaled {
        /// Tokens that pictures and sounds would have been.
        from: usize,
        /// Tokens that they are now.
        to: usize,
    },
}

/// A finished answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Ids of the prompt; a picture's or sound's places hold the model's placeholder.
    pub prompt_ids: Vec<u32>,
    /// Ids generated, without the one that ended it.
    pub ids: Vec<u32>,
    /// Their text, up to a stop text.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Prompt tokens processed; the others were still in the cache.
    pub prefilled: usize,
    /// Pictures and sounds encoded for it; the features of the others were still on the device.
    pub encoded: usize,
    /// Tokens drafted for it, and how many of them were right; see [`GenerateOptions::draft`].
    pub drafted: usize,
    /// See `drafted`.
    pub drafts_right: usize,
    /// From the call to the first token.
    pub ttft: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    /// Of these, spent on the grammar's masks (on a GPU the model runs meanwhile); zero without a grammar.
    pub masking: Duration,
    /// Tools the model wants called, if [`GenerateOptions::tools`] were given; `text` has what is written around them, too.
    pub calls: Vec<ToolCall>,
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
    preparations: Preparations,
    drafter: Option<Drafter>,
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
            preparations: Preparations::default(),
            drafter: None,
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
        let ids = self.prompt(messages, options, on_event)?;
        self.generate(&ids, options, cancel, on_event).await
    }

    /// The ids of a conversation, for [`Session::generate`]: rendered by the model's template, its pictures and sounds prepared and in
    /// their places. Ids of [`crate::media::FIRST_SOFT`] and above stand for them, in this session only.
    ///
    /// # Errors
    /// `Unsupported` for a model without a template or without a tower for a medium, `InvalidInput` if media and places differ in number,
    /// what is wrong with a medium.
    pub fn prompt(
        &mut self,
        messages: &[Message],
        options: &GenerateOptions,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Vec<u32>> {
        let with = Rendering {
            tools: options.tools.as_ref(),
            thinking: options.thinking,
        };
        let rendered = self.model.text.render_with(messages, true, with)?;
        if options.media.is_empty() {
            self.nothing_missing(messages)?;
            return self.model.text.encode_rendered(&rendered);
        }
        self.encode_with_media(&rendered, options, on_event)
    }

    /// A model that sees or hears must not make up what a place without a medium shows.
    fn nothing_missing(&self, messages: &[Message]) -> Result<()> {
        let model = &self.model.model;
        let wanted = |part: &&Part| match part.kind() {
            PartKind::Image => model.tower(MediaKind::Image).is_some(),
            PartKind::Audio => model.tower(MediaKind::Audio).is_some(),
            _ => false,
        };
        let parts = messages.iter().flat_map(|m| m.content.parts());
        match parts.filter(wanted).count() {
            0 => Ok(()),
            places => Err(Error::invalid(format!(
                "no picture or sound given and {places} places for them in the conversation; give as many, in their order"
            ))),
        }
    }

    /// The ids of a rendered conversation with pictures or sounds. If it does not fit into the context with room for an answer, they
    /// are made smaller as far as the model allows.
    fn encode_with_media(
        &mut self,
        rendered: &str,
        options: &GenerateOptions,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Vec<u32>> {
        let model = Arc::clone(&self.model.model);
        let tower = |kind| model.tower(kind);
        let context = options
            .context
            .unwrap_or(usize::MAX)
            .min(model.spec().context);
        let (mut budget, mut first) = (None, None);
        loop {
            let prepared = self.preparations.of(&options.media, budget, tower)?;
            let soft: usize = prepared.iter().map(|m| m.tokens).sum();
            let (text, media) = media::expand(rendered, &prepared, tower)?;
            let mut ids = self.model.text.encode_rendered(&text)?;
            let room = context.saturating_sub(options.max_tokens.min(context / 4));
            let from = *first.get_or_insert(soft);
            if ids.len() > room {
                // What is left for each once the text has its tokens.
                let words = ids.len() - soft.min(ids.len());
                let fits = room.saturating_sub(words) / prepared.len().max(1);
                let next = budget.map_or(fits, |b: usize| fits.min(b - b / 4));
                if next > 0 && budget.is_none_or(|b| next < b) {
                    budget = Some(next);
                    continue;
                }
            }
            if soft < from {
                on_event(Event::Scaled { from, to: soft });
            }
            let firsts = self.state.place_media(&media)?;
            media::place_soft(&mut ids, &media, &firsts, tower)?;
            return Ok(ids);
        }
    }

    /// Reads the calls of tools out of an answer, if `options` has tools.
    fn read_calls(&self, answer: &mut Answer, options: &GenerateOptions) {
        if options.tools.is_some() {
            // The marks of a call are special tokens in some vocabularies.
            let whole = self.model.text.tokenizer.decode(&answer.ids, false);
            answer.calls = tool_calls(&whole, options.tools.as_ref()).1;
        }
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
        let law = match &options.grammar {
            Some(_) if !options.stop.is_empty() => {
                return Err(Error::invalid(
                    "stop texts together with a grammar: the grammar says where the answer ends",
                ));
            }
            Some(grammar) => {
                let vocabulary = self.model.text.vocabulary(self.model.model.spec().vocab)?;
                Some(vocabulary.matcher(grammar)?)
            }
            None => None,
        };
        let mut run = Run {
            answer: Answer {
                prompt_ids: prompt.iter().map(|&id| self.state.plain_id(id)).collect(),
                ids: Vec::new(),
                text: String::new(),
                finish: Finish::MaxTokens,
                prefilled: 0,
                encoded: 0,
                drafted: 0,
                drafts_right: 0,
                ttft: Duration::ZERO,
                decode: Duration::ZERO,
                masking: Duration::ZERO,
                calls: Vec::new(),
            },
            law,
            decoder: self.model.text.tokenizer.stream(true),
            stops: StopMatcher::new(options.stop.iter().cloned()),
            start: clock::now(),
        };
        match &options.draft {
            Some(draft) if self.drafter.as_ref().is_some_and(|d| d.is(draft)) => {}
            Some(draft) => self.drafter = Some(Drafter::new(draft, &self.model)?),
            None => self.drafter = None,
        }
        let encoded = self.state.media_encoded();
        for &id in &options.resume {
            run.answer.ids.push(id);
            run.push(id, &mut |_| ());
            run.accept(id)?;
        }
        loop {
            let outcome = self.run(&mut run, prompt, options, cancel, on_event).await;
            self.state.stop();
            match outcome {
                Ok(finish) => {
                    run.answer.finish = finish;
                    run.answer.encoded = self.state.media_encoded() - encoded;
                    run.flush(on_event);
                    let mut answer = run.fulfilled(options)?;
                    self.read_calls(&mut answer, options);
                    answer
                        .calls
                        .iter()
                        .cloned()
                        .map(Event::Call)
                        .for_each(on_event);
                    return Ok(answer);
                }
                Err(e) if e.is_device_fault() => {
                    self.engine.step_down(&e).await?;
                    self.model = self.engine.reload(&self.model).await?;
                    let media = self.state.moved_media();
                    self.state = State::new(&self.model.device, &self.model.model)?;
                    self.state.set_media(media);
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
        if run.law.as_ref().is_some_and(Matcher::is_complete) {
            return Ok(Finish::Eos);
        }
        let room = context.saturating_sub(prompt.len()).min(options.max_tokens);
        run.mask(&mut self.state, room)?;
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
            let Some(id) = self.next(run, options).await? else {
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
            let eos = self.model.text.eos_ids.contains(&id);
            if eos && (!options.ignore_eos || run.law.is_some()) {
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
            if run.accept(id)? {
                return Ok(Finish::Eos);
            }
            if run.answer.ids.len() >= options.max_tokens {
                return Ok(Finish::MaxTokens);
            }
            run.mask(&mut self.state, room)?;
        }
    }
}

impl Session {
    /// The next token, of a draft where there is one.
    async fn next(&mut self, run: &mut Run, options: &GenerateOptions) -> Result<Option<u32>> {
        let (Some(drafter), room) = (&mut self.drafter, self.state.draft_room()) else {
            return self.state.next().await;
        };
        if room == 0 {
            return self.state.next().await;
        }
        if drafter.is_model() && self.state.is_under_way() {
            return self.state.arrived().await;
        }
        let draft = drafter
            .draft(self.state.ids(), room, options.sampling)
            .await;
        let (drafted, right) = self.state.drafts();
        let next = self.state.next_of(&draft).await?;
        let (now_drafted, now_right) = self.state.drafts();
        if now_drafted > drafted {
            drafter.learn((now_right - right) as usize);
            run.answer.drafted += (now_drafted - drafted) as usize;
            run.answer.drafts_right += (now_right - right) as usize;
        }
        Ok(next)
    }
}

/// An answer under way.
struct Run {
    answer: Answer,
    decoder: StreamDecoder,
    stops: StopMatcher,
    law: Option<Matcher>,
    start: clock::Moment,
}

impl Run {
    /// Gives the state the mask for the next token, one of at most `room` of the answer.
    fn mask(&mut self, state: &mut State, room: usize) -> Result<()> {
        let Some(law) = &mut self.law else {
            return state.set_mask(None);
        };
        let start = clock::now();
        let left = room.saturating_sub(self.answer.ids.len());
        state.set_mask(Some(law.mask(left <= (room / 4).clamp(16, 256))?))?;
        self.answer.masking += start.elapsed();
        Ok(())
    }

    /// Takes a token into the grammar; true if nothing can follow.
    fn accept(&mut self, id: u32) -> Result<bool> {
        let Some(law) = &mut self.law else {
            return Ok(false);
        };
        let start = clock::now();
        law.accept(id)?;
        self.answer.masking += start.elapsed();
        Ok(law.is_complete())
    }

    /// The answer, if it keeps its law. One the caller cancelled need not.
    fn fulfilled(mut self, options: &GenerateOptions) -> Result<Answer> {
        let fulfilled = self.law.as_mut().is_none_or(Matcher::is_accepting);
        let why = match self.answer.finish {
            _ if fulfilled => return Ok(self.answer),
            Finish::Cancelled | Finish::Eos => return Ok(self.answer),
            Finish::MaxTokens => format!(
                "max_tokens {} was reached in the middle; allow more, or bound the grammar (maxLength, maxItems)",
                options.max_tokens
            ),
            Finish::Context => "the context is full".to_owned(),
            Finish::Stop => "a stop token came in the middle".to_owned(),
        };
        Err(Error::Unfinished {
            why,
            tokens: self.answer.ids.len(),
            text: self.answer.text,
        })
    }

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
