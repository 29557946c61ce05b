//! How text is cut into words before byte-level BPE: the kinds of `tokenizer.ggml.pre`.
//!
//! A kind is a list of cutters, run one after the other: each cuts the words the one before it left,
//! and text that no match covers is a word of its own. Patterns are those of the models' own
//! `tokenizer.json`. They are run by a linear-time engine, which has no look-ahead: the one the patterns
//! use, `\s+(?!\S)|\s+` (a run of spaces leaves its last one to the word that follows), is done by hand.

use std::ops::Range;

use regex::Regex;

use crate::{Error, Result};

/// English contractions, as all but the oldest patterns have them.
const CONTRACTION: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)";

/// GPT-2's pattern. It has no alternative for newlines: `\s+` covers them.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";

/// CJK as the DeepSeek coder and LLM tokenizers cut it: as their file has it, ranges and all.
const DEEPSEEK_CJK: &str = r"[一-龥\x{800}-一가-\x{D7FF}]+";

/// Letters with case, as the DeepSeek LLM tokenizer lists them.
const DEEPSEEK_LETTERS: &str = "[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕ\
     ἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ\
     𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]";

/// One cutter.
#[derive(Debug)]
struct Cutter {
    regex: Regex,
    /// Whether the pattern ends in `\s+(?!\S)|\s+`, given here as `\s+`.
    spaces: Option<Spaces>,
}

/// What a match of the pattern's `\s+` alternative looks like.
#[derive(Clone, Copy, Debug)]
enum Spaces {
    /// Any match that is all white space.
    Any,
    /// … and has no newline: an earlier alternative takes those.
    NoNewline,
}

/// The cutters of a kind.
#[derive(Debug)]
pub(crate) struct PreTokenizer {
    cutters: Vec<Cutter>,
}

/// What a kind implies besides its patterns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KindFlags {
    /// A word that is a token is taken whole, whatever the merges say.
    pub(crate) ignore_merges: bool,
    /// BOS before a text where the file does not say.
    pub(crate) add_bos: bool,
}

/// Every kind, for error messages and the README.
pub(crate) const KINDS: &[&str] = &[
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "qwen35",
    "smollm",
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
    "falcon",
    "starcoder",
    "refact",
    "command-r",
    "mpt",
    "olmo",
    "stablelm2",
    "dbrx",
    "tekken",
    "gpt-4o",
    "default",
];

impl PreTokenizer {
    /// The cutters of a `tokenizer.ggml.pre`.
    pub(crate) fn of_kind(kind: &str) -> Result<(Self, KindFlags)> {
        let mut flags = KindFlags::default();
        let gpt2 = (GPT2.to_owned(), Some(Spaces::Any));
        let plain = |pattern: &str| (pattern.to_owned(), None);
        let cutters = match kind {
            "gpt-2" | "phi-2" | "roberta-bpe" | "jina-es" | "jina-de" | "jina-v1-en" | "jina-v2-es"
            | "jina-v2-de" | "jina-v2-code" | "a.x-4.0" | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling"
            | "exaone4" | "gigachat" | "mellum" | "modern-bert" => vec![gpt2],
            "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b" => {
                vec![plain(r"\p{N}"), gpt2]
            }
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0"
            | "lfm2" | "jina-v5-nano" => {
                flags = KindFlags { ignore_merges: true, add_bos: true };
                vec![cl100k(r"\p{N}{1,3}")]
            }
            "dbrx" | "smaug-bpe" | "chatglm-bpe" | "glm4" => vec![cl100k(r"\p{N}{1,3}")],
            "qwen2" | "stablelm2" | "hunyuan" | "solar-open" | "deepseek-r1-qwen" | "megrez" | "grok-2"
            | "kormo" => vec![cl100k(r"\p{N}")],
            "qwen35" => vec![(
                format!(
                    r"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+"
                ),
                Some(Spaces::NoNewline),
            )],
            "deepseek-llm" => vec![
                plain(r"[\r\n]"),
                (format!(r"\s?{DEEPSEEK_LETTERS}+"), None),
                plain(r"\s?[!-/:-~！-／：-～‘-‟\x{3000}-。]+"),
                plain(r"\s+$"),
                plain(DEEPSEEK_CJK),
                plain(r"\p{N}+"),
            ],
            "deepseek-coder" => vec![
                plain(r"[\r\n]"),
                plain(r"\s?\p{L}+"),
                plain(r"\s?\p{P}+"),
                plain(DEEPSEEK_CJK),
                plain(r"\p{N}"),
            ],
            "deepseek-v3" | "hunyuan-dense" | "joyai-llm" => vec![
                plain(r"\p{N}{1,3}"),
                plain("[一-龥\u{3040}-ゟ゠-ヿ]+"),
                (
                    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"##
                        .to_owned(),
                    Some(Spaces::NoNewline),
                ),
            ],
            "falcon" => {
                vec![plain(r"[\p{P}$+<=>^~|`]+"), gpt2, plain("[0-9][0-9][0-9]")]
            }
            "tekken" => {
                flags = KindFlags { ignore_merges: true, add_bos: true };
                vec![o200k("", r"\p{N}")]
            }
            "gpt-4o" | "llama4" | "kanana2" | "minimax-m2" => {
                vec![o200k(&format!("{CONTRACTION}?"), r"\p{N}{1,3}")]
            }
            "default" => {
                vec![plain(r"[\p{P}$+<=>^~|]+"), gpt2, plain(r"\p{N}+"), plain("[0-9][0-9][0-9]")]
            }
            other => {
                return Err(Error::unsupported(format!(
                    "pre-tokenizer kind {other:?} (tokenizer.ggml.pre); supported: {} and their aliases. \
                     The model's tokenizer.json, where there is one, works in its place",
                    KINDS.join(", ")
                )));
            }
        };
        Ok((Self::new(cutters)?, flags))
    }

    /// Runs of newlines apart from everything else: for BPE on characters.
    pub(crate) fn lines() -> Result<Self> {
        Self::new(vec![(r"[^\n]+|\n+".to_owned(), None)])
    }

    fn new(cutters: Vec<(String, Option<Spaces>)>) -> Result<Self> {
        let build = |(pattern, spaces): (String, _)| {
            let regex = Regex::new(&pattern).map_err(|e| {
                Error::unsupported(format!("pre-tokenizer pattern {pattern:?}: {e}"))
            })?;
            Ok(Cutter { regex, spaces })
        };
        Ok(Self {
            cutters: cutters.into_iter().map(build).collect::<Result<_>>()?,
        })
    }

    /// The words of `text`, in order, covering it.
    pub(crate) fn words(&self, text: &str) -> Vec<Range<usize>> {
        let mut words = Vec::new();
        if !text.is_empty() {
            words.push(0..text.len());
        }
        for cutter in &self.cutters {
            let mut cut = Vec::with_capacity(words.len());
            for word in words {
                cutter.cut(&text[word.clone()], word.start, &mut cut);
            }
            words = cut;
        }
        words
    }
}

/// The pattern of GPT-4's first tokenizer and its many children, with their rule for digits.
fn cl100k(digits: &str) -> (String, Option<Spaces>) {
    let pattern = format!(
        r"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+"
    );
    (pattern, Some(Spaces::NoNewline))
}

/// The pattern of GPT-4o's tokenizer: words are cut where upper case follows lower.
fn o200k(suffix: &str, digits: &str) -> (String, Option<Spaces>) {
    const UPPER: &str = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]";
    const LOWER: &str = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]";
    let pattern = format!(
        r"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{suffix}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{suffix}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+"
    );
    (pattern, Some(Spaces::NoNewline))
}

impl Cutter {
    fn cut(&self, text: &str, base: usize, out: &mut Vec<Range<usize>>) {
        let mut push = |from: usize, to: usize| {
            if from < to {
                out.push(base + from..base + to);
            }
        };
        let mut at = 0;
        while let Some(found) = self.regex.find_at(text, at) {
            let (from, mut to) = (found.start(), found.end());
            if let Some(spaces) = self.spaces {
                to = give_back(text, from, to, spaces);
            }
            push(at, from);
            push(from, to);
            if to <= at {
                break; // an empty match: no pattern here has one
            }
            at = to;
        }
        push(at, text.len());
    }
}

/// `\s+(?!\S)|\s+`: a run of two spaces or more before a word ends one character early.
fn give_back(text: &str, from: usize, to: usize, spaces: Spaces) -> usize {
    let run = &text[from..to];
    let all_spaces = run.chars().all(char::is_whitespace);
    let is_run = match spaces {
        Spaces::Any => all_spaces,
        Spaces::NoNewline => all_spaces && !run.contains(['\r', '\n']),
    };
    let mut chars = run.chars();
    match chars.next_back() {
        Some(last) if is_run && to < text.len() && chars.next().is_some() => to - last.len_utf8(),
        _ => to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(kind: &str, text: &str) -> Vec<String> {
        let (pre, _) = PreTokenizer::of_kind(kind).unwrap();
        let words = pre.words(text);
        assert_eq!(
            words.iter().map(|w| &text[w.clone()]).collect::<String>(),
            text
        );
        words.into_iter().map(|w| text[w].to_owned()).collect()
    }

    #[test]
    fn every_kind_listed_is_there() {
        for kind in KINDS {
            assert!(PreTokenizer::of_kind(kind).is_ok(), "{kind}");
            assert_eq!(words(kind, ""), [""; 0]);
            assert_eq!(words(kind, " a\n").concat(), " a\n");
        }
        let error = PreTokenizer::of_kind("grandma").unwrap_err().to_string();
        assert!(
            error.contains("grandma") && error.contains("qwen2"),
            "{error}"
        );
    }

    #[test]
    fn runs_of_spaces_leave_one_to_the_word() {
        assert_eq!(words("gpt-2", "a   b  "), ["a", "  ", " b", "  "]);
        assert_eq!(words("gpt-2", "a\n\nb"), ["a", "\n", "\n", "b"]);
        assert_eq!(
            words("gpt-2", "a\u{3000}\u{3000}b"),
            ["a", "\u{3000}", "\u{3000}", "b"]
        );
        assert_eq!(words("qwen2", "a \n\n b"), ["a", " \n\n", " b"]);
        assert_eq!(
            words("llama-bpe", "x  = 12345"),
            ["x", " ", " =", " ", "123", "45"]
        );
        assert_eq!(words("llama-bpe", "\n  \n  x"), ["\n  \n", " ", " x"]);
    }

    #[test]
    fn contractions_and_case() {
        assert_eq!(words("gpt-2", "it's IT'S"), ["it", "'s", " IT", "'", "S"]);
        assert_eq!(words("qwen2", "it's IT'S"), ["it", "'s", " IT", "'S"]);
        assert_eq!(
            words("gpt-4o", "helloWorld it's"),
            ["hello", "World", " it's"]
        );
    }

    #[test]
    fn long_runs_take_linear_time() {
        let text = " ".repeat(2 << 20) + "x";
        for kind in ["gpt-2", "qwen2", "deepseek-llm"] {
            let (pre, _) = PreTokenizer::of_kind(kind).unwrap();
            let words = pre.words(&text);
            assert!(words.len() <= 3, "{kind}: {}", words.len());
        }
    }
}
