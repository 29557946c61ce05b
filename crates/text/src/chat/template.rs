//! Compiling and rendering a chat template.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::machinery::{self, make_string_output};
use minijinja::{AutoEscape, Environment, ErrorKind};
use serde_json::Map;

use super::env::{self, RAISED};
use super::guard;
use super::message::Message;
use super::meter::{self, Meter};
use super::prepare::rewrite_generation;
use super::time::DateTime;
use crate::{Error, Result};

/// Longer sources are refused; the largest published ones have about 60 kB.
const MAX_SOURCE: usize = 1 << 20;

/// The name of the template in its environment.
const NAME: &str = "chat_template";

/// What a rendering may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RenderLimits {
    /// Steps of the template engine. Default 4 million, about a second.
    pub steps: u64,
    /// Bytes of output, and of any single text on the way. 16 times as much may be made and looked at in
    /// all, which bounds time and memory; what goes in is added to both. Default 16 MiB.
    pub output: usize,
}

impl Default for RenderLimits {
    fn default() -> Self {
        Self {
            steps: 4_000_000,
            output: 16 << 20,
        }
    }
}

/// What a chat template is given.
#[derive(Clone, Debug, Default)]
pub struct ChatInput<'a> {
    /// The conversation.
    pub messages: &'a [Message],
    /// Tools, as a list of JSON schemas of functions.
    pub tools: Option<serde_json::Value>,
    /// Whether the text ends where the assistant is to go on.
    pub add_generation_prompt: bool,
    /// The token that begins a text.
    pub bos_token: Option<String>,
    /// The token that ends a text.
    pub eos_token: Option<String>,
    /// Any other variable the template knows (`enable_thinking`, `documents`, …).
    pub extra: Map<String, serde_json::Value>,
    /// The time that `strftime_now` gives. Without it that function does not exist, and templates fall
    /// back to the date they were written.
    pub now: Option<DateTime>,
}

/// A compiled chat template in the dialect of Hugging Face (Jinja2 with `raise_exception`,
/// `strftime_now`, `tojson`, loop controls, generation blocks, Python's string methods).
///
/// ```
/// use firelight_text::{ChatInput, ChatTemplate, Message};
///
/// let template = ChatTemplate::new("{% for m in messages %}[{{ m.role }}] {{ m['content'] }}\n{% endfor %}")?;
/// let messages = [Message::system("Be brief."), Message::user("Hi")];
/// let text = template.render(&ChatInput { messages: &messages, ..ChatInput::default() })?;
/// assert_eq!(text, "[system] Be brief.\n[user] Hi\n");
/// # Ok::<(), firelight_text::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: Arc<str>,
    env: Arc<Environment<'static>>,
    limits: RenderLimits,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// `Malformed` with the byte offset for a syntax error, `Limit` for a source above 1 MiB, for expressions nested too
    /// deep and for constants too large.
    pub fn new(source: &str) -> Result<Self> {
        Self::with_limits(source, RenderLimits::default())
    }

    /// Compiles a template to be rendered under these limits.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_limits(source: &str, limits: RenderLimits) -> Result<Self> {
        if source.len() > MAX_SOURCE {
            return Err(Error::Limit {
                what: "bytes of a chat template",
                max: MAX_SOURCE as u64,
                got: source.len() as u64,
            });
        }
        let rewritten = rewrite_generation(source).into_owned();
        guard::check(&rewritten, &env::syntax())?;
        let mut env = env::environment();
        env.set_fuel(Some(limits.steps));
        env.add_template_owned(NAME, rewritten)
            .map_err(|e| Error::Malformed {
                format: "chat template",
                offset: e.range().map_or(0, |range| range.start as u64),
                what: match e.line() {
                    Some(line) => format!("line {line}: {e}"),
                    None => e.to_string(),
                },
            })?;
        Ok(Self {
            source: source.into(),
            env: Arc::new(env),
            limits,
        })
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// `Template` where the template refuses the messages or fails, `Limit` where it takes too many
    /// steps or writes too much.
    pub fn render(&self, input: &ChatInput<'_>) -> Result<String> {
        let mut context = Map::new();
        let mut set = |name: &str, value: serde_json::Value| context.insert(name.to_owned(), value);
        let messages = serde_json::to_value(input.messages)
            .map_err(|e| Error::invalid(format!("messages: {e}")))?;
        set("messages", messages);
        set("tools", input.tools.clone().unwrap_or_default());
        set("documents", serde_json::Value::Null);
        set("add_generation_prompt", input.add_generation_prompt.into());
        for (name, token) in [
            ("bos_token", &input.bos_token),
            ("eos_token", &input.eos_token),
        ] {
            if let Some(token) = token {
                set(name, token.as_str().into());
            }
        }
        context.extend(input.extra.clone());

        let input_bytes = size(&context);
        let context = env::value(&serde_json::Value::Object(context), 0)?;
        let meter = Meter::new(
            16 * self.limits.output as u64 + 64 * input_bytes as u64,
            self.limits.output.saturating_add(input_bytes),
        );
        let mut env = (*self.env).clone();
        env::prepare(&mut env, &meter, input.now);
        let template = env.get_template(NAME).map_err(|e| self.error(&e, &meter))?;
        let compiled = machinery::get_compiled_template(&template);
        let metered = meter::rewrite(&compiled.instructions)
            .map_err(|what| Error::unsupported(format!("chat template: {what}")))?;
        let mut text = String::new();
        let mut out = make_string_output(&mut text);
        let blocks = BTreeMap::new();
        machinery::eval(&env, &metered, context, &blocks, &mut out, AutoEscape::None)
            .map_err(|e| self.error(&e, &meter))?;
        if text.len() > meter.longest {
            return Err(self.too_much());
        }
        Ok(text)
    }

    fn too_much(&self) -> Error {
        let max = self.limits.output as u64;
        Error::Limit {
            what: "bytes a chat template writes, makes or looks at",
            max,
            got: max + 1,
        }
    }

    fn error(&self, e: &minijinja::Error, meter: &Meter) -> Error {
        if meter.exceeded() {
            return self.too_much();
        }
        if e.kind() == ErrorKind::OutOfFuel {
            let max = self.limits.steps;
            return Error::Limit {
                what: "steps of a chat template",
                max,
                got: max + 1,
            };
        }
        let raised = e.detail().and_then(|detail| detail.strip_prefix(RAISED));
        match (raised, e.line()) {
            (Some(message), _) => Error::Template(message.to_owned()),
            (None, Some(line)) => Error::Template(format!("line {line}: {e}")),
            (None, None) => Error::Template(e.to_string()),
        }
    }
}

/// About how many bytes of text there are in the variables.
fn size(fields: &Map<String, serde_json::Value>) -> usize {
    fn of(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::String(text) => text.len() + 16,
            serde_json::Value::Array(items) => items.iter().map(of).sum::<usize>() + 16,
            serde_json::Value::Object(fields) => size(fields) + 16,
            _ => 16,
        }
    }
    fields
        .iter()
        .map(|(name, value)| name.len() + of(value))
        .sum()
}
