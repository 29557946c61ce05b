//! A `tokenizer.json` as GGUF metadata.
//!
//! GGUF names how text is cut into words by a kind and not by a pattern. The kind written is one under which the vocabulary gives
//! the ids that the file's own tokenizer gives for a probe of many scripts; where there is none the conversion is refused.

use crate::checkpoint::Checkpoint;
use crate::text_side::TextSide;
use crate::{Error, Result};
use firelight_tensor::gguf::Value;
use firelight_text::{GgufVocab, Tokenizer, TokenizerConfig};
use serde_json::Value as Json;
use std::collections::HashMap;

/// Kinds of `tokenizer.ggml.pre`, those of the families that are converted first.
const KINDS: [&str; 13] = [
    "llama-bpe",
    "qwen2",
    "smollm",
    "gpt-2",
    "qwen35",
    "tekken",
    "gpt-4o",
    "starcoder",
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
    "falcon",
    "default",
];

/// Words, numbers, runs of spaces and newlines, contractions, marks and scripts that the kinds cut differently. Composed characters
/// only: GGUF has no normalisation.
const PROBE: &str = "Hello  World's it'S I'LL they've\u{2019}s 1 23 456 12345\n\n\n  indented\t\ttabs   !!!??? a_b x=y;\r\n \
    na\u{ef}ve caf\u{e9} Stra\u{df}e \u{65e5}\u{672c}\u{8a9e}\u{30c6}\u{30b9}\u{30c8} \u{41f}\u{440}\u{438}\u{432}\u{435}\u{442} \
    \u{1f600}\u{1f44d}\u{1f3fd} \u{ff13}\u{ff14} \u{bd} \u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947} CamelCASEWord foo.bar(baz) \n end  ";

fn json(checkpoint: &Checkpoint) -> Result<Json> {
    let file = checkpoint.side_file("tokenizer.json")?.ok_or_else(|| {
        Error::malformed(
            checkpoint.root().display().to_string(),
            "there is no tokenizer.json",
        )
    })?;
    serde_json::from_slice(&file).map_err(|e| malformed(e.to_string()))
}

/// The keys `tokenizer.*`; the vocabulary is filled up to `size` tokens.
pub(super) fn metadata(checkpoint: &Checkpoint, size: usize) -> Result<Vec<(String, Value)>> {
    let json = json(checkpoint)?;
    let text = TextSide::open(checkpoint)?;
    let original = &text.tokenizer;
    let mut vocab = pieces(&json, size)?;
    vocab.bos = original.bos();
    vocab.eos = original.eos().or(checkpoint.eos_ids()?.first().copied());
    vocab.unk = original.unk();
    vocab.pad = original.pad();
    let (bare, whole) = (original.encode("a", false)?, original.encode("a", true)?);
    vocab.add_bos = Some(
        vocab
            .bos
            .is_some_and(|bos| whole.first() == Some(&bos) && bare.first() != Some(&bos)),
    );
    vocab.add_eos = Some(
        vocab
            .eos
            .is_some_and(|eos| whole.last() == Some(&eos) && bare.last() != Some(&eos)),
    );
    if vocab.model == "llama" {
        vocab.add_space_prefix = Some(bare != original.encode(" a", false)? && prefixes(&json));
    }
    let vocab = with_kind(vocab, original)?;
    let mut keys = Vec::new();
    let mut add = |name: &str, value: Value| keys.push((format!("tokenizer.ggml.{name}"), value));
    add("model", Value::from(vocab.model));
    if let Some(pre) = vocab.pre {
        add("pre", Value::from(pre));
    }
    add("tokens", Value::from(vocab.tokens));
    add("token_type", Value::from(vocab.token_types));
    if !vocab.scores.is_empty() {
        add("scores", Value::from(vocab.scores));
    }
    if !vocab.merges.is_empty() {
        add("merges", Value::from(vocab.merges));
    }
    for (name, id) in [
        ("bos_token_id", vocab.bos),
        ("eos_token_id", vocab.eos),
        ("unknown_token_id", vocab.unk),
        ("padding_token_id", vocab.pad),
    ] {
        if let Some(id) = id {
            add(name, Value::U32(id));
        }
    }
    for (name, flag) in [
        ("add_bos_token", vocab.add_bos),
        ("add_eos_token", vocab.add_eos),
        ("add_space_prefix", vocab.add_space_prefix),
    ] {
        if let Some(flag) = flag {
            add(name, Value::Bool(flag));
        }
    }
    if let Some(template) = template(checkpoint)? {
        keys.push(("tokenizer.chat_template".into(), Value::from(template)));
    }
    Ok(keys)
}

/// The keys `tokenizer.*` of a WordPiece vocabulary, filled up to `size` tokens: pieces that begin a word get the mark that GGUF
/// has for it, those that go on lose theirs.
pub(super) fn word_pieces(checkpoint: &Checkpoint, size: usize) -> Result<Vec<(String, Value)>> {
    let json = json(checkpoint)?;
    let model = &json["model"];
    if model["type"].as_str() != Some("WordPiece") {
        return Err(Error::Unsupported(format!(
            "a bert tokenizer of type {} as GGUF; WordPiece is written",
            model["type"]
        )));
    }
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or("##");
    let (mut tokens, mut types) = slots(&json, size, |piece| match piece.strip_prefix(prefix) {
        Some(rest) => (rest.to_owned(), 1),
        None => (format!("\u{2581}{piece}"), 1),
    })?;
    let mut keys = Vec::new();
    let special = |names: &[&str], piece: &str| {
        let added = json["added_tokens"].as_array().into_iter().flatten();
        let found = added.filter(|a| a["content"].as_str() == Some(piece));
        let id = found
            .filter_map(|a| u32::try_from(a["id"].as_u64()?).ok())
            .next();
        let key = |name: &&str| Some((format!("tokenizer.ggml.{name}_token_id"), Value::U32(id?)));
        names.iter().filter_map(key).collect::<Vec<_>>()
    };
    keys.extend(special(&["cls", "bos"], "[CLS]"));
    // So it is spelled.
    keys.extend(special(&["seperator"], "[SEP]"));
    keys.extend(special(&["unknown"], "[UNK]"));
    keys.extend(special(&["padding"], "[PAD]"));
    keys.extend(special(&["mask"], "[MASK]"));
    let tokens = fill(&mut tokens, &mut types);
    // Accents go with capitals where the file does not say.
    let normalizer = &json["normalizer"];
    let lowercase = normalizer["lowercase"].as_bool() == Some(true);
    let strip = normalizer["strip_accents"].as_bool().unwrap_or(lowercase);
    for (name, value) in [
        ("normalizer.lowercase", Value::Bool(lowercase)),
        ("normalizer.strip_accents", Value::Bool(strip)),
        ("model", Value::from("bert".to_owned())),
        ("tokens", Value::from(tokens)),
        ("token_type", Value::from(types)),
    ] {
        keys.push((format!("tokenizer.ggml.{name}"), value));
    }
    Ok(keys)
}

fn template(checkpoint: &Checkpoint) -> Result<Option<String>> {
    if let Some(bytes) = checkpoint.side_file("chat_template.jinja")? {
        return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
    }
    let config = match checkpoint.side_file("tokenizer_config.json")? {
        Some(bytes) => TokenizerConfig::from_json(&bytes)?,
        None => return Ok(None),
    };
    Ok(config.chat_template(false).map(str::to_owned))
}

fn malformed(what: impl Into<String>) -> Error {
    Error::malformed("tokenizer.json", what)
}

/// Pieces by id and their types: `piece` gives both for those of the model, added ones are as they are.
#[allow(clippy::type_complexity)]
fn slots(
    json: &Json,
    size: usize,
    piece: impl Fn(&str) -> (String, i32),
) -> Result<(Vec<Option<String>>, Vec<i32>)> {
    let model = &json["model"];
    let vocab = model["vocab"]
        .as_object()
        .ok_or_else(|| malformed("`model.vocab` is missing"))?;
    let mut tokens: Vec<Option<String>> = vec![None; size];
    let mut types = vec![1; size];
    let mut place = |id: Option<u64>, (piece, kind): (String, i32)| -> Result<()> {
        let slot = id
            .and_then(|id| usize::try_from(id).ok())
            .filter(|&id| id < size);
        let id = slot.ok_or_else(|| {
            malformed(format!(
                "token `{piece}` has an id beyond `vocab_size` {size}"
            ))
        })?;
        (tokens[id], types[id]) = (Some(piece), kind);
        Ok(())
    };
    for (name, id) in vocab {
        place(id.as_u64(), piece(name))?;
    }
    let unk = model["unk_token"].as_str();
    let whole = model["byte_fallback"].as_bool() == Some(true);
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let piece = added["content"]
            .as_str()
            .ok_or_else(|| malformed("`added_tokens` without `content`"))?;
        let kind = match added["special"].as_bool() {
            _ if whole && unk == Some(piece) => 2,
            Some(true) => 3,
            _ => 4,
        };
        place(added["id"].as_u64(), (piece.to_owned(), kind))?;
    }
    Ok((tokens, types))
}

/// Ids that no token has are padding of the embedding.
fn fill(tokens: &mut [Option<String>], types: &mut [i32]) -> Vec<String> {
    let filled = tokens.iter_mut().zip(types).enumerate();
    let filled = filled.map(|(id, (token, kind))| {
        token.take().unwrap_or_else(|| {
            *kind = 5;
            format!("[PAD{id}]")
        })
    });
    filled.collect()
}

/// The pieces by id, their types, and the merges or scores.
fn pieces(json: &Json, size: usize) -> Result<GgufVocab> {
    let model = &json["model"];
    if model["type"].as_str().unwrap_or("BPE") != "BPE" {
        return Err(Error::Unsupported(format!(
            "a tokenizer of type {} as GGUF; BPE is written",
            model["type"]
        )));
    }
    let byte_level = !model["byte_fallback"].as_bool().unwrap_or(false);
    let unk = model["unk_token"].as_str();
    let (mut tokens, mut types) = slots(json, size, |piece| {
        let byte = piece.len() == 6 && piece.starts_with("<0x") && piece.ends_with('>');
        let kind = match () {
            () if !byte_level && byte => 6,
            () if unk == Some(piece) => 2,
            () => 1,
        };
        (piece.to_owned(), kind)
    })?;
    let tokens = fill(&mut tokens, &mut types);
    let merges = merges(model)?;
    let mut out = GgufVocab {
        model: if byte_level { "gpt2" } else { "llama" }.to_owned(),
        tokens,
        token_types: types,
        ..GgufVocab::default()
    };
    if byte_level {
        out.merges = merges.iter().map(|[a, b]| format!("{a} {b}")).collect();
        return Ok(out);
    }
    // What is merged first scores best.
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (rank, [a, b]) in merges.iter().enumerate() {
        ranks.entry(format!("{a}{b}")).or_insert(rank);
    }
    let score = |piece: &String| ranks.get(piece).map_or(-1e9, |&rank| -(rank as f32));
    out.scores = out.tokens.iter().map(score).collect();
    Ok(out)
}

/// `model.merges`, in either spelling.
fn merges(model: &Json) -> Result<Vec<[String; 2]>> {
    let list = model["merges"].as_array().into_iter().flatten();
    let pairs = list.map(|merge| {
        let pair = match merge {
            Json::String(s) => s.split_once(' '),
            Json::Array(pair) => match &pair[..] {
                [Json::String(a), Json::String(b)] => Some((a.as_str(), b.as_str())),
                _ => None,
            },
            _ => None,
        };
        let (a, b) = pair
            .ok_or_else(|| malformed(format!("{merge} in `model.merges`; expected two pieces")))?;
        Ok([a.to_owned(), b.to_owned()])
    });
    pairs.collect()
}

/// True if the normaliser puts a space in front.
fn prefixes(json: &Json) -> bool {
    let text = json["normalizer"].to_string() + &json["pre_tokenizer"].to_string();
    text.contains("\"Prepend\"")
        || text.contains("\"prepend_scheme\":\"always\"")
        || text.contains("\"prepend_scheme\":\"first\"")
}

/// The vocabulary with a kind under which it encodes the probe as the original does.
fn with_kind(vocab: GgufVocab, original: &Tokenizer) -> Result<GgufVocab> {
    let expected = original.encode(PROBE, true)?;
    let kinds: Vec<Option<&str>> = match vocab.model.as_str() {
        "gpt2" => KINDS.iter().copied().map(Some).collect(),
        _ => vec![Some("default"), None],
    };
    for kind in kinds {
        let mut candidate = vocab.clone();
        candidate.pre = kind.map(str::to_owned);
        let tokenizer = Tokenizer::from_gguf(candidate.clone())?;
        if tokenizer.encode(PROBE, true)? == expected {
            return Ok(candidate);
        }
    }
    Err(Error::Unsupported(
        "this tokenizer as GGUF: no kind of word splitting that GGUF names gives its tokens".into(),
    ))
}
