//! Resizing against torchvision's and Pillow's bytes, and its laws.

mod common;
use common::{crc32, picture};
use firelight_vision::{Error, Filter, Image, Reference, resize};
use proptest::prelude::*;

fn filter(name: &str) -> Filter {
    match name {
        "nearest" => Filter::Nearest,
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        "lanczos" => Filter::Lanczos3,
        "box" => Filter::Box,
        "hamming" => Filter::Hamming,
        other => panic!("unknown filter {other}"),
    }
}

/// The golden lines that do not come out, and how many there are in all.
fn mismatches(change: impl Fn(&mut Image)) -> (Vec<String>, usize) {
    let mut lines = include_str!("data/resize.txt")
        .lines()
        .filter(|l| !l.starts_with('#'));
    let columns: Vec<(&str, &str)> = lines
        .next()
        .unwrap()
        .split(' ')
        .map(|c| c.split_once(':').unwrap())
        .collect();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for line in lines {
        let f: Vec<&str> = line.split(' ').collect();
        let n: Vec<usize> = f[..5].iter().map(|v| v.parse().unwrap()).collect();
        let mut input = picture(n[0], n[1], n[4] as u32);
        change(&mut input);
        for (&(reference, name), crc) in columns.iter().zip(&f[5..]) {
            count += 1;
            let reference = match reference {
                "pillow" => Reference::Pillow,
                _ => Reference::Torchvision,
            };
            let out = resize(&input, n[2], n[3], filter(name), reference).unwrap();
            assert_eq!((out.width(), out.height()), (n[2], n[3]));
            if format!("{:08x}", crc32(out.rgb().iter().copied())) != *crc {
                wrong.push(format!("{reference:?} {name} {:?}", &n[..4]));
            }
        }
    }
    (wrong, count)
}

#[test]
fn equals_the_references_to_the_bit() {
    let (wrong, count) = mismatches(|_| ());
    assert!(count >= 2000, "only {count} cases");
    assert!(
        wrong.is_empty(),
        "{} of {count} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn one_wrong_sample_is_noticed() {
    let (wrong, count) = mismatches(|image| {
        let mut rgb = image.clone().into_rgb();
        rgb.iter_mut().for_each(|v| *v ^= 0x40);
        *image = Image::new(image.width(), image.height(), rgb).unwrap();
    });
    assert!(wrong.len() > count * 9 / 10, "{} of {count}", wrong.len());
}

#[test]
fn what_torchvision_lacks_is_said() {
    for filter in [Filter::Box, Filter::Hamming] {
        let result = resize(&picture(4, 4, 0), 2, 2, filter, Reference::Torchvision);
        assert!(matches!(result, Err(Error::Unsupported(_))), "{result:?}");
    }
}

#[test]
fn empty_and_gigantic_targets() {
    let strip = picture(1, 65535, 0);
    for (w, h) in [(0, 4), (4, 0)] {
        let result = resize(&strip, w, h, Filter::Bilinear, Reference::Torchvision);
        assert!(matches!(result, Err(Error::InvalidInput(_))), "{result:?}");
    }
    for (w, h) in [
        (65535, 1),
        (65535, 65535),
        (usize::MAX, 1),
        (usize::MAX, usize::MAX),
    ] {
        let result = resize(&strip, w, h, Filter::Lanczos3, Reference::Pillow);
        assert!(
            matches!(result, Err(Error::Limit { .. })),
            "{w}×{h}: {result:?}"
        );
    }
}

/// The formula in exact arithmetic (f64), one sample at a time, with the same rounding between the passes.
fn plain(image: &Image, width: usize, height: usize, filter: Filter) -> Vec<f64> {
    let kernel = |x: f64| -> f64 {
        let x = x.abs();
        match filter {
            Filter::Bilinear => (1.0 - x).max(0.0),
            Filter::Bicubic if x < 1.0 => 1.5 * x.powi(3) - 2.5 * x.powi(2) + 1.0,
            Filter::Bicubic if x < 2.0 => -0.5 * x.powi(3) + 2.5 * x.powi(2) - 4.0 * x + 2.0,
            Filter::Lanczos3 if x < 3.0 => {
                let s = |v: f64| {
                    if v == 0.0 {
                        1.0
                    } else {
                        (v * std::f64::consts::PI).sin() / (v * std::f64::consts::PI)
                    }
                };
                s(x) * s(x / 3.0)
            }
            _ => 0.0,
        }
    };
    let reach = match filter {
        Filter::Bilinear => 1.0,
        Filter::Bicubic => 2.0,
        _ => 3.0,
    };
    let line = |at: &dyn Fn(usize) -> f64, from: usize, to: usize, i: usize| -> f64 {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let centre = (i as f64 + 0.5) * scale;
        let (mut sum, mut weights) = (0.0, 0.0);
        for j in 0..from {
            // A sample takes part if the kernel's reach, rounded to whole samples, covers it.
            let low = (centre - reach * stretch + 0.5).max(0.0).floor();
            let high = (centre + reach * stretch + 0.5).floor();
            if (j as f64) >= low && (j as f64) < high {
                let w = kernel((j as f64 + 0.5 - centre) / stretch);
                sum += w * at(j);
                weights += w;
            }
        }
        sum / weights
    };
    let rounded = |v: f64| (v + 0.5).floor().clamp(0.0, 255.0);
    let mut out = Vec::new();
    let sample = |x: usize, y: usize, c: usize| f64::from(image.pixel(x, y).unwrap()[c]);
    let mut across = vec![0.0; width * image.height() * 3];
    for y in 0..image.height() {
        for x in 0..width {
            for c in 0..3 {
                let v = if width == image.width() {
                    sample(x, y, c)
                } else {
                    line(&|j| sample(j, y, c), image.width(), width, x)
                };
                across[(y * width + x) * 3 + c] = rounded(v);
            }
        }
    }
    for y in 0..height {
        for i in 0..width * 3 {
            let at = |j: usize| across[j * width * 3 + i];
            out.push(if height == image.height() {
                at(y)
            } else {
                line(&at, image.height(), height, y)
            });
        }
    }
    out
}

fn any_filter() -> impl Strategy<Value = Filter> {
    prop::sample::select(vec![Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Fixed-point weights stay within a level or two of exact arithmetic.
    #[test]
    fn near_the_formula(w in 1usize..40, h in 1usize..40, ow in 1usize..40, oh in 1usize..40, seed in 0u32..1000, filter in any_filter()) {
        let image = picture(w, h, seed);
        let exact = plain(&image, ow, oh, filter);
        for reference in [Reference::Torchvision, Reference::Pillow] {
            let ours = resize(&image, ow, oh, filter, reference).unwrap();
            for (a, b) in ours.rgb().iter().zip(&exact) {
                let d = (f64::from(*a) - b.clamp(0.0, 255.0)).abs();
                prop_assert!(d <= 2.0, "{} against {}", a, b);
            }
        }
    }

    /// One colour stays one colour, at any size.
    #[test]
    fn flat_stays_flat(w in 1usize..60, h in 1usize..60, ow in 1usize..60, oh in 1usize..60, colour in any::<[u8; 3]>(), filter in any_filter()) {
        let image = Image::filled(w, h, colour).unwrap();
        for reference in [Reference::Torchvision, Reference::Pillow] {
            let out = resize(&image, ow, oh, filter, reference).unwrap();
            // int16 weights need not add up to one: torchvision itself is off by a level then.
            for (a, b) in out.rgb().iter().zip(colour.iter().cycle()) {
                prop_assert!(a.abs_diff(*b) <= u8::from(reference == Reference::Torchvision) * 2);
            }
        }
    }

    /// The same size is the same picture, and a mirrored picture resizes to the mirrored result (Pillow's weights are
    /// symmetric; torchvision's too).
    #[test]
    fn identity_and_mirrors(w in 1usize..40, h in 1usize..40, ow in 1usize..40, oh in 1usize..40, seed in 0u32..1000, filter in any_filter()) {
        let image = picture(w, h, seed);
        prop_assert_eq!(&resize(&image, w, h, filter, Reference::Torchvision).unwrap(), &image);
        let out = resize(&image, ow, oh, filter, Reference::Pillow).unwrap();
        let turned = resize(&image.oriented(3), ow, oh, filter, Reference::Pillow).unwrap();
        for (a, b) in turned.oriented(3).rgb().iter().zip(out.rgb()) {
            prop_assert!(a.abs_diff(*b) <= 1);
        }
    }

    /// Crop undoes pad; eight orientations are the symmetries of the square.
    #[test]
    fn moves_lose_nothing(w in 1usize..12, h in 1usize..12, left in 0usize..5, top in 0usize..5, more in 0usize..5, seed in 0u32..99) {
        let image = picture(w, h, seed);
        let padded = image.pad(left, top, w + left + more, h + top + more, [1, 2, 3]).unwrap();
        prop_assert_eq!(&padded.crop(left, top, w, h).unwrap(), &image);
        for (o, back) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 8), (7, 7), (8, 6)] {
            prop_assert_eq!(&image.clone().oriented(o).oriented(back), &image);
        }
        prop_assert_eq!(image.clone().oriented(6).oriented(6), image.clone().oriented(3));
        prop_assert_eq!(image.center_crop(w, h, Reference::Pillow).unwrap(), image);
    }
}

#[test]
fn crops_outside_are_errors() {
    let image = picture(5, 4, 0);
    for (l, t, w, h) in [
        (0, 0, 6, 1),
        (5, 0, 1, 1),
        (0, 4, 1, 1),
        (usize::MAX, 0, 2, 1),
        (0, 0, 0, 1),
        (0, 0, 1, 0),
    ] {
        assert!(
            matches!(image.crop(l, t, w, h), Err(Error::InvalidInput(_))),
            "{l} {t} {w} {h}"
        );
    }
    assert!(image.pad(1, 0, 5, 4, [0; 3]).is_err());
    assert!(image.pad(usize::MAX, 0, 9, 9, [0; 3]).is_err());
    assert!(image.center_crop(0, 3, Reference::Torchvision).is_err());
    assert!(Image::new(2, 2, vec![0; 11]).is_err());
    assert!(Image::new(0, 2, vec![]).is_err());
    assert!(Image::filled(usize::MAX, 2, [0; 3]).is_err());
    assert_eq!(image.pixel(5, 0), None);
}
