//! The `size` of a processor: what a picture is resized to.

/// A rule for the size of a resized picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Size {
    /// Exactly this, whatever the picture's shape.
    Exact {
        /// Width.
        width: usize,
        /// Height.
        height: usize,
    },
    /// The shape is kept and the shorter side becomes this.
    Shortest(usize),
    /// The shape is kept, the shorter side becomes `shortest` unless the longer one would exceed `longest`.
    Between {
        /// The shorter side, if there is room.
        shortest: usize,
        /// The most of the longer side.
        longest: usize,
    },
    /// The shape is kept and the picture is as large as fits into this.
    Within {
        /// The most of the width.
        width: usize,
        /// The most of the height.
        height: usize,
    },
}

impl Size {
    /// Width and height of a picture that was `width × height`; at least 1×1.
    pub fn of(self, width: usize, height: usize) -> (usize, usize) {
        let (short, long) = (width.min(height).max(1), width.max(height).max(1));
        let landscape = width > height;
        let place = |short: usize, long: usize| {
            let (short, long) = (short.max(1), long.max(1));
            if landscape {
                (long, short)
            } else {
                (short, long)
            }
        };
        match self {
            Size::Exact { width, height } => (width, height),
            Size::Within {
                width: to_w,
                height: to_h,
            } => {
                let (w, h) = (width.max(1) as f64, height.max(1) as f64);
                let scale = (to_h as f64 / h).min(to_w as f64 / w);
                (((w * scale) as usize).max(1), ((h * scale) as usize).max(1))
            }
            // `int(size · long / short)` in Python: an exact product, divided in f64, cut off.
            Size::Shortest(to) => place(to, scaled(to as f64, long, short)),
            Size::Between { shortest, longest } => {
                let (short_f, long_f) = (short as f64, long as f64);
                if long_f / short_f * shortest as f64 <= longest as f64 {
                    return match short == shortest {
                        true => (width, height),
                        false => place(shortest, scaled(shortest as f64, long, short)),
                    };
                }
                let raw = longest as f64 * short_f / long_f;
                // Python rounds halves to even.
                let to = raw.round_ties_even() as usize;
                match short == to {
                    true => (width, height),
                    false => place(to, scaled(raw, long, short)),
                }
            }
        }
    }
}

fn scaled(size: f64, long: usize, short: usize) -> usize {
    (size * long as f64 / short as f64) as usize
}
