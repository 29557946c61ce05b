//! The streaming detokenizer.

use super::Machine;
use crate::Tokenizer;

/// Ids in, text out as soon as it is final.
///
/// The pieces joined, with [`finish`](Self::finish) last, equal [`Tokenizer::decode`] of all ids, for
/// every sequence of ids. A character whose bytes are spread over tokens comes out whole; bytes that
/// can no longer become one come out as U+FFFD. A token costs the work of its own piece.
///
/// ```
/// # let json = br#"{"model":{"type":"BPE","byte_fallback":true,"merges":[],"vocab":{"h":0,"i":1,
/// #   "<0xF0>":2,"<0x9F>":3,"<0x99>":4,"<0x82>":5,"!":6}},"decoder":{"type":"ByteFallback"}}"#;
/// # let tokenizer = firelight_text::Tokenizer::from_json(json)?;
/// let ids = tokenizer.encode("hi🙂!", false)?;
/// assert_eq!(ids.len(), 7); // the emoji is four byte tokens
///
/// let mut stream = tokenizer.stream(true);
/// let pieces: Vec<Option<String>> = ids.iter().map(|&id| stream.push(id)).collect();
/// assert_eq!(pieces, [Some("h".into()), Some("i".into()), None, None, None, None, Some("🙂!".into())]);
/// assert_eq!(stream.finish(), "");
/// # Ok::<(), firelight_text::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    machine: Machine,
    skip_special: bool,
}

impl StreamDecoder {
    /// A decoder at the beginning of a text. `skip_special` leaves control tokens out.
    pub fn new(tokenizer: &Tokenizer, skip_special: bool) -> Self {
        Self {
            machine: Machine::new(tokenizer.decoder()),
            tokenizer: tokenizer.clone(),
            skip_special,
        }
    }

    /// Takes the next id and returns the text that became final, if any. An id outside the
    /// vocabulary adds nothing, as in [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Option<String> {
        let mut out = String::new();
        if let Some(token) = self.tokenizer.vocab().get(id)
            && !(self.skip_special && token.kind.is_special())
        {
            self.machine
                .push(self.tokenizer.decoder(), token.spelled(), &mut out);
        }
        (!out.is_empty()).then_some(out)
    }

    /// The text still held back, broken characters as U+FFFD. The decoder then stands at the
    /// beginning of a new text.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.machine.finish(self.tokenizer.decoder(), &mut out);
        self.machine = Machine::new(self.tokenizer.decoder());
        out
    }
}
