//! What the compiler of grammars does not look after in JSON: numbers that no parser can hold, and the way out when the room
//! runs out.
//!
//! A number may have two digits in its exponent and [`DIGITS`] before that: beyond, `1e999` is JSON and yet no number.
//!
//! Closing, outside of a text, prefers in this order: the end of the answer, closing brackets, a value that is over at once (`{}`,
//! `""`, `null`, `0`), a comma, for what is still required. Inside a text, what begins with the quotation mark. Where none
//! of these is allowed, everything is: the number of such places is bounded by the schema.

use super::matcher::{bit, set};

/// Digits of a number before its exponent.
const DIGITS: u32 = 60;

/// Digits of an exponent.
const EXPONENT: u32 = 2;

/// Where in a JSON text an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    text: bool,
    escaped: bool,
    /// Digits of the number so far; 0 outside of numbers.
    digits: u32,
    /// Digits of its exponent, after the `e`.
    exponent: Option<u32>,
}

impl Position {
    /// Goes on over the bytes of a token. False if a number has become too long.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> bool {
        let mut held = true;
        for &byte in bytes {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.text => self.escaped = true,
                b'"' => {
                    *self = Self {
                        text: !self.text,
                        ..Self::default()
                    };
                }
                _ if self.text => {}
                b'0'..=b'9' => match &mut self.exponent {
                    Some(digits) => {
                        *digits += 1;
                        held &= *digits <= EXPONENT;
                    }
                    None => {
                        self.digits += 1;
                        held &= self.digits <= DIGITS;
                    }
                },
                b'e' | b'E' if self.digits > 0 => self.exponent = Some(0),
                b'.' | b'-' | b'+' => {}
                _ => (self.digits, self.exponent) = (0, None),
            }
        }
        held
    }
}

/// Tokens by what they close.
#[derive(Debug)]
pub(super) struct Classes {
    /// Outside of texts, best first.
    outside: [Vec<u32>; 4],
    /// Ends of a text, best first.
    inside: [Vec<u32>; 1],
    /// Tokens with a digit, and their bytes.
    digits: Vec<(u32, Vec<u8>)>,
}

impl Classes {
    pub(super) fn new(words: &[Vec<u8>]) -> Self {
        let only =
            |word: &[u8], set: &[u8]| !word.is_empty() && word.iter().all(|b| set.contains(b));
        let pick = |test: &dyn Fn(&[u8]) -> bool| -> Vec<u32> {
            (0..)
                .zip(words)
                .filter(|(_, word)| test(word))
                .map(|(id, _)| id)
                .collect()
        };
        const WHOLE: [&[u8]; 8] = [
            b"{}", b"[]", b"\"\"", b"null", b"true", b"false", b"0", b"1",
        ];
        Self {
            outside: [
                pick(&|w| only(w, b"]}")),
                pick(&|w| WHOLE.contains(&w)),
                pick(&|w| w == b","),
                pick(&|w| w == b"\""),
            ],
            inside: [pick(&|w| {
                w.strip_prefix(b"\"")
                    .is_some_and(|rest| rest.is_empty() || only(rest, b"]}"))
            })],
            digits: (0..)
                .zip(words)
                .filter(|(_, word)| word.iter().any(u8::is_ascii_digit))
                .map(|(id, word)| (id, word.clone()))
                .collect(),
        }
    }

    /// Takes from `mask` what would make a number too long, unless nothing else is left.
    pub(super) fn bound(&self, mask: &mut Vec<u32>, position: Position) {
        if position.text {
            return;
        }
        let mut left = mask.clone();
        for (id, word) in self.digits.iter().filter(|(id, _)| bit(mask, *id)) {
            let mut after = position;
            if !after.advance(word) {
                clear(&mut left, *id);
            }
        }
        if left.iter().any(|&word| word != 0) {
            *mask = left;
        }
    }

    /// Leaves in `mask` the best class that has an allowed token; all if none has. `position`: of a JSON answer; `None` for others,
    /// which can only end.
    pub(super) fn narrow(&self, mask: &mut Vec<u32>, ends: &[u32], position: Option<Position>) {
        let ending: Vec<u32> = mask.iter().zip(ends).map(|(a, b)| a & b).collect();
        if ending.iter().any(|&word| word != 0) {
            *mask = ending;
            return;
        }
        let classes: &[Vec<u32>] = match position {
            None => return,
            Some(Position { escaped: true, .. }) => return,
            Some(Position { text: true, .. }) => &self.inside,
            Some(_) => &self.outside,
        };
        for class in classes {
            let mut left = vec![0; mask.len()];
            let mut some = false;
            for &id in class.iter().filter(|&&id| bit(mask, id)) {
                set(&mut left, id);
                some = true;
            }
            if some {
                *mask = left;
                return;
            }
        }
    }
}

fn clear(mask: &mut [u32], id: u32) {
    if let Some(word) = mask.get_mut(id as usize / 32) {
        *word &= !(1 << (id % 32));
    }
}
