//! What the classes of image processors do where a file is silent.

use super::Size;
use crate::Filter;

/// How a class treats a picture's shape.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Family {
    Fixed,
    /// Sides become multiples of the number.
    Detect(usize),
    Tiles,
    Grid,
    Soft,
}

/// What a class does where the file is silent.
pub(super) struct Class {
    pub(super) name: &'static str,
    pub(super) family: Family,
    pub(super) size: Size,
    /// Whether an old-style number for `size` means a square (else the shortest edge).
    pub(super) square: bool,
    pub(super) crop: Option<usize>,
    pub(super) do_crop: bool,
    pub(super) filter: Filter,
    pub(super) mean: [f64; 3],
    pub(super) std: [f64; 3],
    pub(super) do_normalize: bool,
    pub(super) do_pad: bool,
}

pub(super) const HALF: [f64; 3] = [0.5; 3];
pub(super) const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
pub(super) const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// The class attributes of transformers 5.
pub(super) const CLASSES: [Class; 14] = [
    class("ViT", square(224), Filter::Bilinear),
    Class {
        crop: Some(224),
        do_crop: true,
        ..class("DeiT", square(256), Filter::Bicubic)
    },
    clip_like("CLIP"),
    clip_like("Bit"),
    Class {
        square: false,
        ..class("Siglip", square(224), Filter::Bicubic)
    },
    mobilenet("MobileNetV1"),
    mobilenet("MobileNetV2"),
    Class {
        crop: Some(289),
        ..class("EfficientNet", square(346), Filter::Bicubic)
    },
    Class {
        family: Family::Detect(1),
        square: false,
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
        do_normalize: false,
        ..class("RTDetr", square(640), Filter::Bilinear)
    },
    Class {
        family: Family::Detect(16),
        square: false,
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
        do_pad: true,
        ..class("Yolos", YOLOS_SIZE, Filter::Bilinear)
    },
    tiled("Idefics3"),
    tiled("SmolVLM"),
    Class {
        family: Family::Grid,
        mean: CLIP_MEAN,
        std: CLIP_STD,
        ..class("Qwen2VL", square(0), Filter::Bicubic)
    },
    Class {
        family: Family::Soft,
        mean: [0.0; 3],
        std: [1.0; 3],
        do_normalize: false,
        ..class("Gemma4", square(0), Filter::Bicubic)
    },
];

const YOLOS_SIZE: Size = Size::Between {
    shortest: 800,
    longest: 1333,
};

const fn tiled(name: &'static str) -> Class {
    Class {
        family: Family::Tiles,
        do_pad: true,
        ..class(name, square(0), Filter::Lanczos3)
    }
}

pub(super) const fn square(side: usize) -> Size {
    Size::Exact {
        width: side,
        height: side,
    }
}

pub(super) const fn class(name: &'static str, size: Size, filter: Filter) -> Class {
    Class {
        name,
        family: Family::Fixed,
        size,
        square: true,
        crop: None,
        do_crop: false,
        filter,
        mean: HALF,
        std: HALF,
        do_normalize: true,
        do_pad: false,
    }
}

const fn clip_like(name: &'static str) -> Class {
    Class {
        square: false,
        crop: Some(224),
        do_crop: true,
        mean: CLIP_MEAN,
        std: CLIP_STD,
        ..class(name, Size::Shortest(224), Filter::Bicubic)
    }
}

const fn mobilenet(name: &'static str) -> Class {
    Class {
        square: false,
        crop: Some(224),
        do_crop: true,
        ..class(name, Size::Shortest(256), Filter::Bilinear)
    }
}
