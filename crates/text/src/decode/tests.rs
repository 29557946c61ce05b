//! Streaming against the naive form of the reference: every step over the whole list of tokens.

use proptest::prelude::*;

use super::steps::{Decoder, Machine, Pattern, Step};
use crate::tokenizer::bytes::char_to_byte;
use crate::tokenizer::vocab::byte_piece;

/// A step, told apart from the code under test.
#[derive(Clone, Debug)]
enum Plain {
    ByteLevel,
    ByteFallback,
    Fuse,
    Strip(char, usize, usize),
    Replace(String, String),
    ReplaceRuns(String),
    Metaspace(char, bool),
    WordPiece(String, bool),
    Bpe(String),
    Ctc(String, String, bool),
    Join,
}

fn naive(step: &Plain, tokens: Vec<String>) -> Vec<String> {
    let each = |f: &dyn Fn(usize, &str) -> String| -> Vec<String> {
        tokens.iter().enumerate().map(|(i, t)| f(i, t)).collect()
    };
    match step {
        Plain::ByteLevel => {
            let mut bytes = Vec::new();
            for token in &tokens {
                match token.chars().map(char_to_byte).collect::<Option<Vec<u8>>>() {
                    Some(mapped) => bytes.extend(mapped),
                    None => bytes.extend(token.bytes()),
                }
            }
            vec![String::from_utf8_lossy(&bytes).into_owned()]
        }
        Plain::ByteFallback => {
            let (mut out, mut run) = (Vec::new(), Vec::new());
            let end = |run: &mut Vec<u8>, out: &mut Vec<String>| {
                let run = std::mem::take(run);
                let n = run.len();
                match String::from_utf8(run) {
                    Ok(text) if n > 0 => out.push(text),
                    Ok(_) => {}
                    Err(_) => out.extend(vec!["\u{fffd}".to_owned(); n]),
                }
            };
            for token in &tokens {
                match byte_piece(token) {
                    Some(byte) => run.push(byte),
                    None => {
                        end(&mut run, &mut out);
                        out.push(token.clone());
                    }
                }
            }
            end(&mut run, &mut out);
            out
        }
        Plain::Fuse => vec![tokens.concat()],
        Plain::Strip(c, start, stop) => each(&|_, token| {
            let chars: Vec<char> = token.chars().collect();
            let lead = chars.iter().take(*start).take_while(|x| *x == c).count();
            let rest = &chars[lead..];
            let trail = rest
                .iter()
                .rev()
                .take(*stop)
                .take_while(|x| *x == c)
                .count();
            rest[..rest.len() - trail].iter().collect()
        }),
        Plain::Replace(from, to) => each(&|_, token| token.replace(from.as_str(), to)),
        Plain::ReplaceRuns(to) => each(&|_, token| {
            let re = regex::Regex::new("a+").unwrap();
            re.replace_all(token, regex::NoExpand(to)).into_owned()
        }),
        Plain::Metaspace(c, first) => {
            each(&|i, token| token.replace(*c, if i == 0 && *first { "" } else { " " }))
        }
        Plain::WordPiece(prefix, cleanup) => each(&|i, token| {
            let text = match token.strip_prefix(prefix.as_str()) {
                _ if i == 0 => token.to_owned(),
                Some(rest) => rest.to_owned(),
                None => format!(" {token}"),
            };
            if *cleanup { tidied(&text) } else { text }
        }),
        Plain::Bpe(suffix) => {
            let last = tokens.len().saturating_sub(1);
            each(&|i, token| token.replace(suffix.as_str(), if i == last { "" } else { " " }))
        }
        Plain::Ctc(pad, delimiter, cleanup) => {
            let mut tokens = tokens;
            tokens.dedup();
            let texts = tokens.iter().map(|token| {
                let text = token.replace(pad.as_str(), "");
                if *cleanup {
                    tidied(&text).replace(delimiter.as_str(), " ")
                } else {
                    text
                }
            });
            texts.filter(|text| !text.is_empty()).collect()
        }
        Plain::Join => vec![tokens.join(" ")],
    }
}

/// The part of the reference's tidying that the tokens below can meet.
fn tidied(text: &str) -> String {
    text.replace(" .", ".").replace(" 's", "'s")
}

fn step(plain: &Plain) -> Step {
    match plain.clone() {
        Plain::ByteLevel => Step::ByteLevel,
        Plain::ByteFallback => Step::ByteFallback,
        Plain::Fuse => Step::Fuse,
        Plain::Strip(content, start, stop) => Step::Strip {
            content,
            start,
            stop,
        },
        Plain::Replace(from, content) => Step::Replace {
            pattern: Pattern::Text(from),
            content,
        },
        Plain::ReplaceRuns(content) => {
            let regex = Box::new(regex::Regex::new("a+").unwrap());
            Step::Replace {
                pattern: Pattern::Regex(regex),
                content,
            }
        }
        Plain::Metaspace(replacement, strip_first) => Step::Metaspace {
            replacement,
            strip_first,
        },
        Plain::WordPiece(prefix, cleanup) => Step::WordPiece { prefix, cleanup },
        Plain::Bpe(suffix) => Step::Bpe { suffix },
        Plain::Ctc(pad, delimiter, cleanup) => Step::Ctc {
            pad,
            delimiter,
            cleanup,
        },
        Plain::Join => Step::Join,
    }
}

fn any_step() -> impl Strategy<Value = Plain> {
    let text = || proptest::sample::select(vec!["a", "ab", "aab", "▁", " ", "é", "##"]);
    let c = || proptest::sample::select(vec![' ', 'a', '▁', 'é']);
    prop_oneof![
        Just(Plain::ByteLevel),
        Just(Plain::ByteFallback),
        Just(Plain::Fuse),
        (c(), 0usize..3, 0usize..3).prop_map(|(c, a, b)| Plain::Strip(c, a, b)),
        (text(), proptest::sample::select(vec!["", " ", "x", "aa"]))
            .prop_map(|(a, b)| Plain::Replace(a.to_owned(), b.to_owned())),
        Just(Plain::ReplaceRuns("_".to_owned())),
        (c(), any::<bool>()).prop_map(|(c, first)| Plain::Metaspace(c, first)),
        any::<bool>().prop_map(|cleanup| Plain::WordPiece("##".to_owned(), cleanup)),
        text().prop_map(|t| Plain::Bpe(t.to_owned())),
        any::<bool>().prop_map(|c| Plain::Ctc("é".to_owned(), "b".to_owned(), c)),
        Just(Plain::Join),
    ]
}

fn any_token() -> impl Strategy<Value = String> {
    let parts = vec![
        "a", "b", "ab", "▁", "▁a", " ", "  ", "é", "##b", "##", ".", "'s", "Ġ", "Ã", "©", "ð", "Ł",
        "Ļ", "Ĥ", "漢",
    ];
    let bytes = vec![
        "<0x61>", "<0xC3>", "<0xA9>", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>", "<0xFF>", "<0x0a>",
    ];
    prop_oneof![
        proptest::collection::vec(proptest::sample::select(parts), 1..4).prop_map(|p| p.concat()),
        proptest::sample::select(bytes).prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn streaming_equals_the_naive_form(
        plain in proptest::collection::vec(any_step(), 1..5),
        tokens in proptest::collection::vec(any_token(), 1..14),
    ) {
        let mut expected = tokens.clone();
        for step in &plain {
            expected = naive(step, expected);
        }
        let decoder = Decoder::new(plain.iter().map(step).collect());
        let mut machine = Machine::new(&decoder);
        let mut out = String::new();
        for token in &tokens {
            machine.push(&decoder, token, &mut out);
        }
        machine.finish(&decoder, &mut out);
        prop_assert_eq!(out, expected.concat());
    }
}

#[test]
fn text_is_not_held_back_without_need() {
    let run = |steps: Vec<Plain>, tokens: &[&str]| {
        let decoder = Decoder::new(steps.iter().map(step).collect());
        let mut machine = Machine::new(&decoder);
        let mut pieces: Vec<String> = tokens
            .iter()
            .map(|token| {
                let mut out = String::new();
                machine.push(&decoder, token, &mut out);
                out
            })
            .collect();
        let mut out = String::new();
        machine.finish(&decoder, &mut out);
        pieces.push(out);
        pieces
    };
    let llama = vec![
        Plain::Replace("▁".into(), " ".into()),
        Plain::ByteFallback,
        Plain::Fuse,
        Plain::Strip(' ', 1, 0),
    ];
    assert_eq!(
        run(llama, &["▁The", "▁end", "<0xC3>", "<0xA9>", ".", "<0xC3>"]),
        ["The", " end", "", "", "é.", "", "\u{fffd}"]
    );
    assert_eq!(
        run(
            vec![Plain::ByteLevel],
            &["The", "Ġend", "ð", "Ł", "Ļ", "Ĥ", "Ã", "a", "Ã"]
        ),
        [
            "The",
            " end",
            "",
            "",
            "",
            "🙂",
            "",
            "\u{fffd}a",
            "",
            "\u{fffd}"
        ]
    );
}
