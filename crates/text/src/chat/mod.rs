//! Chat templates: messages → the text a model was trained on.
//!
//! | file | what |
//! |---|---|
//! | `message.rs` | [`Message`], [`Content`], [`Part`]: the OpenAI-like JSON, nothing lost |
//! | `template.rs` | [`ChatTemplate`]: compile, render, limits |
//! | `env.rs` | the environment of the reference: filters and functions |
//! | `methods.rs`, `ops.rs` | Python's methods and operators |
//! | `meter.rs` | what bounds time and memory |
//! | `prepare.rs` | `{% generation %}` blocks, which the engine does not know |
//! | `python.rs` | how Python prints a value: `str`, `repr`, `json.dumps` |
//! | `time.rs` | [`DateTime`] and `strftime` |
//!
//! Reference: `apply_chat_template` of transformers 5 (Jinja2, sandboxed, `trim_blocks` and `lstrip_blocks`).

mod calls;
mod env;
mod guard;
mod message;
mod meter;
mod methods;
mod ops;
mod prepare;
mod python;
mod template;
mod time;

pub use calls::{ToolCall, tool_calls};
pub use message::{Content, Message, Part, PartKind};
pub use template::{ChatInput, ChatTemplate, RenderLimits};
pub use time::DateTime;
