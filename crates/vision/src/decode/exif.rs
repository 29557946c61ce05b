//! The one EXIF tag that changes how a picture is seen.

/// The orientation (1 to 8) in an EXIF block, or 1 where there is none or it is broken: a bad tag is no reason to
/// refuse a picture.
///
/// Layout: optional `Exif\0\0`, then TIFF: byte order, 42, offset of the first directory, and there 12-byte entries
/// (tag, type, count, value); tag 0x0112 of type 3 (SHORT).
pub(super) fn orientation(block: &[u8]) -> u8 {
    find(block)
        .filter(|v| (1..=8).contains(v))
        .map_or(1, |v| v as u8)
}

fn find(block: &[u8]) -> Option<u16> {
    let tiff = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    let little = match tiff.get(..4)? {
        [b'I', b'I', 42, 0] => true,
        [b'M', b'M', 0, 42] => false,
        _ => return None,
    };
    let short = |at: usize| -> Option<u16> {
        let b = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little {
            u16::from_le_bytes(b)
        } else {
            u16::from_be_bytes(b)
        })
    };
    let long = |at: usize| -> Option<usize> {
        let b = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        let v = if little {
            u32::from_le_bytes(b)
        } else {
            u32::from_be_bytes(b)
        };
        usize::try_from(v).ok()
    };
    let directory = long(4)?;
    for i in 0..usize::from(short(directory)?) {
        let entry = directory.checked_add(2 + 12 * i)?;
        if short(entry)? == 0x0112 && short(entry + 2)? == 3 {
            return short(entry + 8);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::orientation;

    fn block(little: bool, value: u16) -> Vec<u8> {
        let s = |v: u16| {
            if little {
                v.to_le_bytes()
            } else {
                v.to_be_bytes()
            }
        };
        let l = |v: u32| {
            if little {
                v.to_le_bytes()
            } else {
                v.to_be_bytes()
            }
        };
        let mut b = if little {
            b"II".to_vec()
        } else {
            b"MM".to_vec()
        };
        b.extend(s(42));
        b.extend(l(8));
        b.extend(s(2));
        for (tag, v) in [(0x010f, 9), (0x0112, value)] {
            b.extend([s(tag), s(3)].concat());
            b.extend(l(1));
            b.extend([s(v), s(0)].concat());
        }
        b
    }

    #[test]
    fn reads_both_byte_orders() {
        for little in [true, false] {
            for v in 1..=8 {
                assert_eq!(orientation(&block(little, v)), v as u8);
                let prefixed = [b"Exif\0\0", &block(little, v)[..]].concat();
                assert_eq!(orientation(&prefixed), v as u8);
            }
        }
    }

    #[test]
    fn broken_blocks_mean_upright() {
        let whole = block(true, 6);
        for cut in 0..whole.len() - 4 {
            assert_eq!(orientation(&whole[..cut]), 1, "cut at {cut}");
        }
        assert_eq!(orientation(&block(true, 0)), 1);
        assert_eq!(orientation(&block(true, 9)), 1);
        let mut far = whole.clone();
        far[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(orientation(&far), 1);
    }
}
