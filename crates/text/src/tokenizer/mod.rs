//! Text ↔ token ids.
//!
//! | source | encoder | files |
//! |---|---|---|
//! | `tokenizer.json` | BPE, Unigram, WordPiece, WordLevel with their normalizers and pre-tokenizers | `hf/` |
//! | GGUF, model `gpt2` | byte-level BPE | `gguf.rs`, `pretok.rs` (the kinds), `bpe.rs` |
//! | GGUF, model `gemma4` | BPE on characters with byte fallback | `gguf.rs`, `bpe.rs` |
//! | GGUF, model `llama` | SentencePiece BPE by scores | `gguf.rs`, `spm.rs` |
//!
//! Decoding is ours for all of them (`crate::decode`): the streaming detokenizer must be the same code.

pub(crate) mod bytes;
pub(crate) mod vocab;

mod bpe;
mod gguf;
mod hf;
mod pretok;
mod specials;
mod spm;

use std::borrow::Cow;
use std::sync::Arc;

use crate::config::TokenizerConfig;
use crate::decode::{Decoder, Machine, StreamDecoder};
use crate::{Error, Result};
pub use gguf::GgufVocab;
use vocab::{Kind, Vocab};

/// Texts longer than this are refused, so that no input can take memory without bound.
pub(crate) const MAX_TEXT: usize = 64 << 20;

/// A tokenizer. Cloning is cheap: the tables are shared.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    shared: Arc<Shared>,
    roles: Roles,
}

#[derive(Debug)]
struct Shared {
    vocab: Vocab,
    encoder: Encoder,
    decoder: Decoder,
}

#[derive(Debug)]
enum Encoder {
    Hf(hf::HfEncoder),
    Gguf(gguf::GgufEncoder),
}

/// The ids with a part to play.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) unk: Option<u32>,
    pub(crate) pad: Option<u32>,
    pub(crate) eot: Option<u32>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json` (Hugging Face, format 1.0 or 2.0).
    ///
    /// The file does not say which token begins or ends a text; [`with_config`](Self::with_config) does.
    ///
    /// # Errors
    /// `Malformed` for bytes that are not such a file, `Unsupported` for a component this crate does not
    /// have (the message lists those it has), `Limit` for more than 256 MiB or an id of 2²² and above.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let parts = hf::read(bytes)?;
        Ok(Self {
            shared: Arc::new(Shared {
                vocab: parts.vocab,
                encoder: Encoder::Hf(parts.encoder),
                decoder: parts.decoder,
            }),
            roles: Roles::default(),
        })
    }

    /// Builds a tokenizer from the vocabulary inside a GGUF file.
    ///
    /// # Errors
    /// `Unsupported` for a model or pre-tokenizer kind that is not in the list (the message has it),
    /// `Malformed` for tables that do not fit together.
    pub fn from_gguf(vocab: GgufVocab) -> Result<Self> {
        let parts = gguf::read(vocab)?;
        Ok(Self {
            shared: Arc::new(Shared {
                vocab: parts.vocab,
                encoder: Encoder::Gguf(parts.encoder),
                decoder: parts.decoder,
            }),
            roles: parts.roles,
        })
    }

    /// Takes the special tokens' names (`bos_token`, `eos_token`, …) from a `tokenizer_config.json`.
    /// Names that the vocabulary does not have change nothing.
    pub fn with_config(mut self, config: &TokenizerConfig) -> Self {
        let id = |name: &Option<String>| name.as_deref().and_then(|name| self.token_to_id(name));
        let roles = Roles {
            bos: id(&config.bos_token).or(self.roles.bos),
            eos: id(&config.eos_token).or(self.roles.eos),
            unk: id(&config.unk_token).or(self.roles.unk),
            pad: id(&config.pad_token).or(self.roles.pad),
            eot: self.roles.eot,
        };
        self.roles = roles;
        self
    }

    /// Text → ids. Special tokens written out in the text (`<|im_end|>`) become those tokens, so this is
    /// for text made by a chat template or by the program. `add_special` adds what the tokenizer puts
    /// around a text (a BOS, `[CLS]`…`[SEP]`): false for text from a chat template, which has them.
    ///
    /// # Errors
    /// `Limit` for more than 64 MiB of text; `InvalidInput` for text that the vocabulary cannot express.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        self.encode_with(text, add_special, true)
    }

    /// As [`encode`](Self::encode), but control tokens written out in the text stay text: for text from
    /// people and files that must not be able to end a turn or open a new one. Tokens that are added but
    /// not control (`<think>` in some vocabularies) are still matched, as in the reference.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_plain(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        self.encode_with(text, add_special, false)
    }

    fn encode_with(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT {
            return Err(Error::Limit {
                what: "bytes of text to encode at once",
                max: MAX_TEXT as u64,
                got: text.len() as u64,
            });
        }
        match &self.shared.encoder {
            Encoder::Hf(encoder) => {
                encoder.encode(&self.shared.vocab, text, add_special, parse_special)
            }
            Encoder::Gguf(encoder) => encoder.encode(
                &self.shared.vocab,
                &self.roles,
                text,
                add_special,
                parse_special,
            ),
        }
    }

    /// How many tokens [`encode`](Self::encode) puts before and after a text.
    pub fn around(&self) -> (usize, usize) {
        match &self.shared.encoder {
            Encoder::Hf(encoder) => {
                let (before, after) = encoder.around();
                (before.len(), after.len())
            }
            Encoder::Gguf(encoder) => {
                let added = encoder.encode(self.vocab(), &self.roles, "", true, false);
                let ids = added.unwrap_or_default();
                let before = ids.iter().take_while(|&&id| Some(id) == self.bos()).count();
                (before.min(1), ids.len() - before.min(1))
            }
        }
    }

    /// Two texts, encoded without special tokens, as the one sequence that the tokenizer's template for pairs makes of them,
    /// and the segment (token type) of each id.
    ///
    /// # Errors
    /// `Unsupported` if the file has no such template.
    pub fn join(&self, first: &[u32], second: &[u32]) -> Result<(Vec<u32>, Vec<u32>)> {
        let joined = match &self.shared.encoder {
            Encoder::Hf(encoder) => encoder.join(first, second),
            Encoder::Gguf(_) => None,
        };
        joined.ok_or_else(|| {
            Error::unsupported(
                "this tokenizer has no template for pairs of texts (`pair` of its post_processor)",
            )
        })
    }

    /// Ids → text. Bytes that are no UTF-8 come out as U+FFFD; ids outside the vocabulary add nothing.
    /// `skip_special` leaves control tokens out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut out = String::with_capacity(ids.len() * 4);
        let mut machine = Machine::new(self.decoder());
        for &id in ids {
            if let Some(token) = self.vocab().get(id)
                && !(skip_special && token.kind.is_special())
            {
                machine.push(self.decoder(), token.spelled(), &mut out);
            }
        }
        machine.finish(self.decoder(), &mut out);
        out
    }

    /// A [`StreamDecoder`] at the beginning of a text.
    pub fn stream(&self, skip_special: bool) -> StreamDecoder {
        StreamDecoder::new(self, skip_special)
    }

    /// The highest id plus one. A model's head may have more rows (padding), never fewer.
    pub fn vocab_size(&self) -> usize {
        self.vocab().len()
    }

    /// The id of a token by its piece, in the vocabulary's own spelling (`Ġthe`, `▁the`, `<|im_end|>`).
    pub fn token_to_id(&self, piece: &str) -> Option<u32> {
        self.vocab().id(piece)
    }

    /// The piece of an id, in the vocabulary's own spelling.
    pub fn id_to_piece(&self, id: u32) -> Option<&str> {
        self.vocab().get(id).map(|token| &*token.piece)
    }

    /// The bytes an id adds to a text: what constrained decoding matches. They may be part of a
    /// character. Not counted is what depends on neighbours (a leading space that decoding strips).
    pub fn id_to_token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        let token = self.vocab().get(id)?;
        Some(match token.kind {
            Kind::Added | Kind::Special => Cow::Borrowed(token.piece.as_bytes()),
            Kind::Normal | Kind::Byte => Cow::Owned(self.decoder().piece_bytes(token.spelled())),
        })
    }

    /// Whether an id is a control token: left out by `skip_special`.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocab()
            .get(id)
            .is_some_and(|token| token.kind.is_special())
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// The token that ends a turn, where the file names one apart from `eos`.
    pub fn eot(&self) -> Option<u32> {
        self.roles.eot
    }

    /// The ids that end an answer as far as the vocabulary tells: [`eos`](Self::eos), [`eot`](Self::eot), and
    /// control tokens with the names that published chat models give to the end of a turn. Files often
    /// name one of several (Llama 3 ends texts with one token and turns with another).
    pub fn end_ids(&self) -> Vec<u32> {
        const NAMES: [&str; 14] = [
            "<|eot_id|>",
            "<|im_end|>",
            "<|end|>",
            "<end_of_turn>",
            "<turn|>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "<|eom_id|>",
            "<|return|>",
            "<EOT>",
            "[EOT]",
            "<end_of_utterance>",
            "<｜end▁of▁sentence｜>",
            "<|END_OF_TURN_TOKEN|>",
        ];
        // OpenAI's format ends every message of an answer with `<|end|>`, the answer itself with `<|return|>`.
        let harmony = self.token_to_id("<|return|>").is_some();
        let named = NAMES
            .iter()
            .filter(|name| !(harmony && **name == "<|end|>"));
        let named = named.filter_map(|name| self.token_to_id(name));
        let named = named.filter(|&id| self.is_special(id));
        let mut ids: Vec<u32> = self
            .eos()
            .into_iter()
            .chain(self.eot())
            .chain(named)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The token for what the vocabulary does not have.
    pub fn unk(&self) -> Option<u32> {
        self.roles.unk
    }

    /// The token that fills batches.
    pub fn pad(&self) -> Option<u32> {
        self.roles.pad
    }

    pub(crate) fn vocab(&self) -> &Vocab {
        &self.shared.vocab
    }

    pub(crate) fn decoder(&self) -> &Decoder {
        &self.shared.decoder
    }
}
