//! The two logarithmic telephone codes of ITU-T G.711, a byte to 16-bit linear.
//!
//! A byte holds a sign, a 3-bit exponent e and a 4-bit mantissa m; µ-law is stored inverted, A-law with every other bit
//! inverted (0x55).
//! ```text
//! µ-law  |x| = ((8m + 132) · 2^e) − 132
//! A-law  |x| = 16m + 8 if e = 0, else (16m + 264) · 2^(e−1)
//! ```

/// µ-law; the sign bit of the inverted byte means negative.
pub(super) fn mu_law(byte: u8) -> i16 {
    let (b, e, m) = fields(!byte);
    let size = ((8 * m + 132) << e) - 132;
    if b & 0x80 != 0 { -size } else { size }
}

/// A-law; the sign bit means positive.
pub(super) fn a_law(byte: u8) -> i16 {
    let (b, e, m) = fields(byte ^ 0x55);
    let size = match e {
        0 => 16 * m + 8,
        e => (16 * m + 264) << (e - 1),
    };
    if b & 0x80 != 0 { size } else { -size }
}

fn fields(b: u8) -> (u8, u32, i16) {
    (b, u32::from(b >> 4 & 7), i16::from(b & 15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // The ends and the middle of the tables in G.711.
        assert_eq!([0x80, 0x00, 0xff, 0x7f].map(mu_law), [32124, -32124, 0, 0]);
        assert_eq!([0xaa, 0x2a, 0xd5, 0x55].map(a_law), [32256, -32256, 8, -8]);
    }

    #[test]
    fn signs_mirror_and_sizes_grow() {
        for b in 0..128u8 {
            assert_eq!(mu_law(b), -mu_law(b | 0x80));
            assert_eq!(a_law(b), -a_law(b | 0x80));
        }
        // µ-law bytes fall from loud to quiet, A-law ones do with their even bits put right.
        assert!((0x80..0xffu8).all(|b| mu_law(b) > mu_law(b + 1)));
        assert!((0x80..0xffu8).all(|b| a_law(b ^ 0x55) < a_law((b + 1) ^ 0x55)));
    }
}
