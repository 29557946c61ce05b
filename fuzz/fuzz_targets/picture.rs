//! Any bytes as a picture file: its header, its picture, what the processors make of it; and as a processor's configuration.
#![no_main]

use firelight_vision::{DecodeOptions, Format, Image, Processor, decode_with, dimensions_with, frames};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static PROCESSORS: LazyLock<Vec<Processor>> = LazyLock::new(|| {
    [
        r#"{"image_processor_type": "CLIPImageProcessor", "size": 24, "crop_size": 24}"#,
        r#"{"image_processor_type": "YolosImageProcessorPil", "size": {"shortest_edge": 32, "longest_edge": 64}}"#,
        r#"{"image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 48}, "max_image_size": {"longest_edge": 16}}"#,
        r#"{"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4, "size": {"shortest_edge": 64, "longest_edge": 4096}}"#,
        r#"{"image_processor_type": "Gemma4ImageProcessor", "patch_size": 2, "max_soft_tokens": 70}"#,
    ]
    .map(|json| Processor::from_config(json).expect("these are right"))
    .to_vec()
});

fuzz_target!(|data: &[u8]| {
    let mut options = DecodeOptions::default();
    options.max_pixels = 1 << 18;
    options.max_bytes = 1 << 23;
    let header = dimensions_with(data, &options);
    if let Ok(image) = decode_with(data, &options) {
        let size = (image.width(), image.height());
        assert!(size.0 * size.1 <= 1 << 18);
        assert_eq!(header.ok(), Some(size), "the header's size is the picture's");
        for processor in PROCESSORS.iter() {
            let plan = processor.plan(size.0, size.1);
            let made = processor.process(std::slice::from_ref(&image));
            match (plan, made) {
                (Ok(plan), Ok(made)) => assert_eq!(made.plans, [plan]),
                (Err(_), Err(_)) => {}
                (plan, made) => panic!("planned {plan:?}, made {:?}", made.map(|m| m.plans)),
            }
        }
    }
    if let Some(Format::Gif | Format::WebP) = Format::of(data)
        && let Ok(film) = frames(data, &options)
    {
        let first = &film.first().expect("at least one").image;
        let size = (first.width(), first.height());
        assert!(film.iter().all(|f| (f.image.width(), f.image.height()) == size));
        assert!((film.len() * size.0 * size.1 * 3) as u64 <= options.max_bytes);
    }
    if let Some(processor) = std::str::from_utf8(data).ok().and_then(|t| Processor::from_config(t).ok()) {
        let image = Image::filled(7, 5, [1, 2, 3]).expect("small");
        // Sizes in a configuration may be large, within their limits; those are not computed here.
        if let Ok(plan) = processor.plan(7, 5)
            && plan.width * plan.height * plan.inputs() <= 1 << 16
        {
            let _ = processor.process(&[image]);
        }
    }
});
