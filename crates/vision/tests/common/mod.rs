//! What the tests share: the pictures of make_goldens.py and CRC-32.
#![allow(dead_code, unreachable_pub)] // each test file takes what it needs

use firelight_vision::Image;

/// The picture that `picture` in make_goldens.py draws.
pub fn picture(width: usize, height: usize, seed: u32) -> Image {
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height as u32 {
        for x in 0..width as u32 {
            for c in 0..3u32 {
                let salt = c
                    .wrapping_mul(83492791)
                    .wrapping_add(seed.wrapping_mul(2654435761));
                let mut v = x.wrapping_mul(73856093) ^ y.wrapping_mul(19349663) ^ salt;
                v = (v ^ (v >> 15)).wrapping_mul(0x2c1b3c6d);
                v = (v ^ (v >> 12)).wrapping_mul(0x297a2d39);
                v ^= v >> 15;
                rgb.push(match (x / 8 + y / 8) & 3 {
                    0 => v as u8,
                    1 => (x * 5 + y * 3 + c * 40) as u8,
                    2 => (v & 1) as u8 * 255,
                    _ => (c * 100 + 30) as u8,
                });
            }
        }
    }
    Image::new(width, height, rgb).unwrap()
}

/// CRC-32 (IEEE).
pub fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|b| {
        (0..8).fold(b as u32, |c, _| {
            (c >> 1) ^ (0xedb88320 & (c & 1).wrapping_neg())
        })
    });
    !bytes
        .into_iter()
        .fold(!0, |crc, b| (crc >> 8) ^ table[(crc as u8 ^ b) as usize])
}
