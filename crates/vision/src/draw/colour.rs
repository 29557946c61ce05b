//! Colours that can be told apart.

/// The colour of a class: hues a golden angle apart, so that neighbours differ, in three strengths.
pub fn palette(class: usize) -> [u8; 3] {
    let hue = (class as f32 * 0.618_034).fract() * 6.0;
    let value = [1.0, 0.8, 0.65][class / 7 % 3];
    let (low, x) = (0.15, 1.0 - (hue % 2.0 - 1.0).abs());
    let x = low + (1.0 - low) * x;
    let rgb = match hue as u32 {
        0 => [1.0, x, low],
        1 => [x, 1.0, low],
        2 => [low, 1.0, x],
        3 => [low, x, 1.0],
        4 => [x, low, 1.0],
        _ => [1.0, low, x],
    };
    rgb.map(|c: f32| (c * value * 255.0) as u8)
}

/// Black or white, whichever contrasts more with a colour.
pub(super) fn ink(colour: [u8; 3]) -> [u8; 3] {
    let linear = |c: u8| (f32::from(c) / 255.0).powf(2.2);
    let [r, g, b] = colour.map(linear);
    // Contrast is (lighter + 0.05) / (darker + 0.05); black wins from this luminance on.
    if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 {
        [0; 3]
    } else {
        [255; 3]
    }
}

/// The colour of a level from 0 to 1: dark blue, violet, red, yellow, near white; brightness rises all the way, so that it
/// also reads in grey.
pub fn heat(level: f32) -> [u8; 3] {
    const STOPS: [[f32; 3]; 6] = [
        [0.0, 0.0, 20.0],
        [70.0, 10.0, 110.0],
        [170.0, 40.0, 95.0],
        [235.0, 105.0, 40.0],
        [250.0, 195.0, 50.0],
        [255.0, 255.0, 210.0],
    ];
    let at = level.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let i = (at as usize).min(STOPS.len() - 2);
    let f = at - i as f32;
    [0, 1, 2].map(|c| (STOPS[i][c] * (1.0 - f) + STOPS[i + 1][c] * f) as u8)
}
