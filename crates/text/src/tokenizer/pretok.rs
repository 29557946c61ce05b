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
const DEEPSEEK_LETTERS: &str = "[\u{41}-\u{5a}\u{61}-\u{7a}\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\
     \u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\u{2af}\u{370}-\u{373}\u{376}\u{377}\
     \u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\u{3a3}-\u{3f5}\
     \u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\
     \u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\
     \u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\
     \u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\
     \u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\
     \u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\
     \u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\
     \u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\
     \u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\
     \u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\u{a680}-\u{a69b}\
     \u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\
     \u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\
     \u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\
     \u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]";

/// One cutter.
#[derive(Debug)]
pub(crate) struct Cutter {
    regex: Regex,
    /// Whether the pattern ends in `\s+(?!\S)|\s+`, given here as `\s+`.
    spaces: Option<Spaces>,
    /// Whether text that no match covers is a word, or nothing.
    keep_gaps: bool,
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
            Ok(Cutter {
                regex,
                spaces,
                keep_gaps: true,
            })
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
    /// The cutter of a pattern as a `tokenizer.json` has it, or `None` if linear time cannot be had: the
    /// pattern looks around in another way than the one that is done by hand.
    pub(crate) fn linear(pattern: &str, keep_gaps: bool) -> Option<Self> {
        const TAIL: &str = r"|\s+(?!\S)";
        let (head, tail) = match pattern.strip_suffix(r"|\s+") {
            Some(rest) => (rest.strip_suffix(TAIL)?, true),
            None => (
                pattern.strip_suffix(TAIL).unwrap_or(pattern),
                pattern.ends_with(TAIL),
            ),
        };
        let mut spaces = None;
        let mut source = pattern.to_owned();
        if tail {
            // A run that is cut short without a last `|\s+` leaves a gap, which must be a word.
            if !pattern.ends_with(r"|\s+") && !keep_gaps {
                return None;
            }
            let newlines = [r"|\s*[\r\n]+", r"|\s*[\r\n]", "|\\s*[\r\n]+"];
            let rest = newlines.iter().find_map(|n| head.strip_suffix(n));
            spaces = Some(if rest.is_some() {
                Spaces::NoNewline
            } else {
                Spaces::Any
            });
            // Nothing else may match white space alone, or its matches would be cut too.
            let rest = rest.unwrap_or(head).replace(r"[^\s", "");
            let suspicious = [
                r"\s", r"\t", " +", " *", " {", "[ ", "\n", "\t", r"|[\r\n]", r"|\n", r"\h",
            ];
            if suspicious.iter().any(|s| rest.contains(s)) {
                return None;
            }
            source = format!(r"{head}|\s+");
        }
        let regex = regex::RegexBuilder::new(&source)
            .size_limit(4 << 20)
            .build()
            .ok()?;
        (!regex.is_match("")).then_some(Self {
            regex,
            spaces,
            keep_gaps,
        })
    }

    pub(crate) fn cut(&self, text: &str, base: usize, out: &mut Vec<Range<usize>>) {
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
            if self.keep_gaps {
                push(at, from);
            }
            push(from, to);
            if to <= at {
                break; // an empty match: no pattern here has one
            }
            at = to;
        }
        if self.keep_gaps {
            push(at, text.len());
        }
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
    fn patterns_of_tokenizer_json() {
        let gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
        let qwen = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let cut = |pattern: &str, keep_gaps, text: &str| {
            let cutter = Cutter::linear(pattern, keep_gaps)?;
            let mut out = Vec::new();
            cutter.cut(text, 0, &mut out);
            Some(
                out.into_iter()
                    .map(|w| text[w].to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        let text = "a   b\n\n\tc'LL  ";
        assert_eq!(cut(gpt2, true, text).unwrap(), words("gpt-2", text));
        assert_eq!(cut(qwen, true, text).unwrap(), words("qwen2", text));
        assert_eq!(cut(qwen, false, text).unwrap(), words("qwen2", text));
        assert_eq!(cut(r"\p{N}{1,3}", false, "a1234b").unwrap(), ["123", "4"]);
        assert_eq!(
            cut(r"\p{N}{1,3}", true, "a1234b").unwrap(),
            ["a", "123", "4", "b"]
        );
        // What cannot be done in linear time, or is not understood, is left to another engine.
        for pattern in [
            r"a(?=b)",
            r"\s{4}|\s+(?!\S)|\s+",
            r"a*",
            r"\p{L}+| +|\s+(?!\S)|\s+",
            r"(a",
            r"\p{L}+|\s+",
        ] {
            assert!(cut(pattern, true, "x").is_none(), "{pattern}");
        }
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
