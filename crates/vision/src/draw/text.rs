//! Text in a raster font: Noto Sans Mono, 16 pixels high, Latin scripts.

use crate::Image;
use noto_sans_mono_bitmap::{
    FontWeight, RasterHeight, RasterizedChar, get_raster, get_raster_width,
};

const WEIGHT: FontWeight = FontWeight::Regular;
const HEIGHT: RasterHeight = RasterHeight::Size16;

/// Height of a line at scale 1, in pixels.
pub const LINE_HEIGHT: usize = 16;

/// Larger letters are not drawn.
pub(super) const MAX_SCALE: usize = 64;

/// Width of a text at scale 1, in pixels.
pub fn text_width(text: &str) -> usize {
    text.chars().count() * get_raster_width(WEIGHT, HEIGHT)
}

fn glyph(c: char) -> Option<RasterizedChar> {
    // What the font lacks is shown as a question mark: a gap would hide that there was something.
    get_raster(c, WEIGHT, HEIGHT).or_else(|| get_raster('?', WEIGHT, HEIGHT))
}

impl Image {
    /// Text with its upper left corner at `(x, y)`, in one line.
    pub fn text(&mut self, x: usize, y: usize, text: &str, colour: [u8; 3], scale: usize) {
        let scale = scale.min(MAX_SCALE);
        let advance = get_raster_width(WEIGHT, HEIGHT) * scale;
        for (i, glyph) in text.chars().map(glyph).enumerate() {
            let Some(glyph) = glyph else { continue };
            let left = x.saturating_add(i * advance);
            if left >= self.width() {
                break;
            }
            for (row, line) in glyph.rows().enumerate() {
                for (column, &strength) in line.iter().enumerate() {
                    if strength == 0 {
                        continue;
                    }
                    for dy in 0..scale {
                        for dx in 0..scale {
                            let y = y.saturating_add(row * scale + dy);
                            let x = left + column * scale + dx;
                            self.mix(x, y, colour, f32::from(strength) / 255.0);
                        }
                    }
                }
            }
        }
    }
}
