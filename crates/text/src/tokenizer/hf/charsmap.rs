//! SentencePiece's precompiled map of characters: a double-array trie and the texts it points to.
//!
//! The bytes are a length (u32, little endian), the trie's units (u32 each) of that length, then texts that
//! end in NUL. The map is looked up by grapheme, then by character. Source: `darts-clone` and the reference.

use unicode_segmentation::UnicodeSegmentation;

use super::json::bad;
use crate::Result;

/// The map.
#[derive(Debug)]
pub(super) struct CharsMap {
    units: Vec<u32>,
    texts: String,
}

impl CharsMap {
    /// Reads the map from base64.
    pub(super) fn from_base64(encoded: &str) -> Result<Self> {
        let bytes = base64(encoded).ok_or_else(|| bad("precompiled_charsmap is not base64"))?;
        let (length, rest) = bytes
            .split_first_chunk()
            .ok_or_else(|| bad("precompiled_charsmap is empty"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let (units, texts) = rest
            .split_at_checked(length)
            .ok_or_else(|| bad("precompiled_charsmap is shorter than it says"))?;
        let units = units
            .chunks_exact(4)
            .map(|u| u32::from_le_bytes([u[0], u[1], u[2], u[3]]));
        let texts =
            std::str::from_utf8(texts).map_err(|_| bad("precompiled_charsmap has broken texts"))?;
        Ok(Self {
            units: units.collect(),
            texts: texts.to_owned(),
        })
    }

    /// The text with every part that the map has replaced; `None` if it gets longer than `max` bytes.
    pub(super) fn apply(&self, text: &str, max: usize) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        for grapheme in text.graphemes(true) {
            if grapheme.len() < 6
                && let Some(replacement) = self.get(grapheme)
            {
                out.push_str(replacement);
            } else {
                for c in grapheme.chars() {
                    match self.get(c.encode_utf8(&mut [0; 4])) {
                        Some(replacement) => out.push_str(replacement),
                        None => out.push(c),
                    }
                }
            }
            if out.len() > max {
                return None;
            }
        }
        Some(out)
    }

    /// What the shortest prefix of `key` in the map stands for. (Shortest: so the reference.)
    fn get(&self, key: &str) -> Option<&str> {
        let unit = |at: usize| self.units.get(at).copied();
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut at = offset(unit(0)?);
        for byte in key.bytes() {
            if byte == 0 {
                return None;
            }
            at ^= usize::from(byte);
            let found = unit(at)?;
            if found & ((1 << 31) | 0xFF) != u32::from(byte) {
                return None;
            }
            at ^= offset(found);
            if found >> 8 & 1 == 1 {
                let start = (unit(at)? & !(1 << 31)) as usize;
                let rest = self.texts.get(start..)?;
                return Some(rest.split('\0').next().unwrap_or(rest));
            }
        }
        None
    }
}

/// Decodes base64, padding or none.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut n) = (0u32, 0);
    for b in text.trim_end_matches('=').bytes() {
        let value = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        n += 6;
        if n >= 8 {
            n -= 8;
            out.push((bits >> n) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_known() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8", "fo"),
            ("Zm9v", "foo"),
            ("+/+/", "\u{0}"),
        ] {
            let got = base64(text).unwrap();
            if bytes == "\u{0}" {
                assert_eq!(got, [0xfb, 0xff, 0xbf]);
            } else {
                assert_eq!(got, bytes.as_bytes());
            }
        }
        assert_eq!(base64("Zm9v!"), None);
    }

    #[test]
    fn short_maps_are_refused_and_wild_ones_do_not_fail() {
        for bad in ["", "AAAA", "/////w==", "!"] {
            assert!(CharsMap::from_base64(bad).is_err(), "{bad}");
        }
        // Eight bytes of trie, all ones, and no texts.
        let map = CharsMap::from_base64("CAAAAP//////////").unwrap();
        assert_eq!(map.apply("aé\0🙂", 100).unwrap(), "aé\0🙂");
    }
}
