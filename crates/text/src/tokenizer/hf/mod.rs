//! `tokenizer.json` through the crate `tokenizers`.
//!
//! That crate has the normalizers, the models and the added tokens. The vocabulary, the decoder and the cutting
//! into words are read here: decoding is ours, its reader knows few regular expressions, and what it could
//! not bear (an id of 2³²−1, a vocabulary that is no object) is refused before it sees it.

mod model;
mod pre;

use std::sync::Mutex;

use model::Bpe;
use pre::Cut;
use serde_json::Value;
use tokenizers::canonicalize_value;
use tokenizers::pipeline::{
    Model, PipelineModelScratch, PipelineToken, PipelineTokenizer, Segment, SpecialSegmentIterator,
    normalize_all,
};

use super::vocab::{Kind, MAX_ID, Vocab};
use crate::decode::{self, Decoder};
use crate::{Error, Result};

const FORMAT: &str = "tokenizer.json";

/// Larger files are refused; the largest published ones have about 35 MB.
const MAX_BYTES: usize = 256 << 20;

/// Bytes a text may have when normalized.
const MAX_NORMAL: u64 = 2 << 30;

pub(super) struct Parts {
    pub(super) vocab: Vocab,
    pub(super) encoder: HfEncoder,
    pub(super) decoder: Decoder,
}

/// Encodes with the parts of a `tokenizers` pipeline, in its order: tokens that stand in the raw text,
/// the normalizers, tokens that stand in the normalized text, cutting into words, the model, the template.
pub(super) struct HfEncoder {
    pipeline: PipelineTokenizer,
    cutters: Vec<Cut>,
    prefix_space: bool,
    /// Where the model is BPE; otherwise the pipeline has it.
    bpe: Option<Bpe>,
    /// How much longer than a text its normal form can be, as a factor.
    growth: u64,
    scratch: Mutex<Vec<PipelineModelScratch>>,
}

impl std::fmt::Debug for HfEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HfEncoder")
            .field("cutters", &self.cutters)
            .finish_non_exhaustive()
    }
}

impl HfEncoder {
    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>> {
        let got = text.len() as u64 * self.growth;
        if got > MAX_NORMAL {
            let what = "bytes of text to encode at once, with what its normal form adds";
            return Err(Error::Limit {
                what,
                max: MAX_NORMAL,
                got,
            });
        }
        let around = &self.pipeline.get_post_processor().single;
        let template =
            |run: &[(PipelineToken, u8)]| run.iter().map(|(id, _)| id.id()).collect::<Vec<_>>();
        let mut ids: Vec<u32> = Vec::with_capacity(text.len() / 3 + 4);
        if add_special {
            ids.extend(template(&around.prefix));
        }
        let mut state = State {
            vocab,
            ids: &mut ids,
            bpe: model::Scratch::default(),
            theirs: self.bpe.is_none().then(|| self.take_scratch()),
            pieces: Vec::new(),
        };
        let result = self.sequence(text, parse_special, &mut state);
        if let Some(scratch) = state.theirs
            && let Ok(mut pool) = self.scratch.lock()
            && pool.len() < 8
        {
            pool.push(scratch);
        }
        result?;
        if add_special {
            ids.extend(template(&around.suffix));
        }
        Ok(ids)
    }

    fn take_scratch(&self) -> PipelineModelScratch {
        let kept = self.scratch.lock().ok().and_then(|mut pool| pool.pop());
        kept.unwrap_or_else(|| self.pipeline.get_model().init_scratch())
    }

    fn sequence(&self, text: &str, parse_special: bool, state: &mut State<'_>) -> Result<()> {
        let added = self.pipeline.get_added_vocabulary();
        for segment in SpecialSegmentIterator::new(text, added, false, !parse_special) {
            let (raw, offset) = match segment {
                Segment::SpecialToken(id) => {
                    state.ids.push(id);
                    continue;
                }
                Segment::Text { text, input_offset } => (text, input_offset),
            };
            let normal =
                normalize_all(self.pipeline.get_normalizers(), raw, offset).map_err(cannot)?;
            for segment in SpecialSegmentIterator::new(&normal, added, true, !parse_special) {
                match segment {
                    Segment::SpecialToken(id) => state.ids.push(id),
                    Segment::Text { text, .. } if self.prefix_space && !text.starts_with(' ') => {
                        self.words(&format!(" {text}"), state)?;
                    }
                    Segment::Text { text, .. } => self.words(text, state)?,
                }
            }
        }
        Ok(())
    }

    fn words(&self, text: &str, state: &mut State<'_>) -> Result<()> {
        let spans = pre::cut(&self.cutters, text).map_err(cannot)?;
        if let Some(bpe) = &self.bpe {
            for span in spans {
                let word = text.get(span.range()).unwrap_or_default();
                bpe.encode(state.vocab, word, &mut state.bpe, state.ids)?;
            }
        } else if let Some(scratch) = &mut state.theirs {
            state.pieces.clear();
            let model = self.pipeline.get_model();
            model
                .tokenize_spans(text, &spans, scratch, &mut state.pieces)
                .map_err(cannot)?;
            state
                .ids
                .extend(state.pieces.iter().map(|piece| piece.id()));
        }
        Ok(())
    }
}

/// What one call of `encode` works with.
struct State<'a> {
    vocab: &'a Vocab,
    ids: &'a mut Vec<u32>,
    bpe: model::Scratch,
    theirs: Option<PipelineModelScratch>,
    pieces: Vec<PipelineToken>,
}

fn cannot(e: tokenizers::Error) -> Error {
    Error::invalid(format!("this text cannot be encoded: {e}"))
}

pub(super) fn read(bytes: &[u8]) -> Result<Parts> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::Limit {
            what: "bytes of tokenizer.json",
            max: MAX_BYTES as u64,
            got: bytes.len() as u64,
        });
    }
    let mut root: Value =
        serde_json::from_slice(bytes).map_err(|e| Error::json(FORMAT, bytes, &e))?;
    let vocab = read_vocab(&root)?;
    let decoder = Decoder::new(decode::parse(root.get("decoder"))?);
    let prefix_space = pre::take_prefix_space(&mut root);
    let unsupported = |e: &dyn std::fmt::Display| Error::unsupported(format!("{FORMAT}: {e}"));
    canonicalize_value(&mut root).map_err(|e| unsupported(&e))?;
    // The reader of `tokenizers` 1.0.0-rc.3 takes only the regular expressions it knows by heart, so
    // cutting into words is set up here.
    let cutters = match root.get_mut("pre_tokenizer").map(Value::take) {
        Some(node) => pre::read(&node)?,
        None => Vec::new(),
    };
    let growth = growth(root.get("normalizer"), 0)?;
    let bpe = match root.get_mut("model") {
        Some(model) if model.get("type").and_then(Value::as_str) == Some("BPE") => {
            let bpe = Bpe::read(model, &vocab)?;
            *model = stand_in(&vocab);
            Some(bpe)
        }
        _ => None,
    };
    let canonical = root.to_string();
    drop(root);
    let pipeline = tokenizers::from_json(&canonical).map_err(|e| unsupported(&e))?;
    let scratch = Mutex::new(Vec::new());
    let encoder = HfEncoder {
        pipeline,
        cutters,
        prefix_space,
        bpe,
        growth,
        scratch,
    };
    Ok(Parts {
        vocab,
        encoder,
        decoder,
    })
}

/// A model that knows the added tokens and nothing else: what the pipeline needs to find them in text.
fn stand_in(vocab: &Vocab) -> Value {
    let added = vocab.iter().filter(|(_, token)| token.kind != Kind::Normal);
    let mut pieces: serde_json::Map<String, Value> = added
        .map(|(id, token)| (token.piece.to_string(), id.into()))
        .collect();
    let unk = "<firelight-unknown>";
    pieces.insert(unk.to_owned(), (MAX_ID + 1).into());
    serde_json::json!({"type": "WordLevel", "unk_token": unk, "vocab": pieces})
}

/// How much longer a text can get under these normalizers.
fn growth(node: Option<&Value>, depth: u32) -> Result<u64> {
    let Some(node) = node.filter(|node| !node.is_null()) else {
        return Ok(1);
    };
    if depth > 8 {
        return Err(Error::Limit {
            what: "nested normalizers",
            max: 8,
            got: depth.into(),
        });
    }
    let length = |field: &str| {
        let text = node.get(field).and_then(Value::as_str);
        text.map_or(1, |text| text.len() as u64)
    };
    Ok(
        match node.get("type").and_then(Value::as_str).unwrap_or_default() {
            "Sequence" => {
                let members = node.get("normalizers").and_then(Value::as_array);
                let mut product = 1u64;
                for member in members.into_iter().flatten() {
                    product = product.saturating_mul(growth(Some(member), depth + 1)?);
                }
                product
            }
            // A match may be empty: once per byte and once at the end.
            "Replace" => length("content").max(1) + 1,
            "Prepend" => length("prepend") + 1,
            // A space becomes `▁`, and one is put in front.
            "MetaspaceNormalizer" => 4,
            "ByteLevel" => 2,
            // The longest decomposition of a character, in bytes per byte.
            "NFD" | "NFKD" | "NFKC" | "NFC" | "Precompiled" => 18,
            "Lowercase" | "BertNormalizer" => 8,
            _ => 1,
        },
    )
}

fn read_vocab(root: &Value) -> Result<Vocab> {
    let model = root
        .get("model")
        .ok_or_else(|| bad("expected a \"model\""))?;
    let mut vocab;
    match model.get("vocab") {
        Some(Value::Object(pieces)) => {
            vocab = Vocab::with_capacity(pieces.len());
            for (piece, id) in pieces {
                vocab.insert(read_id(id, piece)?, piece, Kind::Normal)?;
            }
        }
        // Unigram: [[piece, score], …] by id.
        Some(Value::Array(pieces)) => {
            vocab = Vocab::with_capacity(pieces.len());
            for (id, entry) in pieces.iter().enumerate() {
                let piece = entry.get(0).and_then(Value::as_str);
                let piece = piece.ok_or_else(|| bad("a vocabulary entry is [piece, score]"))?;
                let id = u32::try_from(id).unwrap_or(u32::MAX);
                vocab.insert(id, piece, Kind::Normal)?;
            }
        }
        _ => return Err(bad("expected \"model\".\"vocab\" as an object or an array")),
    }
    let added = match root.get("added_tokens") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(added)) => added,
        Some(_) => return Err(bad("expected \"added_tokens\" as an array")),
    };
    for token in added {
        let content = token.get("content").and_then(Value::as_str);
        let content = content.ok_or_else(|| bad("an added token has no \"content\""))?;
        let id = read_id(token.get("id").unwrap_or(&Value::Null), content)?;
        // A token that the model has keeps the model's id, whatever is written here.
        let id = vocab.id(content).unwrap_or(id);
        let special = token
            .get("special")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        vocab.insert(
            id,
            content,
            if special { Kind::Special } else { Kind::Added },
        )?;
    }
    Ok(vocab)
}

fn read_id(value: &Value, piece: &str) -> Result<u32> {
    let id = value
        .as_u64()
        .ok_or_else(|| bad(format!("token {piece:.40?}: expected an id, found {value}")))?;
    match u32::try_from(id) {
        Ok(id) if id <= MAX_ID => Ok(id),
        _ => Err(Error::Limit {
            what: "token id",
            max: MAX_ID.into(),
            got: id,
        }),
    }
}

fn bad(what: impl Into<String>) -> Error {
    Error::malformed(FORMAT, what)
}
