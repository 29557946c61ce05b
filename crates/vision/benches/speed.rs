//! How long it takes from a picture file to model input, and what it holds in memory meanwhile; beside `fast_image_resize`.
//!
//! `cargo bench -p firelight-vision --bench speed -- FILE.jpg` prints one JSON object, times in milliseconds
//! (medians). `scripts/bench_vision.py` runs it beside Hugging Face's processors.

use fast_image_resize as fir;
use firelight_vision::{Filter, Image, Processor, Reference, decode, resize};
use std::time::Instant;

const RUNS: usize = 9;

fn median(mut run: impl FnMut()) -> f64 {
    run();
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

/// The most resident bytes of this process so far, where the system tells (Linux).
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kb| kb * 1024)
}

fn with_fir(image: &Image, width: usize, height: usize, filter: fir::FilterType) -> Vec<u8> {
    let (w, h) = (image.width() as u32, image.height() as u32);
    let source =
        fir::images::ImageRef::new(w, h, image.rgb(), fir::PixelType::U8x3).expect("a picture");
    let mut out = fir::images::Image::new(width as u32, height as u32, fir::PixelType::U8x3);
    let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(filter));
    fir::Resizer::new()
        .resize(&source, &mut out, &options)
        .expect("both have pixels");
    out.into_vec()
}

fn main() {
    // Cargo says `--bench` at the end.
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    let path = args.next().expect("give a picture file");
    let file = std::fs::read(&path).expect("the file is readable");
    let configs = [
        ("clip", r#"{"image_processor_type": "CLIPImageProcessor"}"#),
        ("vit", r#"{"image_processor_type": "ViTImageProcessor"}"#),
        (
            "qwen2_vl",
            r#"{"image_processor_type": "Qwen2VLImageProcessor"}"#,
        ),
    ];
    let mode = args.next();
    if let Some(name) = &mode {
        // One run in a fresh process, for its peak of memory.
        let config = configs
            .iter()
            .find(|c| c.0 == name)
            .expect("clip, vit or qwen2_vl")
            .1;
        let processor = Processor::from_config(config).expect("a processor");
        let before = peak();
        let made = processor.process_each([decode(&file)]).expect("a picture");
        println!(
            "{{\"before\": {}, \"peak\": {}, \"values\": {}}}",
            before.unwrap_or(0),
            peak().unwrap_or(0),
            made.pixel_values.elements()
        );
        return;
    }
    let image = decode(&file).expect("a picture");
    let mut parts = vec![
        format!("\"size\": [{}, {}]", image.width(), image.height()),
        format!("\"decode\": {:.2}", median(|| drop(decode(&file)))),
    ];
    for (name, config) in configs {
        let processor = Processor::from_config(config).expect("a processor");
        let process = median(|| drop(processor.process(std::slice::from_ref(&image))));
        let whole = median(|| drop(processor.process_each([decode(&file)])));
        parts.push(format!(
            "\"{name}\": {{\"process\": {process:.2}, \"whole\": {whole:.2}}}"
        ));
    }
    for (filter, theirs) in [
        (Filter::Bilinear, fir::FilterType::Bilinear),
        (Filter::Bicubic, fir::FilterType::CatmullRom),
        (Filter::Lanczos3, fir::FilterType::Lanczos3),
    ] {
        for (width, height) in [(224, 224), (1148, 840)] {
            let resized =
                resize(&image, width, height, filter, Reference::Torchvision).expect("a picture");
            let other = with_fir(&image, width, height, theirs);
            let differ = resized
                .rgb()
                .iter()
                .zip(&other)
                .filter(|(a, b)| a != b)
                .count();
            let ours = median(|| {
                drop(resize(
                    &image,
                    width,
                    height,
                    filter,
                    Reference::Torchvision,
                ))
            });
            let pillow = median(|| drop(resize(&image, width, height, filter, Reference::Pillow)));
            let fir = median(|| drop(with_fir(&image, width, height, theirs)));
            parts.push(format!("\"resize {filter:?} {width}x{height}\": {{\"ours\": {ours:.2}, \"ours as Pillow\": {pillow:.2}, \"fast_image_resize\": {fir:.2}, \"samples that differ\": {differ}}}"));
        }
    }
    println!("{{{}}}", parts.join(",\n "));
}
