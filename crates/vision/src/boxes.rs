//! Boxes: formats, overlap, suppression, and the way back to the original picture.
//!
//! ```text
//! area = max(x1 − x0, 0) · max(y1 − y0, 0)         IoU = area(a ∩ b) / (area a + area b − area(a ∩ b))
//! ```
//! All in f32, as `torchvision.ops` computes them.

use crate::{Error, Result};

/// A box by two corners, in pixels or as shares of a picture: `x0 ≤ x1`, `y0 ≤ y1`, y downwards.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rect {
    /// Left.
    pub x0: f32,
    /// Top.
    pub y0: f32,
    /// Right, not included.
    pub x1: f32,
    /// Bottom, not included.
    pub y1: f32,
}

/// How four numbers say where a box is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BoxFormat {
    /// Left, top, right, bottom.
    Corners,
    /// Left, top, width, height (COCO).
    CornerSize,
    /// Centre x and y, width, height (DETR, YOLOS, RT-DETR).
    CenterSize,
}

impl Rect {
    /// The box that four numbers mean.
    pub fn from_format(v: [f32; 4], format: BoxFormat) -> Rect {
        let [a, b, c, d] = v;
        let (x0, y0, x1, y1) = match format {
            BoxFormat::Corners => (a, b, c, d),
            BoxFormat::CornerSize => (a, b, a + c, b + d),
            BoxFormat::CenterSize => (a - 0.5 * c, b - 0.5 * d, a + 0.5 * c, b + 0.5 * d),
        };
        Rect { x0, y0, x1, y1 }
    }

    /// The four numbers of another format.
    pub fn to_format(self, format: BoxFormat) -> [f32; 4] {
        let Rect { x0, y0, x1, y1 } = self;
        match format {
            BoxFormat::Corners => [x0, y0, x1, y1],
            BoxFormat::CornerSize => [x0, y0, x1 - x0, y1 - y0],
            BoxFormat::CenterSize => [(x0 + x1) / 2.0, (y0 + y1) / 2.0, x1 - x0, y1 - y0],
        }
    }

    /// Its area; 0 for a box that is turned inside out.
    pub fn area(self) -> f32 {
        (self.x1 - self.x0).max(0.0) * (self.y1 - self.y0).max(0.0)
    }

    /// What both cover.
    pub fn intersection(self, other: Rect) -> Rect {
        Rect {
            x0: self.x0.max(other.x0),
            y0: self.y0.max(other.y0),
            x1: self.x1.min(other.x1),
            y1: self.y1.min(other.y1),
        }
    }

    /// Intersection over union, 0 to 1; 0 where neither has an area.
    pub fn iou(self, other: Rect) -> f32 {
        let both = self.intersection(other).area();
        let union = self.area() + other.area() - both;
        if union > 0.0 { both / union } else { 0.0 }
    }

    /// The box in another picture's pixels: `from` and `to` are width and height. Shares of a picture are pixels of a
    /// picture of `(1.0, 1.0)`.
    pub fn rescaled(self, from: (f32, f32), to: (f32, f32)) -> Rect {
        let (x, y) = (to.0 / from.0, to.1 / from.1);
        Rect {
            x0: self.x0 * x,
            y0: self.y0 * y,
            x1: self.x1 * x,
            y1: self.y1 * y,
        }
    }

    /// The part inside a picture of this width and height.
    pub fn clipped(self, width: f32, height: f32) -> Rect {
        Rect {
            x0: self.x0.max(0.0).min(width),
            y0: self.y0.max(0.0).min(height),
            x1: self.x1.max(0.0).min(width),
            y1: self.y1.max(0.0).min(height),
        }
    }
}

/// Non-maximum suppression: the indices of the boxes that stay, best score first. A box goes where its IoU with a better
/// one that stays exceeds `threshold`; where `classes` are given, only boxes of the same class compete. Equal scores keep
/// their order; a box whose score is NaN never stays.
///
/// # Errors
/// `InvalidInput` if the lengths differ.
pub fn nms(
    boxes: &[Rect],
    scores: &[f32],
    classes: Option<&[usize]>,
    threshold: f32,
) -> Result<Vec<usize>> {
    let lengths = [
        boxes.len(),
        scores.len(),
        classes.map_or(boxes.len(), <[_]>::len),
    ];
    if lengths.iter().any(|&n| n != boxes.len()) {
        return Err(Error::invalid(format!(
            "boxes, scores and classes are as many, got {lengths:?}"
        )));
    }
    let mut order: Vec<usize> = (0..boxes.len()).filter(|&i| !scores[i].is_nan()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        let rival =
            |&k: &usize| classes.is_none_or(|c| c[k] == c[i]) && boxes[k].iou(boxes[i]) > threshold;
        if !kept.iter().any(rival) {
            kept.push(i);
        }
    }
    Ok(kept)
}
