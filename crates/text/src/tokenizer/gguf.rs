//! Tokenizers from the vocabulary inside a GGUF file.
//!
//! | `tokenizer.ggml.model` | encoder |
//! |---|---|
//! | `gpt2` | byte-level BPE; `tokenizer.ggml.pre` says how text is cut into words |
//! | `gemma4` | BPE on characters, space as `▁`, bytes for what is not in the vocabulary |
//! | `llama` | SentencePiece BPE by scores, space as `▁`, bytes for what is not in the vocabulary |

use super::bpe::Merges;
use super::bytes::byte_to_char;
use super::pretok::PreTokenizer;
use super::specials::{Part, Splitter, Wanted};
use super::spm::{self, Spm};
use super::vocab::{Kind, MAX_ID, Vocab};
use super::{MAX_TEXT, Roles};
use crate::decode::{Decoder, Pattern, Step};
use crate::{Error, Result};

const FORMAT: &str = "GGUF vocabulary";

/// SentencePiece's space.
const SPACE: &str = "▁";

/// The vocabulary of a GGUF file, field by field from its metadata. A key that the file does not have
/// is `None` or empty.
#[derive(Clone, Debug, Default)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: `gpt2`, `llama`, `gemma4`.
    pub model: String,
    /// `tokenizer.ggml.pre`: how text is cut into words (`gpt2` only; without it `default`).
    pub pre: Option<String>,
    /// `general.name`. Decides only whether special tokens take the white space after them along, which
    /// Phi-3's do and no key says.
    pub name: Option<String>,
    /// `tokenizer.ggml.tokens`: the pieces by id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type` by id: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused,
    /// 6 byte. Empty: all normal.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.scores` by id: merge order of model `llama`, unused by the others.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.merges`: `left right` by rank, for models `gpt2` and `gemma4`.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unk: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.eot_token_id`.
    pub eot: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`. Without it, the model's custom: yes for `llama` and some kinds of
    /// `gpt2`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`. Without it: no.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix` (model `llama`). Without it: yes.
    pub add_space_prefix: Option<bool>,
}

pub(super) struct Parts {
    pub(super) vocab: Vocab,
    pub(super) encoder: GgufEncoder,
    pub(super) decoder: Decoder,
    pub(super) roles: Roles,
}

#[derive(Debug)]
pub(super) struct GgufEncoder {
    splitter: Splitter,
    model: Model,
    add_bos: bool,
    add_eos: bool,
}

#[derive(Debug)]
enum Model {
    ByteLevel {
        merges: Merges,
        pre: PreTokenizer,
        ignore_merges: bool,
        /// The token of each byte's character.
        bytes: Box<[Option<u32>; 256]>,
    },
    Characters {
        merges: Merges,
        pre: PreTokenizer,
        bytes: Box<[Option<u32>; 256]>,
    },
    Spm {
        spm: Box<Spm>,
        space_prefix: bool,
    },
}

pub(super) fn read(gguf: GgufVocab) -> Result<Parts> {
    check_lengths(&gguf)?;
    let byte_level = gguf.model == "gpt2";
    let mut vocab = Vocab::with_capacity(gguf.tokens.len());
    for (id, piece) in (0u32..).zip(&gguf.tokens) {
        let kind = match gguf.token_types.get(id as usize).copied().unwrap_or(1) {
            2 | 3 => Kind::Special,
            4 => Kind::Added,
            6 if !byte_level => Kind::Byte,
            _ => Kind::Normal,
        };
        vocab.insert(id, piece, kind)?;
    }
    let in_range = |id: Option<u32>| id.filter(|&id| (id as usize) < gguf.tokens.len());
    let mut roles = Roles {
        bos: in_range(gguf.bos),
        eos: in_range(gguf.eos),
        unk: in_range(gguf.unk),
        pad: in_range(gguf.pad),
        eot: in_range(gguf.eot),
    };
    let mut add_bos = gguf.add_bos;
    let (model, decoder) = match gguf.model.as_str() {
        "gpt2" => {
            let (pre, flags) = PreTokenizer::of_kind(gguf.pre.as_deref().unwrap_or("default"))?;
            add_bos = add_bos.or(Some(flags.add_bos));
            let bytes =
                std::array::from_fn(|b| vocab.id(byte_to_char(b as u8).encode_utf8(&mut [0; 4])));
            let model = Model::ByteLevel {
                merges: Merges::new(&vocab, &gguf.merges)?,
                pre,
                ignore_merges: flags.ignore_merges,
                bytes: Box::new(bytes),
            };
            (model, vec![Step::ByteLevel])
        }
        "gemma4" => {
            let model = Model::Characters {
                merges: Merges::new(&vocab, &gguf.merges)?,
                pre: PreTokenizer::lines()?,
                bytes: Box::new(spm::byte_ids(&vocab)),
            };
            // Published files of this model say false where the model needs it.
            add_bos = Some(true);
            (model, sentencepiece_decoder(false))
        }
        "llama" => {
            if gguf.scores.len() != gguf.tokens.len() {
                return Err(Error::malformed(
                    FORMAT,
                    format!(
                        "{} scores for {} tokens",
                        gguf.scores.len(),
                        gguf.tokens.len()
                    ),
                ));
            }
            let space_prefix = gguf.add_space_prefix.unwrap_or(true);
            roles.bos = roles.bos.or_else(|| vocab.id("<s>"));
            roles.eos = roles.eos.or_else(|| vocab.id("</s>"));
            roles.unk = roles.unk.or_else(|| vocab.id("<unk>"));
            let spm = Box::new(Spm::new(&vocab, gguf.scores, roles.unk));
            add_bos = add_bos.or(Some(true));
            (
                Model::Spm { spm, space_prefix },
                sentencepiece_decoder(space_prefix),
            )
        }
        other => {
            return Err(Error::unsupported(format!(
                "tokenizer.ggml.model {other:?}; supported: gpt2, llama, gemma4. The model's tokenizer.json, \
                 where there is one, works in its place"
            )));
        }
    };
    let phi3 = gguf.name.as_deref().is_some_and(|name| {
        let name = name.to_lowercase();
        name.contains("phi-3") || name.contains("phi3")
    });
    let wanted = vocab.iter().filter(|(_, token)| {
        matches!(token.kind, Kind::Added | Kind::Special) && !token.piece.is_empty()
    });
    let wanted = wanted.map(|(id, token)| Wanted {
        text: token.piece.to_string(),
        id,
        special: token.kind.is_special(),
        rstrip: phi3 && !matches!(&*token.piece, "<unk>" | "<s>" | "<|endoftext|>"),
        ..Wanted::default()
    });
    let splitter = Splitter::new(wanted.collect())?;
    let (add_bos, add_eos) = (add_bos.unwrap_or(false), gguf.add_eos.unwrap_or(false));
    let encoder = GgufEncoder {
        splitter,
        model,
        add_bos,
        add_eos,
    };
    Ok(Parts {
        vocab,
        encoder,
        decoder: Decoder::new(decoder),
        roles,
    })
}

fn check_lengths(gguf: &GgufVocab) -> Result<()> {
    let n = gguf.tokens.len();
    if n == 0 {
        return Err(Error::malformed(
            FORMAT,
            "no tokens (tokenizer.ggml.tokens)",
        ));
    }
    if n > MAX_ID as usize {
        return Err(Error::Limit {
            what: "tokens",
            max: MAX_ID.into(),
            got: n as u64,
        });
    }
    if !gguf.token_types.is_empty() && gguf.token_types.len() != n {
        let types = gguf.token_types.len();
        return Err(Error::malformed(
            FORMAT,
            format!("{types} token types for {n} tokens"),
        ));
    }
    if gguf.merges.len() > 4 * MAX_ID as usize {
        let (max, got) = (4 * u64::from(MAX_ID), gguf.merges.len() as u64);
        return Err(Error::Limit {
            what: "merges",
            max,
            got,
        });
    }
    Ok(())
}

/// What `tokenizer.json` files of SentencePiece models have as their decoder.
fn sentencepiece_decoder(space_prefix: bool) -> Vec<Step> {
    let pattern = Pattern::Text(SPACE.to_owned());
    let mut steps = vec![
        Step::Replace {
            pattern,
            content: " ".to_owned(),
        },
        Step::ByteFallback,
        Step::Fuse,
    ];
    if space_prefix {
        steps.push(Step::Strip {
            content: ' ',
            start: 1,
            stop: 0,
        });
    }
    steps
}

impl GgufEncoder {
    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        roles: &Roles,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        if add_special && self.add_bos {
            ids.extend(roles.bos);
        }
        let mut after_token = true;
        for part in self.splitter.split(text, parse_special) {
            match part {
                Part::Token(id) => {
                    ids.push(id);
                    after_token = true;
                }
                Part::Text { text, .. } => {
                    self.model
                        .encode(vocab, roles, text, after_token, &mut ids)?;
                    after_token = false;
                }
            }
        }
        if add_special && self.add_eos {
            ids.extend(roles.eos);
        }
        Ok(ids)
    }
}

impl Model {
    /// `opens`: whether the text stands at the beginning or after a token matched as it stands.
    fn encode(
        &self,
        vocab: &Vocab,
        roles: &Roles,
        text: &str,
        opens: bool,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        match self {
            Model::ByteLevel {
                merges,
                pre,
                ignore_merges,
                bytes,
            } => {
                let mut symbols = Vec::new();
                let mut spelled = String::new();
                for word in pre.words(text) {
                    let word = text.get(word).unwrap_or_default();
                    if *ignore_merges {
                        spelled.clear();
                        spelled.extend(word.bytes().map(byte_to_char));
                        if let Some(id) = vocab.id(&spelled) {
                            ids.push(id);
                            continue;
                        }
                    }
                    symbols.clear();
                    for b in word.bytes() {
                        let id = bytes[b as usize].or(roles.unk).ok_or_else(|| {
                            Error::invalid(format!(
                                "the vocabulary has no token for the byte 0x{b:02X}"
                            ))
                        })?;
                        symbols.push(id);
                    }
                    merges.apply(&mut symbols);
                    ids.extend_from_slice(&symbols);
                }
            }
            Model::Characters { merges, pre, bytes } => {
                let text = escape(text, false)?;
                let mut symbols = Vec::new();
                for word in pre.words(&text) {
                    symbols.clear();
                    for c in text.get(word).unwrap_or_default().chars() {
                        let mut buffer = [0; 4];
                        let piece: &str = c.encode_utf8(&mut buffer);
                        match vocab.id(piece) {
                            Some(id) => symbols.push(id),
                            None => spm::push_bytes(bytes, roles.unk, piece, &mut symbols)?,
                        }
                    }
                    merges.apply(&mut symbols);
                    ids.extend_from_slice(&symbols);
                }
            }
            Model::Spm { spm, space_prefix } => {
                spm.encode(vocab, &escape(text, *space_prefix && opens)?, ids)?;
            }
        }
        Ok(())
    }
}

/// Spaces as `▁`, with one more in front if asked for.
fn escape(text: &str, prefix: bool) -> Result<String> {
    let mut out = String::with_capacity(text.len() + text.len() / 2 + SPACE.len());
    if prefix {
        out.push_str(SPACE);
    }
    for c in text.chars() {
        if c == ' ' {
            out.push_str(SPACE)
        } else {
            out.push(c)
        }
    }
    if out.len() > 4 * MAX_TEXT {
        return Err(Error::Limit {
            what: "bytes of text to encode at once",
            max: 4 * MAX_TEXT as u64,
            got: out.len() as u64,
        });
    }
    Ok(out)
}
