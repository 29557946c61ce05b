//! GPT-2's byte alphabet: every byte has a printable character, so that pieces are text.
//!
//! Bytes `!`–`~`, `¡`–`¬`, `®`–`ÿ` stand for themselves; the other 68 follow from U+0100 in order
//! (space is `Ġ`, newline is `Ċ`). Source: `bytes_to_unicode` of the GPT-2 encoder.

/// The character of a byte.
pub(crate) fn byte_to_char(byte: u8) -> char {
    CHARS[byte as usize]
}

/// The byte of a character, if it belongs to the alphabet.
pub(crate) fn char_to_byte(c: char) -> Option<u8> {
    match c as u32 {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        code @ 0x100..=0x143 => REST.get((code - 0x100) as usize).copied(),
        _ => None,
    }
}

/// Appends the bytes that `piece` spells; a piece with any foreign character is its own UTF-8.
pub(crate) fn push_piece_bytes(piece: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in piece.chars() {
        match char_to_byte(c) {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(piece.as_bytes());
                return;
            }
        }
    }
}

const fn printable(b: u8) -> bool {
    matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// The bytes without a printable form, in order.
const REST: [u8; 68] = {
    let mut rest = [0; 68];
    let (mut b, mut n) = (0usize, 0);
    while b < 256 {
        if !printable(b as u8) {
            rest[n] = b as u8;
            n += 1;
        }
        b += 1;
    }
    rest
};

const CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let (mut b, mut n) = (0usize, 0);
    while b < 256 {
        let code = if printable(b as u8) {
            b as u32
        } else {
            n += 1;
            0xff + n
        };
        chars[b] = match char::from_u32(code) {
            Some(c) => c,
            None => '\0',
        };
        b += 1;
    }
    chars
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_back() {
        for b in 0..=255u8 {
            assert_eq!(char_to_byte(byte_to_char(b)), Some(b));
        }
        assert_eq!((byte_to_char(b' '), byte_to_char(b'\n')), ('Ġ', 'Ċ'));
        for c in ['\0', ' ', '\u{7f}', '\u{ad}', '\u{144}', '漢'] {
            assert_eq!(char_to_byte(c), None);
        }
    }

    #[test]
    fn foreign_pieces_stay_as_they_are() {
        let mut out = b"x".to_vec();
        push_piece_bytes("Ġa漢", &mut out);
        assert_eq!(out, "xĠa漢".as_bytes());
        push_piece_bytes("Ġb", &mut out);
        assert_eq!(out, "xĠa漢 b".as_bytes());
    }
}
