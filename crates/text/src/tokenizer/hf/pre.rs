//! The `pre_tokenizer` of a `tokenizer.json`: cutting normalized text into words.

use serde_json::Value;
use tokenizers::SplitDelimiterBehavior;
use tokenizers::pipeline::{PipelinePreTokenizer, PreTokenizer, PreTokenizerScratch, Span};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::delimiter::CharDelimiterSplit;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::fixed_length::FixedLength;
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::unicode_scripts::UnicodeScripts;
use tokenizers::pre_tokenizers::whitespace::{Whitespace, WhitespaceSplit};

use super::super::pretok::Cutter;
use crate::{Error, Result};

const FORMAT: &str = "tokenizer.json";

/// More members than this are no pre-tokenizer.
const MAX_CUTTERS: usize = 64;

/// One member of a pre-tokenizer.
#[derive(Debug)]
pub(super) enum Cut {
    /// A pattern, in linear time.
    Linear(Cutter),
    /// Anything else.
    Theirs(Box<PipelinePreTokenizer>),
}

/// Cuts `text` by each member in turn, each within the words of the one before.
pub(super) fn cut(cutters: &[Cut], text: &str) -> tokenizers::Result<Vec<Span>> {
    let whole = u32::try_from(text.len()).map_err(|_| "the text is longer than 4 GiB")?;
    let mut words = Vec::new();
    if whole > 0 {
        words.push(Span::new(0, whole));
    }
    let mut scratch = PreTokenizerScratch::default();
    let (mut found, mut theirs) = (Vec::new(), Vec::new());
    for cutter in cutters {
        let mut next = Vec::with_capacity(words.len());
        for word in words {
            let part = text.get(word.range()).unwrap_or_default();
            match cutter {
                Cut::Linear(cutter) => {
                    cutter.cut(part, 0, &mut found);
                    next.extend(found.drain(..).map(|range| {
                        Span::new(
                            word.start + range.start as u32,
                            word.start + range.end as u32,
                        )
                    }));
                }
                Cut::Theirs(cutter) => {
                    cutter.pre_tokenize(part, &mut scratch, &mut theirs)?;
                    next.extend(
                        theirs
                            .drain(..)
                            .map(|s| Span::new(word.start + s.start, word.start + s.end)),
                    );
                }
            }
        }
        words = next;
    }
    Ok(words)
}

/// `ByteLevel` may put a space before the text. The format that `tokenizers` 1.0 reads cannot say so; here
/// it is taken out and kept aside, where it is the only pre-tokenizer.
pub(super) fn take_prefix_space(root: &mut Value) -> bool {
    let Some(node) = root.get_mut("pre_tokenizer").and_then(Value::as_object_mut) else {
        return false;
    };
    if node.get("type").and_then(Value::as_str) != Some("ByteLevel") {
        return false;
    }
    // Without the field the reference has it true.
    node.insert("add_prefix_space".to_owned(), false.into())
        .is_none_or(|v| v == Value::Bool(true))
}

/// Reads the pre-tokenizer in the spelling of format 2.0.
pub(super) fn read(node: &Value) -> Result<Vec<Cut>> {
    let mut cutters = Vec::new();
    if !node.is_null() {
        push(node, &mut cutters)?;
    }
    Ok(cutters)
}

fn push(node: &Value, cutters: &mut Vec<Cut>) -> Result<()> {
    if cutters.len() >= MAX_CUTTERS {
        let (max, got) = (MAX_CUTTERS as u64, cutters.len() as u64 + 1);
        return Err(Error::Limit {
            what: "pre-tokenizers",
            max,
            got,
        });
    }
    let flag = |field: &str| node.get(field).and_then(Value::as_bool).unwrap_or(false);
    let kind = node.get("type").and_then(Value::as_str);
    let theirs = match kind.ok_or_else(|| bad("a pre-tokenizer has no \"type\""))? {
        "Sequence" => {
            let members = node.get("pretokenizers").and_then(Value::as_array);
            let members = members.ok_or_else(|| bad("a Sequence has no \"pretokenizers\""))?;
            return members.iter().try_for_each(|member| push(member, cutters));
        }
        "Split" => {
            cutters.push(split(node)?);
            return Ok(());
        }
        "Whitespace" => PipelinePreTokenizer::Whitespace(Whitespace),
        "WhitespaceSplit" => PipelinePreTokenizer::WhitespaceSplit(WhitespaceSplit),
        "BertPreTokenizer" => PipelinePreTokenizer::Bert(BertPreTokenizer),
        "UnicodeScripts" => PipelinePreTokenizer::UnicodeScripts(UnicodeScripts::new()),
        "Digits" => PipelinePreTokenizer::Digits(Digits::new(flag("individual_digits"))),
        "Punctuation" => PipelinePreTokenizer::Punctuation(Punctuation::new(behavior(node)?)),
        "CharDelimiterSplit" => {
            let delimiter = node
                .get("delimiter")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let delimiter = delimiter.chars().next();
            let delimiter =
                delimiter.ok_or_else(|| bad("CharDelimiterSplit has no \"delimiter\""))?;
            PipelinePreTokenizer::Delimiter(CharDelimiterSplit::new(delimiter))
        }
        "FixedLength" => {
            let length = node.get("length").and_then(Value::as_u64).unwrap_or(0);
            match usize::try_from(length) {
                Ok(length) if length > 0 => {
                    PipelinePreTokenizer::FixedLength(FixedLength::new(length))
                }
                _ => return Err(bad("FixedLength has no \"length\" above 0")),
            }
        }
        other => {
            return Err(Error::unsupported(format!(
                "pre-tokenizer {other:?} in tokenizer.json; supported: BertPreTokenizer, ByteLevel, CharDelimiterSplit, \
                 Digits, FixedLength, Metaspace, Punctuation, Sequence, Split, UnicodeScripts, Whitespace, WhitespaceSplit"
            )));
        }
    };
    cutters.push(Cut::Theirs(Box::new(theirs)));
    Ok(())
}

fn split(node: &Value) -> Result<Cut> {
    let behavior = behavior(node)?;
    let invert = node.get("invert").and_then(Value::as_bool).unwrap_or(false);
    let pattern = node.get("pattern");
    let field = |name| pattern.and_then(|p| p.get(name)).and_then(Value::as_str);
    let pattern = match (field("String"), field("Regex")) {
        (Some(""), _) | (_, Some("")) => return Err(bad("a Split has an empty pattern")),
        (Some(text), _) => SplitPattern::String(text.to_owned()),
        (None, Some(regex)) => {
            use SplitDelimiterBehavior::{Isolated, Removed};
            let linear = match (behavior, invert) {
                (Isolated, _) => Cutter::linear(regex, true),
                (Removed, true) => Cutter::linear(regex, false),
                _ => None,
            };
            if let Some(cutter) = linear {
                return Ok(Cut::Linear(cutter));
            }
            // A group around it keeps `tokenizers` from swapping in a grammar of its own: those for
            // `\\p{N}{1,2}` and `\\p{N}+` cut as if they said `{1,3}`.
            SplitPattern::Regex(format!("(?:{regex})"))
        }
        (None, None) => return Err(bad("a Split has no \"pattern\" of \"String\" or \"Regex\"")),
    };
    let split = Split::new(pattern, behavior, invert)
        .map_err(|e| Error::unsupported(format!("{FORMAT}: a pattern to split by: {e}")))?;
    Ok(Cut::Theirs(Box::new(PipelinePreTokenizer::Split(split))))
}

fn behavior(node: &Value) -> Result<SplitDelimiterBehavior> {
    use SplitDelimiterBehavior::{
        Contiguous, Isolated, MergedWithNext, MergedWithPrevious, Removed,
    };
    Ok(match node.get("behavior").and_then(Value::as_str) {
        None | Some("Isolated") => Isolated,
        Some("Removed") => Removed,
        Some("MergedWithPrevious") => MergedWithPrevious,
        Some("MergedWithNext") => MergedWithNext,
        Some("Contiguous") => Contiguous,
        Some(other) => return Err(bad(format!("split behavior {other:?}"))),
    })
}

fn bad(what: impl Into<String>) -> Error {
    Error::malformed(FORMAT, what)
}
