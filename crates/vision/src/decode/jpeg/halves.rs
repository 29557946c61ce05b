//! A large JPEG on two threads.
//!
//! The data of a JPEG is one chain: where a row begins is known when all before it has been read. But reading the codes takes
//! less than half of the time that decoding does, so one thread decodes the upper part while the other reads the codes of that part, finds the place
//! where the lower part begins, and decodes that as a file of its own. Colours that have half the rows are interpolated across
//! the seam: the two rows on either side come from a third file, of the two rows of MCUs that meet there.

use super::scan::Scan;

/// The share of the rows in the upper part: both threads end at about the same time.
const UPPER: f64 = 0.62;
/// Below this many bytes of file a thread is not worth it.
const WORTH: usize = 1 << 18;

/// Decodes into `rgb` (`[height, width, 3]`) as `whole(file, rgb)` would, which decodes any JPEG of that width. `None` where
/// the file is small, is not one that can be cut, or there is one thread: `rgb` then holds anything.
pub(super) fn decode(
    bytes: &[u8],
    rgb: &mut [u8],
    row: usize,
    whole: impl Fn(&[u8], &mut [u8]) -> Option<()> + Sync,
) -> Option<()> {
    // What is larger than its picture is no picture's data; the parts are copies of the file.
    if !(WORTH..rgb.len()).contains(&bytes.len()) || !crate::threads::several() {
        return None;
    }
    let scan = Scan::new(bytes)?;
    let cut = (scan.height as f64 / scan.unit as f64 * UPPER) as usize;
    at(&scan, cut, rgb, row, whole)
}

/// As [`decode`], the lower part beginning with row of MCUs `cut`.
fn at(
    scan: &Scan<'_>,
    cut: usize,
    rgb: &mut [u8],
    row: usize,
    whole: impl Fn(&[u8], &mut [u8]) -> Option<()> + Sync,
) -> Option<()> {
    let unit = scan.unit;
    let seam = cut * unit;
    if cut == 0 || seam >= scan.height || rgb.len() != scan.height * row {
        return None;
    }
    let (upper, lower) = rgb.split_at_mut(seam * row);
    let below = scan.height - seam;
    let (first, second) = crate::threads::both(
        || whole(&scan.of_height(seam)?, upper),
        || {
            let mut place = scan.start();
            scan.walk(&mut place, cut - 1)?;
            let above = place.clone();
            scan.walk(&mut place, 1)?;
            whole(&scan.cut(place.clone(), None, below)?, lower)?;
            if unit == 8 {
                return Some(None);
            }
            let height = unit + below.min(unit);
            scan.walk(&mut place, 1)?;
            let mut middle = vec![0; height * row];
            whole(&scan.cut(above, Some(&place), height)?, &mut middle)?;
            Some(Some(middle))
        },
    );
    first?;
    if let Some(middle) = second? {
        let rows = 2.min(below);
        rgb[(seam - 2) * row..(seam + rows) * row]
            .copy_from_slice(&middle[(unit - 2) * row..(unit + rows) * row]);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::whole;
    use super::*;
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
    use proptest::prelude::*;

    const SAMPLINGS: [SamplingFactor; 4] = [
        SamplingFactor::R_4_4_4,
        SamplingFactor::R_4_2_2,
        SamplingFactor::R_4_4_0,
        SamplingFactor::R_4_2_0,
    ];

    /// Smooth colours with some noise.
    fn picture(width: usize, height: usize, noise: u32, seed: u32) -> Vec<u8> {
        let mut state = seed | 1;
        let mut out = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for x in 0..width {
                for c in 0..3 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let wave = ((x * (c + 2) + y * (4 - c)) as f32 * 0.07).sin() * 100.0 + 128.0;
                    out.push((wave as u32 + (state >> 16) % (noise + 1)).min(255) as u8);
                }
            }
        }
        out
    }

    fn encoded(rgb: &[u8], width: usize, set: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out, 90);
        set(&mut encoder);
        let height = rgb.len() / width / 3;
        encoder
            .encode(rgb, width as u16, height as u16, ColorType::Rgb)
            .unwrap();
        out
    }

    /// What both parts make of a file, and the file as a whole.
    fn both_ways(
        file: &[u8],
        width: usize,
        height: usize,
        cut: usize,
    ) -> (Option<Vec<u8>>, Vec<u8>) {
        let mut expected = vec![0; width * height * 3];
        whole(file, &mut expected).unwrap();
        let mut out = vec![0; expected.len()];
        let made = Scan::new(file).and_then(|scan| at(&scan, cut, &mut out, width * 3, whole));
        (made.map(|()| out), expected)
    }

    proptest! {
        #[test]
        fn two_parts_make_the_whole(
            (width, height) in (1usize..90, 17usize..120), cut in 1usize..14, sampling in 0usize..4,
            (quality, noise) in (5u8..=100, 0u32..256), optimized: bool, seed: u32,
        ) {
            let rgb = picture(width, height, noise, seed);
            let file = encoded(&rgb, width, |e| {
                e.set_quality(quality);
                e.set_sampling_factor(SAMPLINGS[sampling]);
                e.set_optimized_huffman_tables(optimized);
            });
            let unit = if sampling < 2 { 8 } else { 16 };
            let (made, expected) = both_ways(&file, width, height, cut);
            if cut * unit >= height {
                prop_assert!(made.is_none());
            } else if let Some(made) = made {
                prop_assert!(made == expected);
            } else {
                // Tables made for the picture may lack the code of the first difference.
                prop_assert!(optimized);
            }
        }

        #[test]
        fn damage_is_never_a_panic(at_byte in 0usize..6000, value: u8, cut in 1usize..5) {
            let rgb = picture(64, 80, 40, 1);
            let mut file = encoded(&rgb, 64, |e| e.set_sampling_factor(SamplingFactor::R_4_2_0));
            let n = file.len();
            file[at_byte % n] = value;
            let mut out = vec![0; 64 * 80 * 3];
            if let Some(scan) = Scan::new(&file) {
                let _ = at(&scan, cut, &mut out, 64 * 3, whole);
            }
        }
    }

    #[test]
    fn other_files_are_left_to_the_decoder() {
        let rgb = picture(64, 80, 40, 1);
        let refused = |file: &[u8]| both_ways(file, 64, 80, 2).0.is_none();
        assert!(!refused(&encoded(&rgb, 64, |_| {})));
        assert!(refused(&encoded(&rgb, 64, |e| e.set_progressive(true))));
        assert!(refused(&encoded(&rgb, 64, |e| e.set_restart_interval(3))));
        assert!(refused(
            &encoded(&rgb, 64, |e| e.set_sampling_factor(SamplingFactor::R_4_1_1))
        ));
    }
}
