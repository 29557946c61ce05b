//! Decoding against Pillow's pixels, and what hostile files do.

mod common;
use common::crc32;
use firelight_vision::{DecodeOptions, Error, Format, Image, decode, decode_with};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/decode")
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// (file, width, height, CRC) of every golden whose format this build reads.
fn goldens() -> Vec<(String, usize, usize, String)> {
    let lines = include_str!("data/decode.txt")
        .lines()
        .filter(|l| !l.starts_with('#'));
    lines
        .map(|line| {
            let f: Vec<&str> = line.split(' ').collect();
            (
                f[0].into(),
                f[1].parse().unwrap(),
                f[2].parse().unwrap(),
                f[3].into(),
            )
        })
        .filter(|(name, ..): &(String, usize, usize, String)| {
            (cfg!(feature = "webp") || !name.ends_with("webp"))
                && (cfg!(feature = "gif") || !name.ends_with("gif"))
        })
        .collect()
}

/// Greatest and mean absolute difference of two pictures of one size.
fn difference(a: &Image, b: &Image) -> (u8, f64) {
    assert_eq!((a.width(), a.height()), (b.width(), b.height()));
    let d: Vec<u8> = a
        .rgb()
        .iter()
        .zip(b.rgb())
        .map(|(a, b)| a.abs_diff(*b))
        .collect();
    let sum: u64 = d.iter().map(|&d| u64::from(d)).sum();
    (
        d.iter().copied().max().unwrap_or(0),
        sum as f64 / d.len() as f64,
    )
}

/// The largest difference that the README states for a JPEG: (anywhere, in its last row if subsampled, in the mean).
const JPEG_BOUNDS: (u8, u8, f64) = (3, 24, 0.5);

#[test]
fn equals_pillow() {
    let mut wrong = Vec::new();
    let all = goldens();
    assert!(all.len() >= 40);
    for (name, width, height, crc) in all {
        let image = match decode(&file(&name)) {
            Ok(image) => image,
            Err(e) => {
                wrong.push(format!("{name}: {e}"));
                continue;
            }
        };
        let equal = format!("{:08x}", crc32(image.rgb().iter().copied())) == crc;
        if (image.width(), image.height()) != (width, height) {
            wrong.push(format!("{name}: {image:?} instead of {width}×{height}"));
        } else if !equal && !name.ends_with("jpg") {
            wrong.push(format!("{name}: other pixels"));
        } else if !equal {
            let pillow = decode(&file(&format!("{name}.png"))).unwrap();
            // The last row as coded: for a quarter turn clockwise it is the first column.
            let turned = name.starts_with("orient6");
            let upright = |i: &Image| {
                if turned {
                    i.clone().oriented(8)
                } else {
                    i.clone()
                }
            };
            let (ours, pillow) = (upright(&image), upright(&pillow));
            let (w, h) = (ours.width(), ours.height());
            let inner = |i: &Image| i.crop(0, 0, w, h - 1).unwrap();
            let (max, _) = difference(&inner(&ours), &inner(&pillow));
            let (edge, mean) = difference(&ours, &pillow);
            let (most, most_edge, most_mean) = JPEG_BOUNDS;
            if max > most || edge > most_edge || mean.is_nan() || mean > most_mean {
                wrong.push(format!(
                    "{name}: by {max}, {edge} at the edge, {mean:.4} in the mean"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_pixel_is_noticed() {
    let (name, _, _, crc) = goldens().into_iter().find(|g| g.0 == "rgb8.png").unwrap();
    let mut rgb = decode(&file(&name)).unwrap().into_rgb();
    rgb[100] ^= 1;
    assert_ne!(format!("{:08x}", crc32(rgb)), crc);
}

#[test]
fn orientation_and_alpha_are_choices() {
    let flat = DecodeOptions {
        orient: false,
        ..DecodeOptions::default()
    };
    let upright = decode(&file("orient1.png")).unwrap();
    for o in 1..=8 {
        let bytes = file(&format!("orient{o}.png"));
        assert_eq!(decode_with(&bytes, &flat).unwrap(), upright);
        assert_eq!(decode(&bytes).unwrap(), upright.clone().oriented(o));
    }
    let over = |alpha| {
        let options = DecodeOptions {
            alpha,
            ..DecodeOptions::default()
        };
        decode_with(&file("rgba8.png"), &options).unwrap()
    };
    use firelight_vision::Alpha;
    assert_eq!(over(Alpha::Drop), decode(&file("rgb8.png")).unwrap());
    assert_ne!(over(Alpha::Over([0; 3])), over(Alpha::Over([255; 3])));
}

#[test]
fn formats_go_by_content() {
    for (name, ..) in goldens() {
        let format = Format::of(&file(&name)).unwrap();
        let ending = name.rsplit('.').next().unwrap();
        let expected = format!("{format:?}").to_lowercase().replace("jpeg", "jpg");
        assert_eq!(ending, expected);
    }
    for bytes in [&b""[..], b"B", b"GIF88a", b"RIFF....WAVE", b"<svg/>"] {
        assert!(
            matches!(decode(bytes), Err(Error::Unsupported(_))),
            "{bytes:?}"
        );
    }
}

#[test]
fn a_cut_file_is_an_error_or_still_the_whole_picture() {
    for (name, ..) in goldens() {
        let bytes = file(&name);
        let whole = decode(&bytes).unwrap();
        for cut in 0..bytes.len() {
            match decode(&bytes[..cut]) {
                Ok(image) => assert_eq!(image, whole, "{name} cut at {cut}"),
                Err(Error::Malformed { .. } | Error::Unsupported(_)) => {}
                Err(e) => panic!("{name} cut at {cut}: {e}"),
            }
        }
        // A first frame may end before the middle; what follows it is not read.
        if !name.starts_with("animated") {
            assert!(
                decode(&bytes[..bytes.len() / 2]).is_err(),
                "{name}: half a file accepted"
            );
        }
    }
}

/// Flips, overwrites, removes and repeats bytes; `MUTATIONS` in the environment says how often per file (default 60).
#[test]
fn damaged_files_neither_panic_nor_exceed_limits() {
    let rounds: u32 = std::env::var("MUTATIONS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(60);
    let options = DecodeOptions {
        max_pixels: 1 << 20,
        max_bytes: 16 << 20,
        ..DecodeOptions::default()
    };
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below.max(1)
    };
    for (name, ..) in goldens() {
        let bytes = file(&name);
        for _ in 0..rounds {
            let mut b = bytes.clone();
            for _ in 0..=next(4) {
                // Headers are where the lies are: half of the damage goes there.
                let span = if next(2) == 0 {
                    b.len().min(64)
                } else {
                    b.len()
                };
                let at = next(span);
                match next(5) {
                    0 => b[at] ^= 1 << next(8),
                    1 => b[at] = [0, 0xff, 0x7f, 0x80][next(4)],
                    2 => b[at] = next(256) as u8,
                    3 => drop(b.drain(at..(at + 1 + next(8)).min(b.len()))),
                    _ => {
                        let piece = b[at..(at + 1 + next(32)).min(b.len())].to_vec();
                        let to = next(b.len());
                        b.splice(to..to, piece);
                    }
                }
                if b.is_empty() {
                    b.push(0);
                }
            }
            if let Ok(image) = decode_with(&b, &options) {
                assert!((image.width() * image.height()) as u64 <= options.max_pixels);
            }
        }
    }
}

#[test]
fn limits_are_checked_on_the_header() {
    for (name, width, height, _) in goldens() {
        let bytes = file(&name);
        let pixels = (width * height) as u64;
        let small = |max_pixels, max_bytes| DecodeOptions {
            max_pixels,
            max_bytes,
            ..DecodeOptions::default()
        };
        let result = decode_with(&bytes, &small(pixels - 1, 1 << 30));
        assert!(
            matches!(
                result,
                Err(Error::Limit { .. }) | Err(Error::Malformed { .. })
            ),
            "{name}: {result:?}"
        );
        assert!(
            decode_with(&bytes, &small(pixels, 1 << 30)).is_ok(),
            "{name}"
        );
        let result = decode_with(&bytes, &small(pixels, pixels * 3 - 1));
        assert!(
            matches!(result, Err(Error::Limit { .. })),
            "{name}: {result:?}"
        );
    }
}

/// A PNG chunk with its CRC.
fn chunk(tag: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let tagged = [&tag[..], body].concat();
    let crc = crc32(tagged.iter().copied()).to_be_bytes();
    [&(body.len() as u32).to_be_bytes()[..], &tagged, &crc].concat()
}

fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([8, 2, 0, 0, 0]);
    [b"\x89PNG\r\n\x1a\n", &chunk(b"IHDR", &header)[..]].concat()
}

#[test]
fn empty_and_gigantic_pictures() {
    for (w, h) in [(0, 5), (5, 0), (0, 0)] {
        let result = decode(&[png_header(w, h), chunk(b"IEND", b"")].concat());
        assert!(matches!(result, Err(Error::Malformed { .. })), "{result:?}");
    }
    for (w, h) in [
        (60_000, 60_000),
        (0x7fff_ffff, 0x7fff_ffff),
        (1, 0x7fff_ffff),
    ] {
        let result = decode(&[png_header(w, h), chunk(b"IDAT", b""), chunk(b"IEND", b"")].concat());
        assert!(matches!(result, Err(Error::Limit { .. })), "{result:?}");
    }
    // A JPEG whose frame header says 65535×65535.
    let mut jpeg = file("444.jpg");
    let sof = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[sof + 5..sof + 9].fill(0xff);
    assert!(matches!(decode(&jpeg), Err(Error::Limit { .. })));
    jpeg[sof + 5..sof + 9].fill(0);
    assert!(matches!(decode(&jpeg), Err(Error::Malformed { .. })));
    // A BMP of 2^31−1 columns, and one without any.
    let mut bmp = file("24.bmp");
    bmp[18..22].copy_from_slice(&i32::MAX.to_le_bytes());
    assert!(matches!(decode(&bmp), Err(Error::Limit { .. })));
    bmp[18..22].fill(0);
    assert!(matches!(decode(&bmp), Err(Error::Malformed { .. })));
}

/// A WebP container of the small picture's size around a frame that says 16383×16383: memory goes by the frame.
#[cfg(feature = "webp")]
#[test]
fn a_lying_webp_frame_is_refused() {
    let mut bytes = file("lossy.webp");
    let at = bytes.windows(4).position(|w| w == b"VP8 ").unwrap() + 8;
    bytes[at + 6..at + 10].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    assert!(matches!(decode(&bytes), Err(Error::Limit { .. })));
}

/// A palette of parts of colours, of none, of too many: found by fuzzing.
#[test]
fn a_lying_palette_is_refused() {
    let whole = file("p8.png");
    let at = whole.windows(4).position(|w| w == b"PLTE").unwrap();
    let len = u32::from_be_bytes(whole[at - 4..at].try_into().unwrap()) as usize;
    let with = |colours: usize| {
        let mut chunk = b"PLTE".to_vec();
        chunk.extend((0..colours).map(|i| i as u8));
        let crc = crc32(chunk.iter().copied());
        let mut bytes = whole[..at - 4].to_vec();
        bytes.extend((colours as u32).to_be_bytes());
        bytes.extend(chunk);
        bytes.extend(crc.to_be_bytes());
        bytes.extend(&whole[at + 4 + len + 4..]);
        bytes
    };
    assert!(decode(&with(len)).is_ok());
    for colours in [0, 1, 2, 4, 49, 767, 769, 771, 3000] {
        let refused = decode(&with(colours));
        assert!(matches!(refused, Err(Error::Malformed { .. })), "{colours}");
    }
}

/// Refused bombs take no memory: the most this process ever held stays small.
#[cfg(target_os = "linux")]
#[test]
fn bombs_take_no_memory() {
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find(|l| l.starts_with("VmHWM"))
            .unwrap()
            .to_owned();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            / 1024
    };
    let before = peak();
    for side in [60_000u32, 1 << 20, 0x7fff_ffff] {
        let _ = decode(&[png_header(side, side), chunk(b"IDAT", b"x")].concat());
    }
    let after = peak();
    assert!(
        after - before < 64,
        "{before} MiB before, {after} MiB after"
    );
}
