//! Decoding against libsndfile's and ffmpeg's samples, and what hostile files do.

mod common;
use common::{Random, crc32, data, floats};
use firelight_audio::{Audio, DecodeOptions, Decoder, Error, decode, decode_with};

struct Golden {
    name: String,
    rate: u32,
    channels: usize,
    samples: usize,
    crc: String,
}

/// Every golden whose format this build reads.
fn goldens() -> Vec<Golden> {
    let text = String::from_utf8(data("decode.txt")).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines
        .map(|line| {
            let f: Vec<&str> = line.split(' ').collect();
            Golden {
                name: f[0].into(),
                rate: f[1].parse().unwrap(),
                channels: f[2].parse().unwrap(),
                samples: f[3].parse().unwrap(),
                crc: f[4].into(),
            }
        })
        .filter(|g| {
            let off = |ending: &str, on: bool| !on && g.name.ends_with(ending);
            !off("flac", cfg!(feature = "flac"))
                && !off("mp3", cfg!(feature = "mp3"))
                && !off("ogg", cfg!(feature = "vorbis"))
                && !off("opus", cfg!(feature = "opus"))
                && !off("webm", cfg!(feature = "opus"))
                && !off("m4a", cfg!(feature = "aac"))
                && !off("aac", cfg!(feature = "aac"))
        })
        .collect()
}

fn file(name: &str) -> Vec<u8> {
    data(&format!("decode/{name}"))
}

fn keep() -> DecodeOptions {
    DecodeOptions {
        keep_truncated: true,
        ..DecodeOptions::default()
    }
}

#[test]
fn equals_libsndfile() {
    let all = goldens();
    assert!(all.len() >= 15);
    for g in all {
        let bytes = file(&g.name);
        let audio = decode(&bytes).unwrap_or_else(|e| panic!("{}: {e}", g.name));
        let decoder = Decoder::new(&bytes, &DecodeOptions::default()).unwrap();
        assert_eq!(
            (audio.rate, decoder.channels()),
            (g.rate, g.channels),
            "{}",
            g.name
        );
        // Of WebM's last packet the padding is not told apart.
        let more = if g.name.ends_with("webm") { 959 } else { 0 };
        let found = audio.samples.len();
        assert!(
            (g.samples..=g.samples + more).contains(&found),
            "{}: {found}",
            g.name
        );
        if g.crc != "0" {
            assert_eq!(crc32(&audio.samples), g.crc, "{}", g.name);
            continue;
        }
        let beside = floats(&file(&format!("{}.f32", g.name)));
        let off = audio
            .samples
            .iter()
            .zip(&beside)
            .map(|(a, b)| (a - b).abs());
        let off = off.fold(
            0.0,
            |m: f32, d| if d.is_nan() { f32::INFINITY } else { m.max(d) },
        );
        // Opus here is fixed point, there float.
        let opus = g.name.ends_with("opus") || g.name.ends_with("webm");
        let bound = if opus { 1e-3 } else { 1e-4 };
        assert!(off <= bound, "{}: {off}", g.name);
    }
}

/// A WAV file of these format fields and sample bytes.
fn wav(tag: u16, channels: u16, rate: u32, bits: u16, body: &[u8]) -> Vec<u8> {
    let align = channels * (bits / 8);
    let mut out = b"RIFF".to_vec();
    out.extend((36 + body.len() as u32).to_le_bytes());
    out.extend(b"WAVEfmt ");
    out.extend(16u32.to_le_bytes());
    out.extend([tag.to_le_bytes(), channels.to_le_bytes()].concat());
    out.extend([rate.to_le_bytes(), (rate * u32::from(align)).to_le_bytes()].concat());
    out.extend([align.to_le_bytes(), bits.to_le_bytes()].concat());
    out.extend(b"data");
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(body);
    out
}

fn pcm16(values: &[i16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn integers_by_full_scale_and_channels_by_mean() {
    let bytes = wav(
        1,
        2,
        22050,
        16,
        &pcm16(&[i16::MIN, i16::MIN, 100, 300, i16::MAX, 1]),
    );
    let expected = Audio {
        rate: 22050,
        samples: vec![-1.0, 200.0 / 32768.0, 0.5],
    };
    assert_eq!(decode(&bytes).unwrap(), expected);
}

#[test]
fn channels_summed_by_power() {
    let options = DecodeOptions {
        downmix: firelight_audio::Downmix::Power,
        ..DecodeOptions::default()
    };
    let stereo = wav(1, 2, 16000, 16, &pcm16(&[16384, 16384, 0, -8192]));
    let got = decode_with(&stereo, None, &options).unwrap().samples;
    let half = std::f32::consts::SQRT_2 / 2.0;
    assert!(
        (got[0] - half).abs() < 1e-6 && (got[1] + 0.25 * half).abs() < 1e-6,
        "{got:?}"
    );
    let mono = wav(1, 1, 16000, 16, &pcm16(&[16384]));
    assert_eq!(decode_with(&mono, None, &options).unwrap().samples, [0.5]);
}

#[test]
fn values_beyond_one_are_kept_and_no_number_is_an_error() {
    let float = |v: &[f32]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let loud = wav(3, 1, 16000, 32, &float(&[3.5, -7.25, 0.0]));
    assert_eq!(decode(&loud).unwrap().samples, [3.5, -7.25, 0.0]);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![0.25; 3000];
        values[2001] = bad;
        let e = decode(&wav(3, 2, 16000, 32, &float(&values))).unwrap_err();
        assert!(
            matches!(&e, Error::Malformed { what, .. } if what.contains("sample 1000 ")),
            "{e}"
        );
    }
    let double = wav(
        3,
        1,
        16000,
        64,
        &[1e300f64, 0.0].map(f64::to_le_bytes).concat(),
    );
    assert!(
        matches!(decode(&double), Err(Error::Malformed { .. })),
        "beyond f32"
    );
}

#[test]
fn empty_and_strange_files() {
    assert!(matches!(decode(b""), Err(Error::Malformed { .. })));
    for bytes in [
        &b"\x89PNG\r\n\x1a\n"[..],
        b"x",
        b"RIFF\0\0\0\0AVI ",
        &[0; 4096],
    ] {
        let e = decode(bytes).unwrap_err();
        assert!(matches!(e, Error::Unsupported(_)), "{bytes:02x?}: {e:?}");
    }
    // No samples is a clip of no length.
    let empty = wav(1, 1, 8000, 16, b"");
    assert!(decode(&empty).unwrap().samples.is_empty());
    assert!(
        decode_with(&empty, Some(16000), &keep())
            .unwrap()
            .samples
            .is_empty()
    );
    let short = pcm16(&[5; 100]);
    for rate in [0, 999, 768_001, u32::MAX] {
        let bytes = wav(1, 1, 16000, 16, &short);
        let mut bytes = bytes.clone();
        bytes[24..28].copy_from_slice(&rate.to_le_bytes());
        assert!(
            matches!(
                decode(&bytes),
                Err(Error::Unsupported(_) | Error::Malformed { .. })
            ),
            "{rate}"
        );
    }
    for channels in [0u16, 65, 4096, u16::MAX] {
        let mut bytes = wav(1, 1, 16000, 16, &short);
        bytes[22..24].copy_from_slice(&channels.to_le_bytes());
        bytes[32..34].copy_from_slice(&channels.wrapping_mul(2).to_le_bytes());
        assert!(decode(&bytes).is_err(), "{channels} channels");
    }
    // ADPCM and an unknown tag: named, not guessed.
    for tag in [2, 0x11, 0x55, 0x4242] {
        let e = decode(&wav(tag, 1, 16000, 16, &short)).unwrap_err();
        assert!(
            matches!(e, Error::Unsupported(_) | Error::Malformed { .. }),
            "{tag:#x}: {e:?}"
        );
    }
}

#[test]
fn a_file_that_lies_about_its_length() {
    let values: Vec<i16> = (0..2500).collect();
    let whole = wav(1, 1, 16000, 16, &pcm16(&values));
    let samples = decode(&whole).unwrap().samples;
    for cut in [1, 2, 3, 100, 2304, 4999] {
        let bytes = &whole[..whole.len() - cut];
        let e = decode(bytes).unwrap_err();
        assert!(
            matches!(&e, Error::Malformed { what, .. } if what.contains("5000 bytes")),
            "{e}"
        );
        // What is there is taken to the last whole sample.
        let kept = decode_with(bytes, None, &keep()).unwrap().samples;
        assert_eq!(kept, samples[..(5000 - cut) / 2]);
    }
    // Less promised than there is: the rest is no sample.
    let mut less = whole.clone();
    less[40..44].copy_from_slice(&200u32.to_le_bytes());
    assert_eq!(decode(&less).unwrap().samples, samples[..100]);
}

#[test]
fn cut_files_are_errors_or_what_was_there() {
    for g in goldens() {
        let bytes = file(&g.name);
        let whole = decode(&bytes).unwrap().samples;
        for cut in (0..bytes.len()).step_by(7) {
            for options in [DecodeOptions::default(), keep()] {
                match decode_with(&bytes[..cut], None, &options) {
                    Ok(audio) => assert!(audio.samples.len() <= whole.len(), "{} at {cut}", g.name),
                    Err(Error::Malformed { .. } | Error::Unsupported(_)) => {}
                    Err(e) => panic!("{} at {cut}: {e}", g.name),
                }
            }
        }
        let lossless = g.name.ends_with("flac") || g.name.ends_with("wav");
        let open = g.name.starts_with("open");
        if lossless && !open {
            assert!(
                decode(&bytes[..bytes.len() / 2]).is_err(),
                "{}: half a file accepted",
                g.name
            );
        }
    }
}

/// Flips, overwrites, removes and repeats bytes; `MUTATIONS` in the environment says how often per file (default 150).
#[test]
fn damaged_files_neither_panic_nor_exceed_limits() {
    let rounds: u32 = std::env::var("MUTATIONS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(150);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for g in goldens() {
        let bytes = file(&g.name);
        for round in 0..rounds {
            let mut b = bytes.clone();
            for _ in 0..=random.below(4) {
                let span = if random.below(2) == 0 {
                    b.len().min(64)
                } else {
                    b.len()
                };
                let at = random.below(span);
                match random.below(5) {
                    0 => b[at] ^= 1 << random.below(8),
                    1 => b[at] = [0, 0xff, 0x7f, 0x80][random.below(4)],
                    2 => b[at] = random.below(256) as u8,
                    3 => drop(b.drain(at..(at + 1 + random.below(8)).min(b.len()))),
                    _ => {
                        let piece = b[at..(at + 1 + random.below(32)).min(b.len())].to_vec();
                        let to = random.below(b.len());
                        b.splice(to..to, piece);
                    }
                }
                if b.is_empty() {
                    b.push(0);
                }
            }
            let options = DecodeOptions {
                max_samples: 40_000,
                keep_truncated: round % 2 == 0,
                ..DecodeOptions::default()
            };
            // Every eighth goes through the resampler too, at whatever rate its header now says.
            let rate = (round % 8 == 0).then_some(16_000);
            if let Ok(audio) = decode_with(&b, rate, &options) {
                assert!(audio.samples.len() <= 40_000);
                assert!(audio.samples.iter().all(|v| v.is_finite()));
            }
        }
    }
}

#[test]
fn limits_hold() {
    let bytes = file("pcm_16.wav");
    let options = |max_samples| DecodeOptions {
        max_samples,
        ..DecodeOptions::default()
    };
    assert!(decode_with(&bytes, None, &options(800)).is_ok());
    let e = decode_with(&bytes, None, &options(799)).unwrap_err();
    assert!(matches!(e, Error::Limit { max: 799, .. }), "{e:?}");
    // Limits are on the result: 800 samples at 16 kHz are 38400 at 768 kHz.
    assert!(decode_with(&bytes, Some(768_000), &options(38_399)).is_err());
    assert_eq!(
        decode_with(&bytes, Some(768_000), &options(38_400))
            .unwrap()
            .samples
            .len(),
        38_400
    );
}
