//! Masks from `llguidance`.

use std::fmt;
use std::sync::Arc;

use llguidance::api::{GrammarInit, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{ParserFactory, panic_utils};

use super::Grammar;
use super::closing::{Classes, Position};
use super::schema;
use crate::{Error, Result, Tokenizer};

/// Tokens longer than this, in bytes, are not used: the tree's paths are bounded.
const LONGEST: usize = 512;

/// Bytes of all tokens together, and tokens: what the tree can hold.
const MOST: usize = 4_000_000;

/// How long a schema or a list of choices may be, in bytes.
const MAX_SOURCE: usize = 4 << 20;

fn compile(grammar: &Grammar) -> Result<TopLevelGrammar> {
    match grammar {
        Grammar::JsonSchema(schema) => Ok(TopLevelGrammar::from_json_schema(schema::prepare(
            schema, MAX_SOURCE,
        )?)),
        Grammar::Regex(pattern) => {
            // Its own parser first: it says what is wrong, and where.
            regex::Regex::new(pattern)
                .map_err(|e| Error::invalid(format!("regular expression: {e}")))?;
            // The answer is matched as a whole, so that anchors at the ends say nothing new.
            let inner = pattern.strip_prefix('^').unwrap_or(pattern);
            let inner = match inner.strip_suffix('$') {
                Some(rest) if !rest.ends_with('\\') => rest,
                _ => inner,
            };
            Ok(TopLevelGrammar::from_regex(&format!("(?:{inner})")))
        }
        Grammar::Choices(choices) => choices_grammar(choices),
    }
}

fn choices_grammar(choices: &[String]) -> Result<TopLevelGrammar> {
    if choices.is_empty() {
        return Err(Error::invalid("an empty list of choices"));
    }
    if choices.iter().any(String::is_empty) {
        return Err(Error::invalid("an empty choice"));
    }
    let size = choices.iter().map(String::len).sum::<usize>();
    if size > MAX_SOURCE {
        return Err(Error::Limit {
            what: "bytes of the choices",
            max: MAX_SOURCE as u64,
            got: size as u64,
        });
    }
    let quoted: Vec<String> = choices
        .iter()
        .map(|choice| serde_json::Value::from(choice.as_str()).to_string())
        .collect();
    Ok(TopLevelGrammar::from_lark(format!(
        "start: {}",
        quoted.join(" | ")
    )))
}

/// The tokens of a model as bytes. Cheap to clone.
#[derive(Clone)]
pub struct Vocabulary(Arc<Shared>);

struct Shared {
    factory: ParserFactory,
    env: TokEnv,
    /// Tokens with the same bytes as an earlier one, and that one.
    twins: Vec<(u32, u32)>,
    classes: Classes,
    /// Tokens the model gives logits for.
    size: usize,
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary")
            .field("size", &self.0.size)
            .finish_non_exhaustive()
    }
}

impl Vocabulary {
    /// The tokens of `tokenizer`, for a model with `size` logits a token (often a few more than it has tokens); `end_ids` end an
    /// answer and are allowed where the grammar is fulfilled.
    ///
    /// # Errors
    /// `InvalidInput` if no end id is a token, `Limit` for vocabularies beyond 4 MB.
    pub fn new(tokenizer: &Tokenizer, size: usize, end_ids: &[u32]) -> Result<Self> {
        let ends: Vec<u32> = end_ids
            .iter()
            .copied()
            .filter(|&id| (id as usize) < size)
            .collect();
        let Some(&end) = ends.first() else {
            return Err(Error::invalid(
                "a grammar needs a token that ends the answer; the model's files name none",
            ));
        };
        let mut words = Vec::with_capacity(size);
        let mut twins = Vec::new();
        let mut first = std::collections::HashMap::new();
        let mut total = 0;
        for id in 0..size as u32 {
            let word = word(tokenizer, id, &ends);
            let word = match first.entry(word.clone()) {
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(id);
                    word
                }
                std::collections::hash_map::Entry::Occupied(_) if word.is_empty() => word,
                std::collections::hash_map::Entry::Occupied(entry) => {
                    twins.push((id, *entry.get()));
                    Vec::new()
                }
            };
            total += word.len();
            words.push(word);
        }
        if total.max(size) > MOST {
            return Err(Error::Limit {
                what: "bytes of a vocabulary for a grammar",
                max: MOST as u64,
                got: total.max(size) as u64,
            });
        }
        let classes = Classes::new(&words);
        panic_utils::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let trie = TokTrie::from(&TokRxInfo::new(size as u32, end), &words);
            let trie = trie.with_eos_tokens(&ends);
            let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            let mut factory = ParserFactory::new_simple(&env)?;
            factory.quiet();
            factory.limits_mut().verbose_errors = false;
            Ok(Vocabulary(Arc::new(Shared {
                factory,
                env,
                twins,
                classes,
                size,
            })))
        }))
        .map_err(|e| Error::unsupported(format!("the vocabulary for a grammar: {e:#}")))
    }

    /// Starts an answer under `grammar`.
    ///
    /// # Errors
    /// `InvalidInput` for what is no schema or pattern, `Unsupported` naming the part that is not known, `Limit` for
    /// grammars that are too large.
    pub fn matcher(&self, grammar: &Grammar) -> Result<Matcher> {
        let compiled = compile(grammar)?;
        let parser = panic_utils::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.0
                .factory
                .create_parser_from_init_default(GrammarInit::Serialized(compiled))
        }));
        let parser = parser.map_err(|e| {
            let what = match grammar {
                Grammar::JsonSchema(_) => "this JSON Schema as a grammar",
                Grammar::Regex(_) => "this regular expression as a grammar",
                Grammar::Choices(_) => "these choices as a grammar",
            };
            Error::unsupported(format!("{what}: {e:#}"))
        })?;
        let mut inner = llguidance::Matcher::new(Ok(parser));
        if let Some(e) = inner.get_error() {
            return Err(Error::unsupported(format!("the grammar: {e}")));
        }
        // A grammar that nothing fulfils is found now.
        let mask = inner
            .compute_mask_or_eos()
            .map_err(|e| Error::unsupported(format!("the grammar: {e:#}")))?;
        if mask.is_zero() {
            return Err(Error::invalid("no text fulfils the grammar"));
        }
        Ok(Matcher {
            vocabulary: self.0.clone(),
            inner,
            json: grammar.is_json(),
            position: Position::default(),
            mask: Vec::new(),
        })
    }
}

/// The bytes of a token for the tree; none for what no grammar may use.
fn word(tokenizer: &Tokenizer, id: u32, ends: &[u32]) -> Vec<u8> {
    if ends.contains(&id) || tokenizer.is_special(id) {
        // The mark keeps it apart from text that reads the same. Only ends are ever allowed.
        let mut word = vec![TokTrie::SPECIAL_TOKEN_MARKER];
        word.extend_from_slice(format!("[{id}]").as_bytes());
        return word;
    }
    match tokenizer.id_to_token_bytes(id) {
        Some(bytes) if bytes.len() <= LONGEST => bytes.into_owned(),
        _ => Vec::new(),
    }
}

/// An answer on its way through a grammar.
pub struct Matcher {
    vocabulary: Arc<Shared>,
    inner: llguidance::Matcher,
    json: bool,
    position: Position,
    mask: Vec<u32>,
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher")
            .field("complete", &self.inner.is_stopped())
            .finish_non_exhaustive()
    }
}

impl Clone for Matcher {
    fn clone(&self) -> Self {
        Self {
            vocabulary: self.vocabulary.clone(),
            inner: self.inner.clone(),
            json: self.json,
            position: self.position,
            mask: self.mask.clone(),
        }
    }
}

impl Matcher {
    /// The tokens that may come next: bit `id mod 32` of word `⌊id / 32⌋`; never empty. With `closing`, of these only such as bring
    /// the answer to its end, where it is clear which do: for answers that run out of room.
    ///
    /// # Errors
    /// `Limit` where the grammar takes too much work.
    pub fn mask(&mut self, closing: bool) -> Result<&[u32]> {
        let shared = &self.vocabulary;
        let mask = self.inner.compute_mask_or_eos().map_err(too_complex)?;
        self.mask.clear();
        self.mask.resize(shared.size.div_ceil(32), 0);
        for (to, from) in self.mask.iter_mut().zip(mask.as_slice()) {
            *to = *from;
        }
        // Bits beyond the last token stand for nothing.
        if let (Some(last), rest @ 1..) = (self.mask.last_mut(), shared.size % 32) {
            *last &= (1 << rest) - 1;
        }
        if self.json {
            shared.classes.bound(&mut self.mask, self.position);
        }
        for &(twin, of) in &shared.twins {
            if bit(&self.mask, of) {
                set(&mut self.mask, twin);
            }
        }
        if closing {
            let mut ends = vec![0; self.mask.len()];
            for &end in shared.env.tok_trie().eos_tokens() {
                set(&mut ends, end);
            }
            let json = self.json.then_some(self.position);
            shared.classes.narrow(&mut self.mask, &ends, json);
        }
        if self.mask.iter().all(|&word| word == 0) {
            return Err(Error::unsupported(
                "the grammar cannot go on with this model's tokens",
            ));
        }
        Ok(&self.mask)
    }

    /// Takes the token that was chosen. One that ends the answer is taken where the grammar is fulfilled.
    ///
    /// # Errors
    /// `InvalidInput` for a token that the mask did not allow.
    pub fn accept(&mut self, id: u32) -> Result<()> {
        let twins = &self.vocabulary.twins;
        let id = match twins.binary_search_by_key(&id, |&(twin, _)| twin) {
            Ok(at) => twins.get(at).map_or(id, |&(_, of)| of),
            Err(_) => id,
        };
        if id as usize >= self.vocabulary.size {
            return Err(Error::invalid(format!("token {id} under a grammar")));
        }
        self.inner
            .consume_token(id)
            .map_err(|e| Error::invalid(format!("token {id} under a grammar: {e:#}")))?;
        let bytes = self.vocabulary.env.tok_trie().token(id);
        let _ = self.position.advance(bytes);
        Ok(())
    }

    /// Whether what was accepted is a whole answer.
    pub fn is_accepting(&mut self) -> bool {
        self.inner.is_stopped() && !self.inner.is_error()
            || self.inner.is_accepting().unwrap_or(false)
    }

    /// Whether nothing can follow.
    pub fn is_complete(&self) -> bool {
        self.inner.is_stopped() && !self.inner.is_error()
    }
}

fn too_complex(e: impl fmt::Display) -> Error {
    Error::unsupported(format!("the grammar is too much work for a token: {e:#}"))
}

pub(super) fn bit(mask: &[u32], id: u32) -> bool {
    mask.get(id as usize / 32)
        .is_some_and(|word| word >> (id % 32) & 1 == 1)
}

pub(super) fn set(mask: &mut [u32], id: u32) {
    if let Some(word) = mask.get_mut(id as usize / 32) {
        *word |= 1 << (id % 32);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
