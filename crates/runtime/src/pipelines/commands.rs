//! Spoken commands: a small grammar of phrases, and the action that each stands for.
//!
//! ```
//! use firelight_runtime::pipelines::commands::Commands;
//! let commands = Commands::parse(r#"[
//!     { "phrase": "(turn|switch) {state:on|off} the {place} light[s]", "action": { "do": "light", "to": "{state}", "where": "{place}" } },
//!     { "phrase": "stop", "action": { "do": "stop" } }
//! ]"#)?;
//! let action = commands.action("Turn on the kitchen lights, please.").unwrap();
//! assert_eq!(action["where"], "kitchen");
//! assert!(commands.action("What time is it?").is_none());
//! # Ok::<(), firelight_runtime::Error>(())
//! ```
//!
//! In a phrase `(a|b)` is one of several, `[a]` may be there, `{name}` is one to six words, `{name:a|b}` one of several under a name.
//! In the action's texts `{name}` is what was said there. Case and punctuation do not count, and in words of five letters and more
//! neither does one letter. Words may stand before and after (`please`), at most three.

mod said;

use crate::{Error, Result};
use said::{follow, open};
use serde::Deserialize;
use serde_json::Value;

/// The longest phrase, in bytes, and the most of them.
const MAX: usize = 4096;
/// Words of a free slot, and words around a phrase.
const SLOT: usize = 6;
const AROUND: usize = 3;

/// A list of phrases with their actions.
#[derive(Clone, Debug)]
pub struct Commands(Vec<Command>);

#[derive(Clone, Debug)]
struct Command {
    phrase: Vec<Part>,
    action: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    phrase: String,
    action: Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Word(String),
    /// One of several; an empty one where it may be missing.
    Choice(Option<String>, Vec<Vec<Part>>),
    /// Some words.
    Slot(String),
}

type Slots = Vec<(String, String)>;

impl Commands {
    /// Reads a JSON list of `{"phrase": …, "action": …}`.
    ///
    /// # Errors
    /// `Malformed` saying what is wrong with which phrase, `Limit` for too many.
    pub fn parse(json: &str) -> Result<Self> {
        let entries: Vec<Entry> =
            serde_json::from_str(json).map_err(|e| Error::malformed("commands", e.to_string()))?;
        if entries.len() > MAX {
            return Err(Error::Limit {
                what: "commands",
                max: MAX as u64,
                got: entries.len() as u64,
            });
        }
        let command = |entry: Entry| {
            let fault = |what: &str| {
                Error::malformed("commands", format!("phrase `{}`: {what}", entry.phrase))
            };
            if entry.phrase.len() > MAX {
                return Err(fault("too long"));
            }
            let chars: Vec<char> = entry.phrase.chars().collect();
            let mut at = 0;
            let phrase = sequence(&chars, &mut at, 0).map_err(&fault)?;
            if at < chars.len() {
                return Err(fault("a closing bracket without an opening one"));
            }
            if phrase.is_empty() {
                return Err(fault("no words"));
            }
            Ok(Command {
                phrase,
                action: entry.action,
            })
        };
        Ok(Commands(
            entries.into_iter().map(command).collect::<Result<_>>()?,
        ))
    }

    /// The action that a text stands for: of the first phrase that it is.
    pub fn action(&self, text: &str) -> Option<Value> {
        let (command, slots) = self.find(&normal(text))?;
        Some(filled(&command.action, &slots))
    }

    /// True if a text is a phrase, and no more words would make it another one or the same with something else in its slots:
    /// `turn on the light` is not if `turn on the light show` is a phrase, too, and nothing is that ends in `{name}` with less than six words there.
    pub fn settled(&self, text: &str) -> bool {
        let words = normal(text);
        let Some((found, slots)) = self.find(&words) else {
            return false;
        };
        let starts = 0..=AROUND.min(words.len().saturating_sub(1));
        !starts.flat_map(|skip| words.get(skip..)).any(|said| {
            self.0.iter().any(|command| {
                let known = std::ptr::eq(command, found).then_some(&slots);
                let parts: Vec<&Part> = command.phrase.iter().collect();
                open(&parts, said, &Slots::new(), known)
            })
        })
    }

    /// The first phrase that the words are, and what its slots hold.
    fn find(&self, words: &[String]) -> Option<(&Command, Slots)> {
        self.0.iter().find_map(|command| {
            let starts = 0..=AROUND.min(words.len());
            let found = starts.into_iter().find_map(|skip| {
                let mut slots = Slots::new();
                let rest = words.get(skip..)?;
                follow(&command.phrase, rest, &mut slots, &|left| left <= AROUND).then_some(slots)
            })?;
            Some((command, found))
        })
    }
}

/// Parts up to a closing bracket, a bar or the end.
fn sequence(chars: &[char], at: &mut usize, depth: usize) -> Result<Vec<Part>, &'static str> {
    if depth > 8 {
        return Err("brackets in brackets, too deep");
    }
    let (mut parts, mut word) = (Vec::new(), String::new());
    let end = |word: &mut String, parts: &mut Vec<Part>| {
        parts.extend(normal(word).into_iter().map(Part::Word));
        word.clear();
    };
    while let Some(&c) = chars.get(*at) {
        match c {
            ')' | ']' | '}' | '|' => break,
            '(' | '[' => {
                *at += 1;
                let mut choices = choices(chars, at, depth)?;
                if chars.get(*at) != Some(&if c == '(' { ')' } else { ']' }) {
                    return Err("a bracket that is not closed");
                }
                *at += 1;
                // The ending of a word, as in `light[s]`: both words are meant.
                let ending = c == '[' && !word.is_empty();
                if let (true, [one]) = (ending, choices.as_slice())
                    && let [Part::Word(tail)] = one.as_slice()
                {
                    let long = format!("{word}{tail}");
                    let both =
                        [&word, &long].map(|w| normal(w).into_iter().map(Part::Word).collect());
                    parts.push(Part::Choice(None, both.to_vec()));
                    word.clear();
                    continue;
                }
                end(&mut word, &mut parts);
                if c == '[' {
                    choices.push(Vec::new());
                }
                parts.push(Part::Choice(None, choices));
            }
            '{' => {
                end(&mut word, &mut parts);
                *at += 1;
                let mut name = String::new();
                while let Some(&c) = chars.get(*at).filter(|c| c.is_alphanumeric() || **c == '_') {
                    name.push(c);
                    *at += 1;
                }
                let part = match chars.get(*at) {
                    Some(':') => {
                        *at += 1;
                        Part::Choice(Some(name.clone()), choices(chars, at, depth)?)
                    }
                    _ => Part::Slot(name.clone()),
                };
                if chars.get(*at) != Some(&'}') || name.is_empty() {
                    return Err("a slot is {name} or {name:a|b}");
                }
                *at += 1;
                parts.push(part);
            }
            c => {
                word.push(c);
                *at += 1;
                if c.is_whitespace() {
                    end(&mut word, &mut parts);
                }
            }
        }
    }
    end(&mut word, &mut parts);
    Ok(parts)
}

fn choices(chars: &[char], at: &mut usize, depth: usize) -> Result<Vec<Vec<Part>>, &'static str> {
    let mut all = vec![sequence(chars, at, depth + 1)?];
    while chars.get(*at) == Some(&'|') {
        *at += 1;
        all.push(sequence(chars, at, depth + 1)?);
    }
    Ok(all)
}

/// Lower-case words without punctuation.
fn normal(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| c.is_whitespace() || c == '-');
    let bare = words.map(|w| {
        w.chars()
            .filter(|c| c.is_alphanumeric() || *c == '\'')
            .collect()
    });
    bare.filter(|w: &String| !w.is_empty()).collect()
}

/// The action with what was said in the place of its slots.
fn filled(action: &Value, slots: &[(String, String)]) -> Value {
    match action {
        Value::String(text) => {
            let mut text = text.clone();
            for (name, said) in slots {
                text = text.replace(&format!("{{{name}}}"), said);
            }
            Value::String(text)
        }
        Value::Array(list) => Value::Array(list.iter().map(|v| filled(v, slots)).collect()),
        Value::Object(map) => {
            let pair = |(key, v): (&String, &Value)| (key.clone(), filled(v, slots));
            Value::Object(map.iter().map(pair).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::said::same;
    use super::*;

    fn one(phrase: &str) -> Result<Commands> {
        let json =
            serde_json::json!([{ "phrase": phrase, "action": { "x": "{x}", "y": ["{y}", 1] } }]);
        Commands::parse(&json.to_string())
    }

    fn x(phrase: &str, text: &str) -> Option<String> {
        let action = one(phrase).expect("a phrase").action(text)?;
        action["x"].as_str().map(str::to_owned)
    }

    #[test]
    fn phrases_match_what_they_say() {
        assert_eq!(x("go {x:up|down}", "Go up!"), Some("up".into()));
        assert_eq!(x("go {x:up|down}", "go left"), None);
        assert_eq!(
            x("(play|start) {x}", "Could you play some jazz"),
            Some("some jazz".into())
        );
        assert_eq!(
            x(
                "set [the] timer to {x} minute[s]",
                "Set timer to twenty-five minutes."
            ),
            Some("twenty five".into())
        );
        assert_eq!(
            x(
                "set [the] timer to {x} minute[s]",
                "set the timer to one minute please"
            ),
            Some("one".into())
        );
        // One wrong letter, and the word that was meant under the name.
        assert_eq!(
            x("open the {x:kitchen|garage} door", "open the kitchin door"),
            Some("kitchen".into())
        );
        assert_eq!(x("stop", "Don't ever think that this should stop"), None);
        assert_eq!(x("stop", ""), None);
    }

    #[test]
    fn a_phrase_is_settled_when_no_more_words_count() {
        let list = |phrases: &[&str]| {
            let action = |phrase: &&str| serde_json::json!({ "phrase": phrase, "action": phrase });
            let all: Vec<Value> = phrases.iter().map(action).collect();
            Commands::parse(&serde_json::json!(all).to_string()).expect("phrases")
        };
        for (phrases, yes, no) in [
            (
                &["turn {s:on|off} the {x:kitchen|hall} light[s] [please]"][..],
                &[
                    "Turn on the kitchen light.",
                    "please turn off the hall lights",
                    "turn on the hall light please now",
                ][..],
                &["turn on the", "turn on the kitchen", "turn", "what", ""][..],
            ),
            // Another phrase goes on where this one ends, with a word or with the rest of one.
            (
                &[
                    "open the door",
                    "open the doorway",
                    "stop",
                    "stop the music",
                ],
                &["stop the music", "open the doorway"],
                &["open the door", "stop", "well, stop"],
            ),
            (
                &["open the door", "stop"],
                &["open the door", "stop", "well, stop", "stop it"],
                &["open", "stop, open the", "stop, open"],
            ),
            // Free slots take six words.
            (
                &["play {x}", "play {x} on the radio"],
                &["play one two three four five six on the radio"],
                &[
                    "play jazz",
                    "play one two three four five six",
                    "play it on the",
                ],
            ),
            (
                &["set a timer to {x} minute[s]"],
                &[
                    "set a timer to one minute",
                    "set a timer to twenty five minutes",
                ],
                &["set a timer to minute"],
            ),
            // A choice that may be longer, words that may be missing before a slot, an ending that is another value.
            (&["go {x:up|up there}"], &["go up there"], &["go up"]),
            (
                &["light [in {x:red|blue}]"],
                &["light in red"],
                &["light", "light in"],
            ),
            (&["{x:one|ones}"], &["ones"], &["one"]),
            (
                &["say ((go {x:up})|(go {y:up} there))"],
                &["say go up there"],
                &["say go up"],
            ),
        ] {
            let commands = list(phrases);
            for text in yes {
                assert!(commands.settled(text), "{text} of {phrases:?}");
            }
            for text in no {
                assert!(!commands.settled(text), "{text} of {phrases:?}");
            }
        }
    }

    #[test]
    fn wrong_phrases_are_named() {
        for bad in [
            "",
            "a (b",
            "a b)",
            "{",
            "{x",
            "{:a}",
            "[a|(b]",
            "((((((((((a))))))))))",
        ] {
            let error = one(bad).expect_err(bad).to_string();
            assert!(error.contains("phrase"), "{error}");
        }
        assert!(Commands::parse("{}").is_err());
        assert!(Commands::parse(r#"[{"phrase":"a"}]"#).is_err());
    }

    #[test]
    fn words_of_one_letter_off() {
        assert!(same("lights", "light") && same("kitchen", "kitchin") && same("garage", "xgarage"));
        assert!(!same("on", "off") && !same("left", "lift") && !same("kitchen", "chicken"));
    }
}
