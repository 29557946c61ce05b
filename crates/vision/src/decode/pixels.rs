//! Decoded samples of any channel count to RGB.

use super::Alpha;

/// Appends `samples` (1 grey, 2 grey+alpha, 3 RGB, 4 RGBA channels, 8 bits each) to `rgb`.
pub(super) fn push_rgb(rgb: &mut Vec<u8>, samples: &[u8], channels: usize, alpha: Alpha) {
    match channels {
        1 => rgb.extend(samples.iter().flat_map(|&g| [g; 3])),
        2 => rgb.extend(
            samples
                .as_chunks()
                .0
                .iter()
                .flat_map(|&[g, a]| over([g; 3], a, alpha)),
        ),
        4 => rgb.extend(
            samples
                .as_chunks()
                .0
                .iter()
                .flat_map(|&[r, g, b, a]| over([r, g, b], a, alpha)),
        ),
        _ => rgb.extend_from_slice(samples),
    }
}

/// One pixel laid over the backdrop, rounded as Pillow's `alpha_composite` onto an opaque picture.
pub(super) fn over(colour: [u8; 3], a: u8, alpha: Alpha) -> [u8; 3] {
    let Alpha::Over(backdrop) = alpha else {
        return colour;
    };
    if a == 0 {
        return backdrop;
    }
    // Pillow mixes with 7 extra bits: c = (colour·a + backdrop·(255−a))/255, rounded in two shifts.
    let (front, back) = (u32::from(a) << 7, (255 - u32::from(a)) << 7);
    let mix = |c: u8, b: u8| {
        let sum = u32::from(c) * front + u32::from(b) * back + (0x80 << 7);
        ((((sum >> 8) + sum) >> 8) >> 7) as u8
    };
    [
        mix(colour[0], backdrop[0]),
        mix(colour[1], backdrop[1]),
        mix(colour[2], backdrop[2]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_the_scale_are_exact() {
        let white = Alpha::Over([255; 3]);
        for c in 0..=255 {
            assert_eq!(over([c; 3], 255, white), [c; 3]);
            assert_eq!(over([c; 3], 0, white), [255; 3]);
            assert_eq!(over([c; 3], 7, Alpha::Drop), [c; 3]);
        }
        assert_eq!(over([0, 0, 200], 128, white), [127, 127, 227]);
    }

    #[test]
    fn channels_widen() {
        let mut rgb = Vec::new();
        push_rgb(&mut rgb, &[5, 6], 1, Alpha::Drop);
        push_rgb(&mut rgb, &[7, 0], 2, Alpha::Over([1, 2, 3]));
        push_rgb(&mut rgb, &[8, 9, 10], 3, Alpha::Drop);
        push_rgb(&mut rgb, &[11, 12, 13, 255], 4, Alpha::Over([0; 3]));
        assert_eq!(rgb, [5, 5, 5, 6, 6, 6, 1, 2, 3, 8, 9, 10, 11, 12, 13]);
    }
}
