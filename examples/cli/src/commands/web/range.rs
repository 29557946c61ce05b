//! The `Range` header: one range of bytes, or none worth answering with 206.

use std::ops::Range;

/// How much of a content of a known length is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it: no range, one that this server does not know, or several at once (RFC 9110 §14.2 lets a server ignore those).
    All,
    /// These bytes, never empty.
    Part(Range<u64>),
    /// Nothing that is there: 416.
    Outside,
}

/// Reads the header's value for a content of `len` bytes. Never fails: what is not a range is no range.
pub(crate) fn wanted(value: &str, len: u64) -> Wanted {
    let Some((unit, set)) = value.split_once('=') else {
        return Wanted::All;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return Wanted::All;
    }
    let Some((first, last)) = set.trim().split_once('-') else {
        return Wanted::All;
    };
    match (number(first), number(last)) {
        (Digits::None, Digits::Some(n)) => match n.min(len) {
            0 => Wanted::Outside,
            n => Wanted::Part(len - n..len),
        },
        (Digits::Some(from), Digits::None) if from < len => Wanted::Part(from..len),
        (Digits::Some(from), Digits::Some(to)) if from > to => Wanted::All,
        (Digits::Some(from), Digits::Some(to)) if from < len => {
            Wanted::Part(from..to.saturating_add(1).min(len))
        }
        (Digits::Some(_), Digits::None | Digits::Some(_)) => Wanted::Outside,
        _ => Wanted::All,
    }
}

enum Digits {
    None,
    Some(u64),
    Wrong,
}

/// Digits only: no sign, no space. What is larger than any file is as good as the largest number.
fn number(text: &str) -> Digits {
    if text.is_empty() {
        Digits::None
    } else if text.bytes().all(|b| b.is_ascii_digit()) {
        Digits::Some(text.parse().unwrap_or(u64::MAX))
    } else {
        Digits::Wrong
    }
}

#[cfg(test)]
mod tests {
    use super::{Wanted::*, wanted};

    #[test]
    fn ranges_as_the_rfc_has_them() {
        for (value, expected) in [
            ("bytes=0-0", Part(0..1)),
            ("bytes=0-9", Part(0..10)),
            ("bytes=2-4", Part(2..5)),
            ("bytes=5-", Part(5..10)),
            ("bytes=-3", Part(7..10)),
            ("BYTES=1-1", Part(1..2)),
            // Longer than the content: what there is.
            ("bytes=8-99", Part(8..10)),
            ("bytes=-99", Part(0..10)),
            ("bytes=3-18446744073709551615", Part(3..10)),
            ("bytes=3-99999999999999999999999", Part(3..10)),
            ("bytes=-99999999999999999999999", Part(0..10)),
            // Outside of it.
            ("bytes=10-", Outside),
            ("bytes=10-10", Outside),
            ("bytes=99999999999999999999999-", Outside),
            ("bytes=-0", Outside),
        ] {
            assert_eq!(wanted(value, 10), expected, "{value}");
        }
    }

    #[test]
    fn nonsense_and_lists_are_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=4-2",
            "bytes=+1-2",
            "bytes=1 -2",
            "bytes=--1",
            "bytes=0x0-1",
            "items=0-1",
            "bytes=0-1,3-4",
            "bytes=0-1,",
            "bytes=٣-٤",
        ] {
            assert_eq!(wanted(value, 10), All, "{value}");
        }
    }

    #[test]
    fn nothing_is_in_an_empty_file() {
        for value in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            assert_eq!(wanted(value, 0), Outside, "{value}");
        }
    }
}
