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
    let lines = include_str!("data/resize.txt")
        .lines()
        .filter(|l| !l.starts_with('#'));
    let (mut wrong, mut count) = (Vec::new(), 0);
    for line in lines {
        count += 1;
        let f: Vec<&str> = line.split(' ').collect();
        let n: Vec<usize> = f[2..7].iter().map(|v| v.parse().unwrap()).collect();
        let reference = match f[0] {
            "pillow" => Reference::Pillow,
            _ => Reference::Torchvision,
        };
        let mut input = picture(n[0], n[1], n[4] as u32);
        change(&mut input);
        let out = resize(&input, n[2], n[3], filter(f[1]), reference).unwrap();
        assert_eq!((out.width(), out.height()), (n[2], n[3]));
        if format!("{:08x}", crc32(out.rgb().iter().copied())) != f[7] {
            wrong.push(line.into());
        }
    }
    (wrong, count)
}

#[test]
fn equals_the_references_to_the_bit() {
    let (wrong, count) = mismatches(|_| ());
    assert!(count >= 500, "only {count} cases");
    assert!(
        wrong.is_empty(),
        "{} of {count} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
