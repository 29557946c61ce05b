//! Drawing what a model found on the picture it was found in: boxes, labels, masks, heat maps.
//!
//! Whatever lies below stays legible: frames have a dark and a bright line side by side, labels stand on a plate of their
//! own colour in black or white, whichever contrasts more. Everything outside the picture is left out.

mod colour;
mod text;

pub use colour::{heat, palette};
pub use text::{LINE_HEIGHT, text_width};

use crate::{Error, Image, Rect, Result};

/// Something found in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Where, in pixels of the picture.
    pub rect: Rect,
    /// What.
    pub label: String,
    /// The number of its class, which gives the colour.
    pub class: usize,
    /// How sure the model is, 0 to 1.
    pub score: f32,
}

impl Image {
    /// Fills a box with one colour, mixed in by `opacity` (0 to 1).
    pub fn fill(&mut self, rect: Rect, colour: [u8; 3], opacity: f32) {
        let (x0, y0, x1, y1) = self.pixels(rect);
        for y in y0..y1 {
            for x in x0..x1 {
                self.mix(x, y, colour, opacity);
            }
        }
    }

    /// A frame along a box's inside, `thickness` pixels of the colour and one dark pixel inside that.
    pub fn frame(&mut self, rect: Rect, colour: [u8; 3], thickness: usize) {
        let t = thickness.max(1) as f32;
        let dark = [0, 0, 0];
        for (from, to, colour) in [(t, t + 1.0, dark), (0.0, t, colour)] {
            let Rect { x0, y0, x1, y1 } = Rect {
                x0: rect.x0 + from,
                y0: rect.y0 + from,
                x1: rect.x1 - from,
                y1: rect.y1 - from,
            };
            if x1 <= x0 || y1 <= y0 {
                continue;
            }
            let d = to - from;
            let bars = [
                (x0, y0, x1, y0 + d),
                (x0, y1 - d, x1, y1),
                (x0, y0, x0 + d, y1),
                (x1 - d, y0, x1, y1),
            ];
            for (x0, y0, x1, y1) in bars {
                self.fill(Rect { x0, y0, x1, y1 }, colour, 1.0);
            }
        }
    }

    /// A label whose plate's upper left corner is at `(x, y)`, moved so far that it is inside the picture. `scale`
    /// enlarges the 16-pixel font.
    pub fn label(&mut self, x: f32, y: f32, text: &str, colour: [u8; 3], scale: usize) {
        let scale = scale.clamp(1, text::MAX_SCALE);
        let (w, h) = (
            (text_width(text) * scale + 4 * scale) as f32,
            (LINE_HEIGHT * scale) as f32,
        );
        let x = x.min(self.width() as f32 - w).max(0.0).floor();
        let y = y.min(self.height() as f32 - h).max(0.0).floor();
        let plate = Rect {
            x0: x,
            y0: y,
            x1: x + w,
            y1: y + h,
        };
        self.fill(plate, colour, 1.0);
        self.text(
            x as usize + 2 * scale,
            y as usize,
            text,
            colour::ink(colour),
            scale,
        );
    }

    /// Boxes with labels such as `cat 93 %`; the surest on top.
    pub fn detections(&mut self, found: &[Detection]) {
        // As thick and as large as suits the picture's size.
        let scale = (self.width().min(self.height()) / 640).max(1);
        let mut order: Vec<&Detection> = found.iter().collect();
        order.sort_by(|a, b| a.score.total_cmp(&b.score));
        for d in &order {
            self.frame(d.rect, palette(d.class), 2 * scale);
        }
        for d in order {
            let text = format!("{} {:.0} %", d.label, d.score * 100.0);
            let above = d.rect.y0 - (LINE_HEIGHT * scale) as f32;
            let y = if above >= 0.0 { above } else { d.rect.y0 };
            self.label(d.rect.x0, y, &text, palette(d.class), scale);
        }
    }

    /// A mask of any size, stretched over the picture (nearest): where `values[row·width + column]` exceeds `threshold`,
    /// the colour is mixed in by `opacity`, and the mask's edge is drawn whole.
    ///
    /// # Errors
    /// `InvalidInput` if the sizes do not fit the values.
    pub fn mask(
        &mut self,
        values: &[f32],
        (width, height): (usize, usize),
        threshold: f32,
        colour: [u8; 3],
        opacity: f32,
    ) -> Result<()> {
        check(values, width, height)?;
        let (w, h) = (self.width(), self.height());
        let inside =
            |x: usize, y: usize| values[y * height / h * width + x * width / w] > threshold;
        for y in 0..h {
            for x in 0..w {
                if !inside(x, y) {
                    continue;
                }
                let edge = x == 0
                    || y == 0
                    || x + 1 == w
                    || y + 1 == h
                    || !(inside(x - 1, y)
                        && inside(x + 1, y)
                        && inside(x, y - 1)
                        && inside(x, y + 1));
                self.mix(x, y, colour, if edge { 1.0 } else { opacity });
            }
        }
        Ok(())
    }

    /// A map of numbers of any size, stretched over the picture (bilinear, between the centres of its cells), as colours
    /// from dark (the least) to bright (the most), mixed in by `opacity`. What is not finite counts as the least.
    ///
    /// # Errors
    /// `InvalidInput` if the sizes do not fit the values.
    pub fn heat_map(
        &mut self,
        values: &[f32],
        (width, height): (usize, usize),
        opacity: f32,
    ) -> Result<()> {
        check(values, width, height)?;
        let finite = || values.iter().copied().filter(|v| v.is_finite());
        let (low, high) = (
            finite().fold(f32::INFINITY, f32::min),
            finite().fold(f32::NEG_INFINITY, f32::max),
        );
        let span = if high > low { high - low } else { 1.0 };
        let level = |v: f32| if v.is_finite() { (v - low) / span } else { 0.0 };
        let (w, h) = (self.width(), self.height());
        let axis = |i: usize, from: usize, to: usize| {
            let at =
                ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, (from - 1) as f32);
            let first = at as usize;
            (first, (first + 1).min(from - 1), at - first as f32)
        };
        for y in 0..h {
            let (y0, y1, fy) = axis(y, height, h);
            for x in 0..w {
                let (x0, x1, fx) = axis(x, width, w);
                let v = |x: usize, y: usize| level(values[y * width + x]);
                let top = v(x0, y0) * (1.0 - fx) + v(x1, y0) * fx;
                let bottom = v(x0, y1) * (1.0 - fx) + v(x1, y1) * fx;
                self.mix(x, y, heat(top * (1.0 - fy) + bottom * fy), opacity);
            }
        }
        Ok(())
    }

    /// Puts another picture at `(left, top)`; what does not fit is left out.
    pub fn paste(&mut self, other: &Image, left: usize, top: usize) {
        let columns = other.width().min(self.width().saturating_sub(left));
        if columns == 0 {
            return;
        }
        for y in 0..other.height().min(self.height().saturating_sub(top)) {
            let at = ((top + y) * self.width() + left) * 3;
            if let Some(to) = self.rgb_mut().get_mut(at..at + columns * 3) {
                to.copy_from_slice(&other.row(y)[..columns * 3]);
            }
        }
    }

    /// A box's pixels inside the picture: left, top, right, bottom.
    fn pixels(&self, rect: Rect) -> (usize, usize, usize, usize) {
        let r = rect.clipped(self.width() as f32, self.height() as f32);
        // A NaN becomes 0 here: nothing is drawn.
        let at = |v: f32| v.round() as usize;
        (at(r.x0), at(r.y0), at(r.x1), at(r.y1))
    }

    fn mix(&mut self, x: usize, y: usize, colour: [u8; 3], opacity: f32) {
        let (width, a) = (self.width(), (opacity.clamp(0.0, 1.0) * 256.0) as u32);
        if x >= width || y >= self.height() {
            return;
        }
        let at = (y * width + x) * 3;
        if let Some(pixel) = self.rgb_mut().get_mut(at..at + 3) {
            for (p, c) in pixel.iter_mut().zip(colour) {
                *p = ((u32::from(*p) * (256 - a) + u32::from(c) * a + 128) >> 8) as u8;
            }
        }
    }
}

fn check(values: &[f32], width: usize, height: usize) -> Result<()> {
    match width.checked_mul(height) {
        Some(n) if n == values.len() && n > 0 => Ok(()),
        _ => Err(Error::invalid(format!(
            "a {width}×{height} map has as many values, at least one; got {}",
            values.len()
        ))),
    }
}
