//! Ids → text, one token at a time.
//!
//! A [`Decoder`] is the chain of steps that `tokenizer.json` calls its decoder (a GGUF vocabulary gets
//! the chain its kind implies). Each step is a small state machine; text flows from step to step as soon
//! as it is final. `decode(ids)` is the same machine run to its end, so streaming and whole decoding
//! cannot differ, and a token costs the work of its own piece only.
//!
//! | step | holds back |
//! |---|---|
//! | `ByteLevel` | the bytes of an incomplete character (at most 3) |
//! | `ByteFallback` | the current run of byte tokens: the reference replaces **every** byte of a run that is not UTF-8, so a run has no meaning before it ends |
//! | `Strip` | trailing characters it may have to remove |
//! | `Replace` | the beginning of a possible match, where the text is already fused |
//! | `BPEDecoder` | one token (the last one loses its suffix without a space) |
//! | a step that needs a whole token, after `Fuse` | everything (no published tokenizer does this) |
//!
//! Source of the semantics: `tokenizers` 0.23, `decoders/*`; checked against it on random ids.

mod spec;
mod steps;
mod stop;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use spec::parse;
pub(crate) use steps::{Decoder, Machine, Pattern, Step};
pub use stop::StopMatcher;
pub use stream::StreamDecoder;
